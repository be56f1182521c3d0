"""Draw the measurements. Run as a module, it draws several files: ``python -m benchmarks.step.plot A B OUT``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.step.table import Row, read_rows
from experiments.reports.plots import COLOURS
from sgdph_fx.report.files import replacing

__all__ = ["figure"]


def figure(rows: Sequence[Row], title: str) -> Figure:
    """Draw bars of time, and of memory beside them where it was measured. The line at 1 is SGD.

    Args:
        rows: Measurements at any batch sizes; each batch size has a colour.
        title: The figure's title.
    """
    names = [name for name in dict.fromkeys(row.optimizer for row in rows) if name != "SGD"]
    with_memory = any(row.memory is not None for row in rows)
    fig = Figure(figsize=(9 if with_memory else 5.5, 1.6 + 0.5 * len(names)), layout="constrained")
    axes = fig.subplots(1, 2 if with_memory else 1, sharey=True, squeeze=False)[0]
    for axis, (field, label) in zip(axes, (("time", "time"), ("memory", "peak memory")), strict=False):
        _bars(axis, rows, names, field)
        axis.set_xlabel(f"{label} ÷ SGD's")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    axes[0].legend(loc="lower right")
    fig.suptitle(title)
    return fig


def _bars(axis: Axes, rows: Sequence[Row], names: Sequence[str], field: str) -> None:
    batches = sorted({row.batch for row in rows})
    height = 0.8 / len(batches)
    for number, batch in enumerate(batches):
        known = {row.optimizer: getattr(row, field) for row in rows if row.batch == batch}
        places = [k for k, name in enumerate(names) if known.get(name) is not None]
        bars = axis.barh(
            [k + (number - (len(batches) - 1) / 2) * height for k in places],
            [known[names[k]] for k in places],
            height,
            color=COLOURS[number % len(COLOURS)],
            label=f"batch {batch}",
        )
        axis.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.margins(x=0.12)


if __name__ == "__main__":
    *_files, _out = map(Path, sys.argv[1:])
    _rows = [row for file in _files for row in read_rows(file)]
    with replacing(_out) as _part:
        figure(_rows, "A training step, as a multiple of SGD's").savefig(_part, dpi=110)
