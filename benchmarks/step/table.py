"""What was measured, as rows, and the rows as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Row", "page"]


@dataclass(frozen=True, slots=True)
class Row:
    """One contender at one batch size; ratios to SGD's in the same run.

    Args:
        contender: Its name.
        batch: Images in a batch.
        milliseconds: Of a mean step; of processor time, on a GPU of the clock.
        time: Of a mean step.
        arithmetic: Of convolutions and matrix products in a mean step.
        megabytes: Peak memory of the process, on a GPU of the allocator, if it was measured.
        memory: Its ratio.
    """

    contender: str
    batch: int
    milliseconds: float
    time: float
    arithmetic: float
    megabytes: float | None
    memory: float | None


def page(rows: Sequence[Row], how: str) -> str:
    """A Markdown table, ``how`` it was measured below."""
    lines = [
        "| step of | batch | ms | time ÷ SGD's | arithmetic ÷ SGD's | peak MB | memory ÷ SGD's |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        memory = ("", "") if row.memory is None else (f"{row.megabytes:.0f}", f"{row.memory:.2f}")
        cells = (
            row.contender,
            row.batch,
            f"{row.milliseconds:.0f}",
            f"{row.time:.2f}",
            f"{row.arithmetic:.2f}",
        )
        lines.append("| " + " | ".join(map(str, (*cells, *memory))) + " |")
    return "\n".join([*lines, "", how, ""])
