"""All tasks of one core in one picture: what curvature brings beside |g|, and SGD-PH beside baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.reports.intervals import Difference
from experiments.reports.plots import COLOURS
from experiments.visits.glance import COLUMNS, CURVATURES, Place, control_of, places
from experiments.visits.units import unit_of

__all__ = ["figure", "picture"]

BASELINES = {
    "SGDM": "sgdm",
    "SGDM, for as much time": "sgdm-longer",
    "AdamW": "adamw",
    "Muon, AdamW on the rest": "muon-adamw",
}
FURTHEST = (6.0, 18.0)
"""Points beyond which the two halves of the picture cut off the intervals of image tasks."""


def _curvatures(place: Place) -> Iterator[tuple[str, Difference, bool]]:
    """Give each curvature's difference from |g|, and whether both have the same settings."""
    for label, candidates in CURVATURES.items():
        ran = [(key, controls) for key, controls in candidates if place.log.scores(place.name, key)]
        found = control_of(place, *ran[0]) if ran else None
        difference = None if found is None else place.log.difference(place.name, ran[0][0], found[0])
        if found is not None and difference is not None:
            yield label, difference, found[1]


def _baselines(place: Place) -> Iterator[tuple[str, Difference, bool]]:
    """Give the difference of ``ones`` from each baseline, all with settings tuned for themselves."""
    own = place.first_of(COLUMNS["ones"])
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
