"""All tasks of one core in one picture: what curvature brings beside |g|, and SGD-PH beside baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.reports.intervals import Difference
from experiments.reports.plots import COLOURS
from experiments.visits.glance import COLUMNS, CURVATURES, Place, control_of, places
from experiments.visits.units import unit_of

__all__ = ["figure", "picture"]

BASELINES = {
    "SGDM": COLUMNS["SGDM"],
    "SGDM, for as much time": ("sgdm-longer",),
    "AdamW": COLUMNS["AdamW"],
    "Muon, AdamW on the rest": COLUMNS["Muon"],
}


def _curvatures(place: Place) -> Iterator[tuple[str, Difference, bool]]:
    """Give each curvature's difference from |g|, and whether both have the same settings."""
    for label, candidates in CURVATURES.items():
        key = place.first_of([key for key, _ in candidates])
        found = None if key is None else control_of(place, key, dict(candidates)[key])
        if key is None or found is None:
            continue
        difference = place.log.difference(place.name, key, found[0])
        if difference is not None:
            yield label, difference, found[1]


def _baselines(place: Place) -> Iterator[tuple[str, Difference, bool]]:
    """Give the difference of ``ones`` from each baseline, all with settings tuned for themselves."""
    own = place.first_of(COLUMNS["ones"])
    for label, keys in BASELINES.items():
        key = place.first_of(keys)
        difference = None if own is None or key is None else place.log.difference(place.name, own, key)
        if difference is not None:
            yield label, difference, True


@dataclass(frozen=True, slots=True)
class _Half:
    """One half of the picture.

    Args:
        head: What it asks.
        than: What differences are taken from.
        labels: What is compared, in the order of colours.
        differences: Gives each difference of a task by its label, and whether its mark is filled.
        furthest: Points beyond which the intervals of image tasks are cut off.
    """

    head: str
    than: str
    labels: Sequence[str]
    differences: Callable[[Place], Iterator[tuple[str, Difference, bool]]]
    furthest: float


HALVES = (
    _Half("Does curvature bring anything?", "|g| in its place", list(CURVATURES), _curvatures, 6.0),
    _Half("Does SGD-PH (ones) win?", "the baseline", list(BASELINES), _baselines, 18.0),
)


def figure(logs: Path) -> Figure:
    """Draw what curvature brings on the left, and SGD-PH by ``ones`` against baselines on the right."""
    groups = _by_unit(places(logs))
    drawn = Figure(figsize=(9.5, 2.0 + 0.62 * sum(map(len, groups))), layout="constrained")
    heights = [len(group) + 0.6 for group in groups] or [1]
    grid = drawn.subplots(max(1, len(groups)), 2, squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, group in zip(grid, groups, strict=False):
        for axis, half in zip(row, HALVES, strict=True):
            _forest(axis, group, half)
        row[1].set_yticklabels([])
    for axis, half in zip(grid[0], HALVES, strict=True):
        axis.set_title(half.head, loc="left", pad=38)
        marks = [Line2D([], [], marker="o", linestyle="", color=COLOURS[n]) for n in range(len(half.labels))]
        above = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "frameon": False}
        axis.legend(marks, half.labels, fontsize="small", ncols=2, handletextpad=0.1, **above)
    return drawn


def _by_unit(found: Sequence[Place]) -> list[list[Place]]:
    units = {unit_of(place.task): None for place in found}
    return [[place for place in found if unit_of(place.task) == unit] for unit in units]


def _forest(axis: Axes, group: Sequence[Place], half: _Half) -> None:
    for line, place in enumerate(group):
        for name, found, filled in half.differences(place):
            number = half.labels.index(name)
            colour = COLOURS[number]
            at = line + 0.18 * (number - (len(half.labels) - 1) / 2)
            width = found.half_width if found.seeds > 1 else 0.0
            axis.errorbar(
                found.mean, at, xerr=width, fmt="o", color=colour, capsize=2, markersize=4,
                markerfacecolor=colour if filled else "white",
            )  # fmt: skip
    axis.set_yticks(range(len(group)), [place.label for place in group])
    axis.set_ylim(len(group) - 0.5, -0.5)
    low, high = axis.get_xlim()
    task = group[0].task
    if not (task.is_text or task.is_equation):
        axis.set_xlim(max(low, -half.furthest), min(high, half.furthest))
    axis.xaxis.set_major_locator(MaxNLocator(5))  # more labels of small numbers would overlap
    axis.axvline(0, color="grey", linewidth=0.8)
    axis.grid(axis="x", alpha=0.3)
    axis.set_xlabel(f"{unit_of(task)} than {half.than}", fontsize="small")


def picture(logs: Path) -> str:
    """Show the figure that :func:`figure` draws."""
    text = "What curvature brings beside |g|, and SGD-PH beside baselines, with 95% intervals"
    return f"![{text}](images/results-visits.png)" if places(logs) else ""
