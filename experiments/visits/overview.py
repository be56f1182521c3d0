"""A visit in one table and one picture: does curvature do better than |g| in its place, and who is best?"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.reports.intervals import Difference
from experiments.reports.plots import COLOURS
from experiments.reports.tables import markdown
from experiments.visits.contenders import CONTENDERS
from experiments.visits.units import digits_of, shown_interval, unit_of
from experiments.visits.visit_log import VisitLog

__all__ = ["CURVATURE_PAIRS", "curvature_table", "overview"]

CURVATURE_PAIRS = {
    "Ones": ("sgd-ph", "gradient"),
    "Rademacher": ("sgd-ph-rademacher", "gradient"),
    "Gauss-Newton": ("gauss-newton", "gradient"),
    "Gauss-Newton, all": ("gauss-newton-all", "gradient-all"),
    "Muon and ones": ("muon-ph", "muon-gradient"),
    "Muon and Gauss-Newton, all": ("muon-gauss-newton", "muon-gradient-all"),
}
"""Rule 3: curvature → the contender that has it, and the one with |g| in its place."""

ADDED_LATER = {
    "Ones, settings of ones for both": ("sgd-ph", "gradient-as-ones"),
    "Rademacher, likewise": ("sgd-ph-rademacher", "gradient-as-ones"),
    "Rademacher, its settings for both": ("sgd-ph-rademacher", "gradient-as-rademacher"),
    "Gauss-Newton, likewise": ("gauss-newton", "gradient-as-ones"),
    "Muon and ones, higher rates": ("muon-ph-fast", "muon-gradient-fast"),
    "Muon and Gauss-Newton, all, higher rates": ("muon-gauss-newton-fast", "muon-gradient-all-fast"),
    "Muon and ones, plain linear layers": ("muon-ph-plain", "muon-gradient-plain"),
    "Muon and Gauss-Newton, all, likewise": ("muon-gauss-newton-plain", "muon-gradient-all-plain"),
    "Muon and ones, likewise, higher rates": ("muon-ph-fast-plain", "muon-gradient-fast-plain"),
    "Muon and Gauss-Newton, likewise": ("muon-gauss-newton-fast-plain", "muon-gradient-all-fast-plain"),
}
"""Pairs that were added when the first results were known, to see what they rest on."""

WITH_EQUAL_SETTINGS = {
    "Ones": ("sgd-ph", "gradient"),
    "Ones, both with its settings": ("sgd-ph", "gradient-as-ones"),
    "Rademacher": ("sgd-ph-rademacher", "gradient"),
    "Rademacher, both with its settings": ("sgd-ph-rademacher", "gradient-as-rademacher"),
    "Gauss-Newton": ("gauss-newton", "gradient"),
    "Gauss-Newton, both with its settings": ("gauss-newton", "gradient-as-gauss-newton"),
}
"""The same for the visit to deep networks, where the control has both settings from the start."""

UNDER_MUON = {
    "Muon and ones": ("muon-ph", "muon-gradient"),
    "Muon and Gauss-Newton, all": ("muon-gauss-newton", "muon-gradient-all"),
    "Muon and Gauss-Newton, its settings for both": (
        "muon-gauss-newton",
        "muon-gradient-all-as-slow-gauss-newton",
    ),
    "Muon and ones, higher rates": ("muon-ph-fast", "muon-gradient-fast"),
    "Muon and ones, likewise, its settings for both": ("muon-ph-fast", "muon-gradient-as-ones"),
    "Muon and Gauss-Newton, higher rates": ("muon-gauss-newton-fast", "muon-gradient-all-fast"),
    "Muon and Gauss-Newton, likewise, its settings for both": (
        "muon-gauss-newton-fast",
        "muon-gradient-all-as-gauss-newton",
    ),
}
"""Pairs that were added to that visit with the speedrun network, by a rule of their own."""

LIKE_RADEMACHER = {
    "Ones, settings of rademacher for both": ("ones-as-rademacher", "gradient-as-rademacher"),
    "Gauss-Newton, likewise": ("gauss-newton-as-rademacher", "gradient-as-rademacher"),
}
"""Pairs that were added when most runs of Burgers' equation with other settings had diverged."""

# By the number of seeds: half widths of 95% intervals times this are those of intervals at 1 − 0.05 / 20.
FOR_TWENTY = {2: 20.04, 3: 4.640, 4: 2.974, 5: 2.434}
HEIGHT_OF_A_LINE = 0.3
LETTERS_OF_A_TITLE = 22


def curvature_table(log: VisitLog) -> str:
    """Write the difference of each pair on each task, and what rule 3 says of each curvature."""
    tasks = [task for task in log.tasks if log.contenders(task)]
    lines = []
    for name, pair in _pairs(log).items():
        found = [log.difference(task, *pair) for task in tasks]
        cells = [_cell(each, digits_of(log.tasks[task])) for each, task in zip(found, tasks, strict=True)]
        rule = _rule_3([each for each in found if each is not None])
        lines.append([name, *cells, "added later" if name in _added_later(log) else rule])
    heads = [f"{log.tasks[task].label}, {unit_of(log.tasks[task])}" for task in tasks]
    return markdown(["in place of the gradient", *heads, "brings something"], lines) if tasks else ""


def _pairs(log: VisitLog) -> dict[str, tuple[str, str]]:
    first = WITH_EQUAL_SETTINGS if log.scale == "deep" else CURVATURE_PAIRS
    return {**first, **_added_later(log)}


def _added_later(log: VisitLog) -> dict[str, tuple[str, str]]:
    return {**UNDER_MUON, **LIKE_RADEMACHER} if log.scale == "deep" else ADDED_LATER


def _cell(difference: Difference | None, digits: int) -> str:
    text = shown_interval(difference, digits)
    if difference is None or difference.seeds == 1 or difference.includes_zero:
        return text
    holds = abs(difference.mean) > FOR_TWENTY[difference.seeds] * difference.half_width
    return f"**{text}**" + ("" if holds else " †")


def _rule_3(found: Sequence[Difference]) -> str:
    clear = [each.mean for each in found if each.seeds > 1 and not each.includes_zero]
    if not clear:
        return "not told apart"
    return "yes" if min(clear) > 0 else "no"


def overview(log: VisitLog) -> Figure:
    """Draw the pairs above, and everyone against the reference below, a column for each task."""
    tasks = [task for task in log.tasks if log.contenders(task)]
    everyone = [key for key in CONTENDERS if any(key in log.contenders(task) for task in tasks)]
    compared = _pairs(log)
    heights = (len(compared) + 2, len(everyone) + 2)
    drawn = Figure(
        figsize=(5.2 + 2.3 * max(1, len(tasks)), HEIGHT_OF_A_LINE * sum(heights)), layout="constrained"
    )
    axes = drawn.subplots(
        2, max(1, len(tasks)), squeeze=False, sharey="row", gridspec_kw={"height_ratios": heights}
    )
    for column, task in enumerate(tasks):
        reference = log.tasks[task].reference
        pairs = {name: log.difference(task, *pair) for name, pair in compared.items()}
        others = {
            CONTENDERS[key].label: None if key == reference else log.difference(task, key, reference)
            for key in everyone
        }
        _forest(axes[0, column], pairs, f"{unit_of(log.tasks[task])}\nthan |g| in its place")
        _forest(axes[1, column], others, f"{unit_of(log.tasks[task])}\nthan {CONTENDERS[reference].label}")
        axes[0, column].set_title(textwrap.fill(log.tasks[task].label, LETTERS_OF_A_TITLE), fontsize="medium")
    return drawn


def _forest(axis: Axes, differences: dict[str, Difference | None], label: str) -> None:
    """Draw a point with its interval for each difference, from the top down."""
    names = list(differences)
    for place, found in enumerate(differences.values()):
        if found is None:
            continue
        clear = found.seeds > 1 and not found.includes_zero
        colour = COLOURS[2 if found.mean > 0 else 1] if clear else COLOURS[6]
        half = found.half_width if found.seeds > 1 else 0.0
        axis.errorbar(found.mean, place, xerr=half, fmt="o", color=colour, capsize=3, markersize=4)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.axvline(0, color="grey", linewidth=0.8)
    axis.grid(axis="x", alpha=0.3)
    axis.set_xlabel(label, fontsize="small")
