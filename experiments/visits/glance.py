"""All tasks of one core in one table that you can judge in a minute; :mod:`.glance_figure` draws their picture.

Each curvature is compared with |g| in its place and the *same settings*, those that were tuned for the curvature, so
that nothing else differs. Where nobody ran that control, one with settings of its own stands in, with a hollow mark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from experiments.reports.tables import markdown
from experiments.visits.jobs import SEEDS, Job, best_trial
from experiments.visits.scales import NAMES, log_name
from experiments.visits.tasks import Task
from experiments.visits.visit_log import VisitLog

__all__ = ["COLUMNS", "CURVATURES", "Place", "control_of", "places", "table"]

SHOWN = (
    ("core", "vgg11", "VGG-11, no norm"),
    ("core", "vgg11-bn", "VGG-11, batch norm"),
    ("deep", "vgg11-b1024", "VGG-11, no norm, batch 1,024"),
    ("deep", "vgg19", "VGG-19, no norm"),
    ("deep", "resnet-no-norm", "ResNet-18, no norm"),
    ("deep", "resnet", "ResNet-18, batch norm"),
    ("deep", "vit", "ViT"),
    ("core", "language", "bytes, Muon"),
    ("deep", "speedrun-narrow", "speedrun, Muon"),
    ("deep", "burgers-long", "Burgers"),
)

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "SGDM": ("sgdm",),
    "\\|g\\|": ("gradient", "gradient-as-rademacher", "muon-gradient-plain", "muon-gradient-fast"),
    "ones": ("sgd-ph", "ones-as-rademacher", "muon-ph-plain", "muon-ph-fast"),
    "rade&shy;macher": ("sgd-ph-rademacher",),
    "Gauss-Newton": (
        *("gauss-newton", "gauss-newton-as-rademacher"),
        *("muon-gauss-newton-plain", "muon-gauss-newton-fast"),
    ),
    "AdamW": ("adamw",),
    "Muon": ("muon-adamw-split-fast", "muon-adamw"),
    "SOAP": ("soap",),
}
"""Head → the contenders that may stand there: of those that a task has, the one with the most runs."""

BY_GRADIENT = ("gradient", "gradient-as-ones", "gradient-as-rademacher", "gradient-as-gauss-newton")
CURVATURES: Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "ones": (
        ("sgd-ph", BY_GRADIENT),
        ("ones-as-rademacher", BY_GRADIENT),
        ("muon-ph-plain", ("muon-gradient-plain",)),
        ("muon-ph-fast", ("muon-gradient-fast", "muon-gradient-as-ones")),
        ("muon-ph", ("muon-gradient", "muon-gradient-as-ph")),
    ),
    "rademacher": (("sgd-ph-rademacher", BY_GRADIENT),),
    "Gauss-Newton": (
        ("gauss-newton", BY_GRADIENT),
        ("gauss-newton-as-rademacher", BY_GRADIENT),
        ("muon-gauss-newton-plain", ("muon-gradient-all-plain",)),
        ("muon-gauss-newton-fast", ("muon-gradient-all-fast", "muon-gradient-all-as-gauss-newton")),
        ("muon-gauss-newton", ("muon-gradient-all", "muon-gradient-all-as-slow-gauss-newton")),
    ),
}
"""Curvature → the contenders that have it, each with those that have |g| in its place."""


@dataclass(frozen=True, slots=True)
class Place:
    """One task in the log that has it.

    Args:
        log: The log.
        name: The task's key.
        label: What the table calls it.
    """

    log: VisitLog
    name: str
    label: str

    @property
    def task(self) -> Task:
        """The task."""
        return self.log.tasks[self.name]

    def first_of(self, keys: Sequence[str]) -> str | None:
        """Give the contender with the most runs that count; of several the first."""
        runs = {key: len(self.log.scores(self.name, key)) for key in keys}
        most = max(runs, key=lambda key: runs[key])  # the first of the largest
        return most if runs[most] else None

    def settings(self, key: str) -> dict[str, float] | None:
        """Give the settings that a contender's runs have."""
        return best_trial(Job(self.name, key, "seed"), self.log.rows)


def places(logs: Path) -> list[Place]:
    """Find the tasks that have runs.

    Args:
        logs: The folder of the logs.
    """
    by_scale = {scale: VisitLog(logs / log_name(scale), scale) for scale in NAMES}
    found = [Place(by_scale[scale], name, label) for scale, name, label in SHOWN]
    return [place for place in found if place.log.contenders(place.name)]


def control_of(place: Place, key: str, controls: Sequence[str]) -> tuple[str, bool] | None:
    """Find |g| in place of a contender's curvature, and tell whether its settings are the same.

    Args:
        place: The task.
        key: The contender.
        controls: Those that may be the control; the first one is tuned for itself.
    """
    ran = [each for each in controls if place.log.scores(place.name, each)]
    wanted = place.settings(key)
    same = next((each for each in ran if place.settings(each) == wanted), None)
    if same is not None:
        return same, True
    return (ran[0], False) if ran else None


def table(logs: Path) -> str:
    """Write the mean score of everyone on every task, the best one in bold, and what a step costs."""
    lines = []
    for place in places(logs):
        keys = [place.first_of(keys) for keys in COLUMNS.values()]
        means = [None if key is None else _mean(place, key) for key in keys]
        best = max(mean for mean in means if mean is not None)
        cells = [_cell(place, key, best) for key in keys]
        lines.append([place.label, *cells, _cost(place)])
    return markdown(["", *COLUMNS, "cost"], lines) if lines else ""


def _mean(place: Place, key: str) -> float:
    return fmean(place.log.scores(place.name, key).values())


def _cell(place: Place, key: str | None, best: float) -> str:
    if key is None:
        return "–"
    seeds = len(place.log.scores(place.name, key))
    shown, most = _shown(place.task, _mean(place, key)), _shown(place.task, best)
    counted = "" if seeds == SEEDS else f" ({seeds})"
    return f"**{shown}**{counted}" if shown == most else f"{shown}{counted}"


def _shown(task: Task, score: float) -> str:
    digits = 2 if task.is_text or task.is_equation else 1
    return f"{abs(score):.{digits}f}"


def _cost(place: Place) -> str:
    pairs = (("sgd-ph", "sgdm"), ("muon-ph", "muon-adamw"))
    for first, second in pairs:
        own, other = (place.log.milliseconds(place.name, key) for key in (first, second))
        if own is not None and other is not None:
            return f"{own / other:.1f}"
    return f"~{place.task.time_ratio:.1f}" if place.task.time_ratio > 1 else "–"
