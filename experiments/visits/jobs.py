"""Which trainings there are, in order of importance, and what the log says of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.visits.contenders import CONTENDERS, TRIALS, available, trial_settings
from experiments.visits.tasks import Task

__all__ = [
    "SEEDS",
    "Job",
    "Row",
    "best_trial",
    "described",
    "is_ready",
    "is_sound",
    "plan",
    "read_rows",
    "settings_of",
]

SEEDS = 5
FIRST_SEEDS = 3
ALIGNED = ("vgg11", "resnet18")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """One training, or one measurement.

    Args:
        task: A key of the tasks.
        contender: A key of the contenders.
        phase: ``"trial"``, ``"seed"``, ``"alignment"`` or ``"timing"``.
        number: Which seed; for a trial which settings and which seed, all settings with the first seed first.
    """

    task: str
    contender: str
    phase: str
    number: int = 0

    @classmethod
    def of(cls, row: Row) -> Job:
        """Give the job that a row of the log is about."""
        return cls(row["task"], row["contender"], row["phase"], row["number"])


def plan(tasks: Mapping[str, Task], phases: Sequence[str]) -> list[Job]:
    """List all jobs, the most important first.

    For the tasks of each tier: all trials, then the first seed of everyone, the second, the third; then alignment,
    then the last two seeds. Timing comes last and is asked for by name, because it wants the GPU for itself.

    Args:
        tasks: The tasks by name.
        phases: The phases to keep.
    """
    jobs: list[Job] = []
    everyone = [(task, contender) for task in tasks.values() for contender in available(task)]
    for tier in sorted({_tier(*pair) for pair in everyone}):
        pairs = [(task.name, contender) for task, contender in everyone if _tier(task, contender) == tier]
        trials = [
            Job(*pair, "trial", number)
            for pair in pairs
            for number in range(TRIALS * tasks[pair[0]].trial_seeds)
            if not CONTENDERS[pair[1]].tuned_as
        ]
        seeds = [[Job(*pair, "seed", number) for pair in pairs] for number in range(SEEDS)]
        alignment = [Job(name, "sgd-ph", "alignment") for name in ALIGNED if name in tasks and tier == 1]
        jobs += [*trials, *chain(*seeds[:FIRST_SEEDS]), *alignment, *chain(*seeds[FIRST_SEEDS:])]
    by_rank = sorted(everyone, key=lambda pair: (pair[0].tier, available(pair[0]).index(pair[1])))
    jobs += [Job(task.name, contender, "timing") for task, contender in by_rank]
    return [job for job in jobs if job.phase in phases]


def _tier(task: Task, contender: str) -> int:
    return task.tier + (contender in task.later)


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read a log. A line that a kill left unfinished is skipped."""
    if not file.exists():
        return []
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def is_ready(job: Job, task: Task, done: Iterable[Job]) -> bool:
    """Tell whether all trials that decide the job's settings are over."""
    if job.phase in ("trial", "alignment"):
        return True
    finished = set(done)
    numbers = range(TRIALS * task.trial_seeds)
    return all(Job(job.task, _tuned(job), "trial", number) in finished for number in numbers)


def _tuned(job: Job) -> str:
    """Give the contender whose trials decide the job's settings."""
    return CONTENDERS[job.contender].tuned_as or job.contender


def best_trial(job: Job, rows: Iterable[Row]) -> dict[str, float] | None:
    """Give the settings with the best mean score on held-out data.

    None if no settings came to the end with every seed.
    """
    trials = [row for row in rows if Job.of(row) == Job(job.task, _tuned(job), "trial", row["number"])]
    by_settings = [[row for row in trials if row["number"] % TRIALS == point] for point in range(TRIALS)]
    sound = [found for found in by_settings if found and all(map(is_sound, found))]
    best = max(sound, key=lambda found: (_mean(found, "score"), -_mean(found, "loss")), default=None)
    return None if best is None else dict(best[0]["settings"])


def is_sound(row: Row) -> bool:
    """Tell whether a training came to its end with finite numbers."""
    return "error" not in row and row["score"] is not None and row["loss"] is not None


def _mean(rows: Sequence[Row], name: str) -> float:
    return fmean(row[name] for row in rows)


def settings_of(job: Job, task: Task, rows: Iterable[Row]) -> dict[str, float] | None:
    """Give the settings to train the job with; None if all its trials failed."""
    if job.phase == "trial":
        return trial_settings(task, CONTENDERS[job.contender])[job.number % TRIALS]
    if job.phase == "alignment":
        return {"lr": 0.01, "weight_decay": 5e-3 if task.network.startswith("resnet") else 1e-3}
    return best_trial(job, rows)


def described(job: Job, **values: Any) -> dict[str, Any]:
    """Make a row of the log. A number that is not finite becomes None."""
    return {key: _finite(value) for key, value in {**asdict(job), **values}.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
