"""The measurements as rows, and the rows as Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Row", "markdown", "read_rows"]


@dataclass(frozen=True, slots=True)
class Row:
    """One optimizer at one batch size. Ratios are to SGD's in the same run.

    Args:
        optimizer: Its name.
        batch: Images in a batch.
        milliseconds: Of a mean step: processor time, on a GPU wall time.
        time: Its ratio.
        arithmetic: Ratio of the operations of convolutions and matrix products in a mean step.
        megabytes: Peak memory of the process, on a GPU of the allocator, if it was measured.
        memory: Its ratio.
    """

    optimizer: str
    batch: int
    milliseconds: float
    time: float
    arithmetic: float
    megabytes: float | None
    memory: float | None


def read_rows(file: Path) -> list[Row]:
    """Read rows from a file of measurements. In old files an optimizer is called "contender"."""
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    return [Row(**{{"contender": "optimizer"}.get(k, k): value for k, value in row.items()}) for row in rows]


def markdown(rows: Sequence[Row], how: str) -> str:
    """Write a Markdown table, and below it how it was measured.

    Args:
        rows: The measurements.
        how: How they were made.
    """
    lines = [
        "| step of | batch | ms | time ÷ SGD's | arithmetic ÷ SGD's | peak MB | memory ÷ SGD's |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        memory = ("", "") if row.memory is None else (f"{row.megabytes:.0f}", f"{row.memory:.2f}")
        cells = (
            row.optimizer,
            row.batch,
            f"{row.milliseconds:.0f}",
            f"{row.time:.2f}",
            f"{row.arithmetic:.2f}",
        )
        lines.append("| " + " | ".join(map(str, (*cells, *memory))) + " |")
    return "\n".join([*lines, "", how, ""])
