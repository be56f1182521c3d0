"""Outcomes → a plot as Figures 3 to 5 are: accuracy against epochs, a panel for each row of the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.outcomes import Outcome
from experiments.recipe_files import Experiment
from experiments.training import Epoch

__all__ = ["curves"]

# Okabe and Ito's colours, told apart by every common kind of colour vision; the next round of them is dashed.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
LABELS = {"test_accuracy": "test accuracy (%)", "train_accuracy": "training accuracy (%)"}
ACROSS = 4


def curves(experiment: Experiment, outcomes: Sequence[Outcome], quantities: Sequence[str]) -> Figure:
    """Draw the mean over seeds against epochs; the band spans from the least seed to the greatest.

    Args:
        experiment: The recipe file.
        outcomes: Its cells; those without runs are left out.
        quantities: Names of the epochs' percentages; each has its own row of panels.
    """
    rows = list(experiment.rows)
    across = min(ACROSS, len(rows))
    down = math.ceil(len(rows) / across) * len(quantities)
    fig = Figure(figsize=(4.2 * across + 2.5, 3.4 * down), layout="constrained")
    panels = fig.subplots(down, across, squeeze=False).flat
    for quantity in quantities:
        for row in rows:
            axis = next(panels)
            _panel(axis, experiment, [outcome for outcome in outcomes if outcome.cell.row == row], quantity)
            axis.set_title(experiment.rows[row])
    for axis in panels:
        axis.set_visible(False)
    fig.suptitle(experiment.title)
    # One for all panels, beside them: with a table's many columns it would hide the curves.
    handles = {line.get_label(): line for axis in fig.axes for line in axis.lines}
    if handles:
        fig.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize="small")
    return fig


def _panel(axis: Axes, experiment: Experiment, outcomes: Sequence[Outcome], quantity: str) -> None:
    columns = list(experiment.columns)
    for outcome in outcomes:
        if outcome.runs:
            number = columns.index(outcome.cell.column)
            colour, dashes = COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]
            _line(axis, experiment.columns[outcome.cell.column], outcome, quantity, colour, dashes)
    axis.set_xlabel("epoch")
    axis.set_ylabel(LABELS[quantity])
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)


def _line(axis: Axes, label: str, outcome: Outcome, quantity: str, colour: str, dashes: str) -> None:
    def of(epoch: Epoch) -> float:
        return float(getattr(epoch, quantity))

    together = zip(*(run.epochs for run in outcome.runs), strict=False)
    epochs = [same for same in together if all(math.isfinite(of(epoch)) for epoch in same)]
    x = [same[0].epoch for same in epochs]
    y = [[of(epoch) for epoch in same] for same in epochs]
    axis.plot(x, [fmean(v) for v in y], color=colour, linestyle=dashes, marker=".", label=label)
    axis.fill_between(x, [min(v) for v in y], [max(v) for v in y], color=colour, alpha=0.12, linewidth=0)
