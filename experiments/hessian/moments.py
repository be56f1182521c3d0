"""Measuring at some moments of a training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeVar

from experiments.progress import run_with_progress

__all__ = ["measured_along"]

T = TypeVar("T")


def measured_along(
    losses: Iterator[float], steps: int, moments: Collection[int], measure: Callable[[int], Iterable[T]]
) -> list[T]:
    """Train, and measure after some of the steps.

    Args:
        losses: Takes a step each time that it is asked for the next loss.
        steps: How many to take.
        moments: After how many steps to measure; 0 is before the first.
        measure: Called with the number of steps taken.
    """
    found: list[T] = []

    def run(report: Callable[[int, int], None]) -> None:
        for step in range(steps + 1):
            if step in moments:
                found.extend(measure(step))
            next(losses, None)
            report(step, steps)

    run_with_progress("steps", run)
    return found
