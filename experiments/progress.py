"""Progress bars on a terminal; a pipe gets none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["make_progress", "run_with_progress"]

T = TypeVar("T")


def make_progress(console: Console, label: str = "{task.description}", unit: str = "") -> Progress:
    """Make a progress display that is disabled where ``console`` is not a terminal.

    Args:
        console: Where to draw.
        label: The text on the left, in rich's markup.
        unit: What is counted, shown after the count.
    """
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def run_with_progress(label: str, run: Callable[[Callable[[int, int], None]], T]) -> T:
    """Call ``run`` with a function that reports ``(done, total)`` to a bar on standard error.

    Args:
        label: The text beside the bar.
        run: The work. It calls its argument whenever something is done.

    Returns:
        What ``run`` returns.
    """
    console = Console(stderr=True)
    if not console.is_terminal:  # older releases of rich print an empty line even for a disabled bar
        return run(lambda done, total: None)
    with make_progress(console, label) as bar:
        task = bar.add_task("", total=None)
        return run(lambda done, total: bar.update(task, completed=done, total=total))
