"""All tasks of one core in one table and one picture that you can judge in a minute.

Each curvature is compared with |g| in its place and the *same settings*, those that were tuned for the curvature, so
that nothing else differs. Where nobody ran that control, one with settings of its own stands in, with a hollow mark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.reports.intervals import Difference
from experiments.reports.plots import COLOURS
from experiments.reports.tables import markdown
from experiments.visits.jobs import SEEDS, Job, best_trial
from experiments.visits.scales import NAMES, log_name
from experiments.visits.tasks import Task
from experiments.visits.units import unit_of
from experiments.visits.visit_log import VisitLog

__all__ = ["PARTS", "Place", "control_of", "figure", "places", "table"]

SHOWN = (
    ("core", "vgg11", "VGG-11 without norm"),
    ("core", "vgg11-bn", "VGG-11 with batch norm"),
    ("deep", "vgg11-b1024", "VGG-11 without norm, batch 1,024"),
    ("deep", "vgg19", "VGG-19 without norm"),
    ("deep", "resnet-no-norm", "ResNet-18 without norm"),
    ("deep", "vit", "ViT"),
    ("core", "language", "byte language model, with Muon"),
    ("deep", "burgers-long", "Burgers' equation"),
)

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "SGDM": ("sgdm",),
    "\\|g\\|, no Hessian": ("gradient", "muon-gradient-fast"),
    "`ones`": ("sgd-ph", "muon-ph-fast"),
    "`rademacher`": ("sgd-ph-rademacher",),
    "Gauss-Newton": ("gauss-newton", "muon-gauss-newton-fast"),
    "SGDM, as much time": ("sgdm-longer",),
    "AdamW": ("adamw",),
    "Muon, AdamW": ("muon-adamw",),
}
"""Head → the contenders that may stand there; a task has one of them, or none."""

BY_GRADIENT = ("gradient", "gradient-as-ones", "gradient-as-rademacher", "gradient-as-gauss-newton")
CURVATURES: Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "ones": (
        ("sgd-ph", BY_GRADIENT),
        ("muon-ph-fast", ("muon-gradient-fast", "muon-gradient-as-ones")),
    ),
    "rademacher": (("sgd-ph-rademacher", BY_GRADIENT),),
    "Gauss-Newton": (
        ("gauss-newton", BY_GRADIENT),
        ("muon-gauss-newton-fast", ("muon-gradient-all-fast", "muon-gradient-all-as-gauss-newton")),
    ),
}
"""Curvature → the contenders that have it, each with those that have |g| in its place."""

BASELINES = {
    "SGDM": "sgdm",
    "SGDM, as much time": "sgdm-longer",
    "AdamW": "adamw",
    "Muon, AdamW": "muon-adamw",
}
FURTHEST = (6.0, 15.0)
"""Points beyond which the two halves of the picture cut off the intervals of image tasks."""


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
        """Give the first contender that has a run which counts."""
        return next((key for key in keys if self.log.scores(self.name, key)), None)

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
        cells = [_cell(place, key, mean == best) for key, mean in zip(keys, means, strict=True)]
        lines.append([place.label, *cells, _cost(place)])
    return markdown(["", *COLUMNS, "a step of `ones` ÷ SGDM's"], lines) if lines else ""


def _mean(place: Place, key: str) -> float:
    return fmean(place.log.scores(place.name, key).values())


def _cell(place: Place, key: str | None, best: bool) -> str:
    if key is None:
        return "–"
    task, seeds = place.task, len(place.log.scores(place.name, key))
    digits = 2 if task.is_text or task.is_equation else 1
    shown = f"{abs(_mean(place, key)):.{digits}f}"
    counted = "" if seeds == SEEDS else f" ({seeds})"
    return f"**{shown}**{counted}" if best else f"{shown}{counted}"


def _cost(place: Place) -> str:
    pairs = (("sgd-ph", "sgdm"), ("muon-ph", "muon-adamw"))
    for first, second in pairs:
        own, other = (place.log.milliseconds(place.name, key) for key in (first, second))
        if own is not None and other is not None:
            return f"{own / other:.1f}" + (" (÷ Muon's)" if second == "muon-adamw" else "")
    return f"about {place.task.time_ratio:.1f}"


def _curvatures(place: Place) -> Iterator[tuple[str, Difference, bool]]:
    """Give each curvature's difference from |g|, and whether both have the same settings."""
    for label, candidates in CURVATURES.items():
        for key, controls in candidates:
            found = control_of(place, key, controls)
            difference = None if found is None else place.log.difference(place.name, key, found[0])
            if found is not None and difference is not None:
                yield label, difference, found[1]


def _baselines(place: Place) -> Iterator[tuple[str, Difference, bool]]:
    """Give the difference of ``ones`` from each baseline, all with settings tuned for themselves."""
    own = place.first_of(COLUMNS["`ones`"])
    for label, key in BASELINES.items():
        difference = None if own is None else place.log.difference(place.name, own, key)
        if difference is not None:
            yield label, difference, True


def figure(logs: Path) -> Figure:
    """Draw what curvature brings on the left, and SGD-PH by ``ones`` against baselines on the right."""
    groups = _by_unit(places(logs))
    drawn = Figure(figsize=(9.5, 2.0 + 0.62 * sum(map(len, groups))), layout="constrained")
    heights = [len(group) + 0.6 for group in groups] or [1]
    grid = drawn.subplots(max(1, len(groups)), 2, squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, group in zip(grid, groups, strict=False):
        for axis, take, than in zip(
            row, (_curvatures, _baselines), ("|g| in its place", "the baseline"), strict=True
        ):
            _forest(axis, group, take, f"{unit_of(group[0].task)} than {than}")
        row[1].set_yticklabels([])
    for axis, head, labels in (
        (grid[0, 0], "Does curvature bring anything?", CURVATURES),
        (grid[0, 1], "Does SGD-PH (ones) win?", BASELINES),
    ):
        axis.set_title(head, loc="left", pad=38)
        marks = [Line2D([], [], marker="o", linestyle="", color=COLOURS[n]) for n in range(len(labels))]
        above = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "frameon": False}
        axis.legend(marks, list(labels), fontsize="small", ncols=2, handletextpad=0.1, **above)
    return drawn


def _by_unit(found: Sequence[Place]) -> list[list[Place]]:
    units = {unit_of(place.task): None for place in found}
    return [[place for place in found if unit_of(place.task) == unit] for unit in units]


def _forest(
    axis: Axes,
    group: Sequence[Place],
    take: Callable[[Place], Iterator[tuple[str, Difference, bool]]],
    label: str,
) -> None:
    labels = list(CURVATURES if take is _curvatures else BASELINES)
    for line, place in enumerate(group):
        for name, found, filled in take(place):
            number = labels.index(name)
            colour = COLOURS[number]
            at = line + 0.18 * (number - (len(labels) - 1) / 2)
            half = found.half_width if found.seeds > 1 else 0.0
            axis.errorbar(
                found.mean, at, xerr=half, fmt="o", color=colour, capsize=2, markersize=4,
                markerfacecolor=colour if filled else "white",
            )  # fmt: skip
    axis.set_yticks(range(len(group)), [place.label for place in group])
    axis.set_ylim(len(group) - 0.5, -0.5)
    low, high = axis.get_xlim()
    if not (group[0].task.is_text or group[0].task.is_equation):
        furthest = FURTHEST[take is _baselines]
        axis.set_xlim(max(low, -furthest), min(high, furthest))
    axis.axvline(0, color="grey", linewidth=0.8)
    axis.grid(axis="x", alpha=0.3)
    axis.set_xlabel(label, fontsize="small")


def picture(logs: Path) -> str:
    """Show the figure that :func:`figure` draws."""
    text = "What curvature brings beside |g|, and SGD-PH beside baselines, with 95% intervals"
    return f"![{text}](images/results-visits.png)" if places(logs) else ""


PARTS: Mapping[str, Callable[[Path], str]] = {"table": table, "picture": picture}
"""Parts of the page Results that all logs together fill in."""
