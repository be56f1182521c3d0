"""How a task's scores and their differences are written."""

from __future__ import annotations

from experiments.reports.intervals import Difference
from experiments.visits.tasks import Task

__all__ = ["digits_of", "shown_interval", "unit_of"]


def digits_of(task: Task) -> int:
    """Give the digits of a score to show."""
    return 4 if task.is_text else 3 if task.is_equation else 2


def shown_interval(difference: Difference | None, digits: int) -> str:
    """Write a difference with its interval."""
    if difference is None:
        return "–"
    if difference.seeds == 1:
        return f"{difference.mean:+.{digits}f} (one seed)"
    low, high = difference.mean - difference.half_width, difference.mean + difference.half_width
    return f"{difference.mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def unit_of(task: Task) -> str:
    """Say what a positive difference is."""
    if task.is_text:
        return "bits per byte less"
    return "correct digits more" if task.is_equation else "points of test accuracy more"
