"""Runs as plots: curves against epochs or time, the mean over seeds with a band around it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.running.recipe_files import Experiment
from experiments.running.results import CellResult
from experiments.running.run_log import Run
from experiments.training.metrics import EpochMetrics

__all__ = ["COLOURS", "METHOD_LABELS", "comparison_figure", "experiment_figure"]

# Okabe and Ito's colours, which people with any common kind of colour vision can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
AXIS_LABELS = {"test_accuracy": "test accuracy (%)", "train_accuracy": "training accuracy (%)"}
PANELS_ACROSS = 4

METHOD_LABELS = {"sgdm": "SGD with momentum", "sgdm-wn": "SGD with momentum, decoupled", "sgd-ph": "SGD-PH"}
METHOD_STYLES = {"sgdm": (COLOURS[0], "--"), "sgdm-wn": (COLOURS[2], ":"), "sgd-ph": (COLOURS[1], "-")}

Metric = Callable[[EpochMetrics], float]


def comparison_figure(
    runs: Mapping[str, Sequence[Run]], title: str, seconds: Metric, seconds_label: str
) -> Figure:
    """Draw one network's methods: loss above accuracy, against epochs on the left and time on the right.

    Args:
        runs: Method → its runs, one for each seed.
        title: The figure's title.
        seconds: Which of an epoch's times to draw against.
        seconds_label: What that time is.
    """
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    axes = figure.subplots(2, 2, sharex="col", sharey="row")
    heights: tuple[tuple[Metric, str], ...] = (
        (lambda epoch: epoch.train_loss, "training loss (mean over the epoch)"),
        (lambda epoch: epoch.test_accuracy, AXIS_LABELS["test_accuracy"]),
    )
    for row, (height, label) in zip(axes, heights, strict=True):
        for axis, along in zip(row, (_epoch, seconds), strict=True):
            for method, own in runs.items():
                colour, dashes = METHOD_STYLES[method]
                _mean_and_band(axis, own, along, height, METHOD_LABELS[method], colour, dashes)
            axis.grid(alpha=0.3)
        row[0].set_ylabel(label)
    axes[1, 0].set_xlabel("epoch")
    axes[1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[1, 1].set_xlabel(seconds_label)
    axes[0, 0].legend()
    figure.suptitle(title)
    return figure


def experiment_figure(
    experiment: Experiment, results: Sequence[CellResult], metrics: Sequence[str]
) -> Figure:
    """Draw a panel for each row of the table, against epochs, as in the paper's Figures 3 to 5.

    Args:
        experiment: The recipe.
        results: Its cells' results. Those without runs are left out.
        metrics: Names of the epochs' percentages. Each has its own row of panels.
    """
    rows = list(experiment.rows)
    across = min(PANELS_ACROSS, len(rows))
    down = math.ceil(len(rows) / across) * len(metrics)
    figure = Figure(figsize=(4.2 * across + 2.5, 3.4 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).flat
    for metric in metrics:
        for row in rows:
            axis = next(panels)
            _panel(axis, experiment, [result for result in results if result.cell.row == row], metric)
            axis.set_title(experiment.rows[row])
    for axis in panels:
        axis.set_visible(False)
    figure.suptitle(experiment.title)
    # One legend for all panels, beside them: inside a panel it would hide the curves.
    handles = {str(line.get_label()): line for axis in figure.axes for line in axis.lines}
    if handles:
        figure.legend([*handles.values()], [*handles], loc="outside right upper", fontsize="small")
    return figure


def _panel(axis: Axes, experiment: Experiment, results: Sequence[CellResult], metric: str) -> None:
    columns = list(experiment.columns)
    for result in results:
        if result.runs:
            number = columns.index(result.cell.column)
            colour, dashes = COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]
            label = experiment.columns[result.cell.column]
            _mean_and_band(
                axis, result.runs, _epoch, lambda e: float(getattr(e, metric)), label, colour, dashes, "."
            )
    axis.set_xlabel("epoch")
    axis.set_ylabel(AXIS_LABELS[metric])
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)


def _mean_and_band(
    axis: Axes,
    runs: Sequence[Run],
    along: Metric,
    height: Metric,
    label: str,
    colour: str,
    dashes: str,
    marker: str = "",
) -> None:
    """Draw the mean over seeds, and a band from the lowest seed to the highest, without epochs that lack the number."""
    together = zip(*(run.epochs for run in runs), strict=False)
    epochs = [same for same in together if all(math.isfinite(height(epoch)) for epoch in same)]
    x = [fmean(map(along, same)) for same in epochs]
    y = [[height(epoch) for epoch in same] for same in epochs]
    axis.plot(x, [fmean(v) for v in y], color=colour, linestyle=dashes, marker=marker, label=label)
    axis.fill_between(x, [min(v) for v in y], [max(v) for v in y], color=colour, alpha=0.13, linewidth=0)


def _epoch(epoch: EpochMetrics) -> float:
    return epoch.epoch
