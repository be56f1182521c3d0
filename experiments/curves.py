"""Runs → a plot: training loss and test accuracy, against epochs and against time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.records import Run
from experiments.training import Epoch

__all__ = ["LABELS", "figure"]

LABELS = {"sgdm": "SGD with momentum", "sgdm-wn": "SGD with momentum, decoupled", "sgd-ph": "SGD-PH"}

# Okabe and Ito's colours, told apart by every common kind of colour vision; dashes help in grey print.
STYLES = {"sgdm": ("#0072B2", "--"), "sgdm-wn": ("#009E73", ":"), "sgd-ph": ("#D55E00", "-")}

Number = Callable[[Epoch], float]


def figure(runs: Mapping[str, Sequence[Run]], title: str, seconds: Number, seconds_label: str) -> Figure:
    """Draw one comparison: loss above accuracy, against epochs on the left and time on the right.

    Lines are means over seeds; the band about a line spans from the least to the greatest of them.

    Args:
        runs: System → its runs, one for each seed.
        title: Heads the fig.
        seconds: Which of an epoch's times to draw against.
        seconds_label: What that time is.
    """
    fig = Figure(figsize=(9, 6.5), layout="constrained")
    axes = fig.subplots(2, 2, sharex="col", sharey="row")
    for row, (height, label) in zip(axes, (LOSS, ACCURACY), strict=True):
        for axis, along in zip(row, (_epoch, seconds), strict=True):
            for system, of_system in runs.items():
                _line(axis, system, of_system, along, height)
            axis.grid(alpha=0.3)
        row[0].set_ylabel(label)
    axes[1, 0].set_xlabel("epoch")
    axes[1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[1, 1].set_xlabel(seconds_label)
    axes[0, 0].legend()
    fig.suptitle(title)
    return fig


def _line(axis: Axes, system: str, runs: Sequence[Run], along: Number, height: Number) -> None:
    epochs = list(zip(*(run.epochs for run in runs), strict=False))
    x = [fmean(map(along, same)) for same in epochs]
    y = [[height(epoch) for epoch in same] for same in epochs]
    colour, dashes = STYLES[system]
    axis.plot(x, [fmean(values) for values in y], color=colour, linestyle=dashes, label=LABELS[system])
    axis.fill_between(x, [min(v) for v in y], [max(v) for v in y], color=colour, alpha=0.15, linewidth=0)


def _epoch(epoch: Epoch) -> float:
    return epoch.epoch


LOSS: tuple[Number, str] = (lambda epoch: epoch.train_loss, "training loss (mean over the epoch)")
ACCURACY: tuple[Number, str] = (lambda epoch: epoch.test_accuracy, "test accuracy (%)")
