"""The log of a visit: its runs by task, contender and seed."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from experiments.reports.intervals import Difference, paired
from experiments.visits.jobs import Job, Row, is_sound, read_rows
from experiments.visits.scales import tasks_at

__all__ = ["VisitLog"]


class VisitLog:
    """The rows of a log that came to their end.

    Args:
        file: The log.
        scale: The scale whose rows are taken: a key of :data:`experiments.visits.scales.NAMES`.
    """

    def __init__(self, file: Path, scale: str = "full") -> None:
        self.scale, self.tasks = scale, tasks_at(scale)
        self.rows: list[Row] = [
            row for row in read_rows(file) if "error" not in row and row["scale"] == scale
        ]
        # Pages ask thousands of times for the runs of one contender.
        self._runs: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            if row["phase"] == "seed":
                self._runs.setdefault((row["task"], row["contender"]), []).append(row)

    def scores(self, task: str, contender: str) -> dict[int, float]:
        """Give seed → final score of the runs that count."""
        runs = self._runs.get((task, contender), [])
        return {row["number"]: row["score"] for row in runs if self._counts(row)}

    def failures(self, task: str, contender: str) -> int:
        """Count the runs that diverged, which have no score that tells anything."""
        return len(self._runs.get((task, contender), [])) - len(self.scores(task, contender))

    def _counts(self, row: Row) -> bool:
        # With fewer than no digits an answer is worse than zero everywhere. A mean with -18 digits says nothing.
        return is_sound(row) and not (self.tasks[row["task"]].is_equation and row["score"] < 0)

    def difference(self, task: str, first: str, second: str) -> Difference | None:
        """Compare two contenders over the seeds that both have; None without any."""
        one, two = self.scores(task, first), self.scores(task, second)
        both = sorted(one.keys() & two.keys())
        return paired([one[seed] for seed in both], [two[seed] for seed in both]) if both else None

    def milliseconds(self, task: str, contender: str) -> float | None:
        """Give the measured time of a step, with the GPU for itself."""
        job = Job(task, contender, "timing")
        return next((row["milliseconds"] for row in self.rows if Job.of(row) == job), None)

    def contenders(self, task: str) -> list[str]:
        """List the contenders with at least one run that counts, the best mean first."""
        found = [key for key in self.everyone(task) if self.scores(task, key)]
        return sorted(found, key=lambda key: -fmean(self.scores(task, key).values()))

    def everyone(self, task: str) -> tuple[str, ...]:
        """List all contenders of a task, those of the next tier last."""
        return (*self.tasks[task].contenders, *self.tasks[task].later)
