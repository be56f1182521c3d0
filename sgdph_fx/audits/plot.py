"""An audit as a plot: shares and errors by parameter, and estimates against the truth."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from sgdph_fx.audits.entries import AuditRow, Findings
from sgdph_fx.errors import AuditError

__all__ = ["figure"]

# Okabe and Ito's colours, told apart by every common kind of colour vision; markers help in grey print.
ONES, DRAW, OFF = "#D55E00", "#0072B2", "#000000"
NAMED_UP_TO = 45


def figure(audit: Findings) -> Figure:
    """Draw the audit.

    Raises:
        AuditError: if no parameter has a diagonal to compare with.
    """
    rows = [row for row in audit.rows if row.off_diagonal is not None]
    if not rows:
        raise AuditError("No parameter that was audited has a Hessian diagonal, so there is nothing to draw.")
    fig = Figure(figsize=(11, 5.5), layout="constrained")
    left, right = fig.subplots(1, 2, width_ratios=(3, 2))
    _by_parameter(left, rows)
    _against_truth(right, rows, audit.draws)
    fig.suptitle(f"{audit.model.rpartition('.')[2]}: how diagonal is the Hessian, and what do probes find?")
    return fig


def _by_parameter(axis: Axes, rows: Sequence[AuditRow]) -> None:
    x = range(len(rows))
    # Errors span orders of magnitude; one that is nothing but rounding has no place on such an axis.
    axis.set_yscale("log")
    axis.plot(x, _percents([r.ones_error for r in rows]), "s-", color=ONES, ms=4, lw=1, label="error of ones")
    one_draw = _percents([r.one_draw_error for r in rows])
    axis.plot(x, one_draw, "o-", color=DRAW, ms=4, lw=1, label="error of one Rademacher draw")
    off = _percents([r.off_diagonal for r in rows])
    axis.plot(x, off, "--", color=OFF, lw=1, label="off-diagonal share")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
    axis.set_ylabel("% of the diagonal")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    if len(rows) <= NAMED_UP_TO:
        axis.set_xticks(list(x), [r.name for r in rows], rotation=90, fontsize=6)
    else:
        axis.set_xlabel("parameter, in the model's order")


def _against_truth(axis: Axes, rows: Sequence[AuditRow], draws: int) -> None:
    for estimates, marker, colour, label in (
        ([r.ones for r in rows], "s", ONES, "ones"),
        ([r.rademacher for r in rows], "o", DRAW, f"Rademacher, average of {draws}"),
    ):
        pairs = [_scaled(row, found) for row, found in zip(rows, estimates, strict=True)]
        x, y = ([number for pair in pairs for number in pair[side]] for side in (0, 1))
        axis.plot(x, y, marker, color=colour, ms=3, alpha=0.4, mew=0, label=label)
    axis.axline((0, 0), slope=1, color=OFF, lw=0.8)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.set_xlabel("true diagonal ÷ its largest entry, by parameter")
    axis.set_ylabel("estimate, on the same scale")
    axis.set_ylim(-2, 3)
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")


def _scaled(row: AuditRow, estimate: Sequence[float]) -> tuple[list[float], list[float]]:
    largest = max(map(abs, row.diagonal))
    return [d / largest for d in row.diagonal], [e / largest for e in estimate]


def _percents(shares: Sequence[float | None]) -> list[float]:
    return [float("nan") if not share else 100 * share for share in shares]
