"""The results for one model: a row of the table, and a line of the log."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from experiments.files import append_line

__all__ = ["Log", "Oracle", "Reading", "Row"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What ``analyze`` finds with one way of tracing.

    Args:
        seconds: How long it takes, the best of a few.
        bare: Number of bare convolutions.
        normalized: Number of normalized ones.
        second_order: Number of second-order parameters of the prepared model.
        hints: Code of each hint → how often it occurs.
    """

    seconds: float
    bare: int
    normalized: int
    second_order: int
    hints: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Oracle:
    """Verdicts under the policy ``absorbing``, compared with what scaling the filters really does.

    Args:
        asked: Number of convolutions that were tested.
        unsound: Those called normalized that do not absorb a gain. Each is a mistake.
        cautious: Those called bare that do, with the reason given for "bare".
        untellable: Those for which the numbers say nothing, with the reason.
    """

    asked: int
    unsound: tuple[str, ...] = ()
    cautious: tuple[str, ...] = ()
    untellable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One model. What was not reached is None, and ``failed`` and ``reason`` say why.

    Args:
        zoo: The zoo's name.
        model: The model's name.
        failed: The stage that failed.
        reason: What it raised, or what ended the process.
        inputs: Shapes of the inputs.
        parameters: Number of trainable numbers.
        forward_seconds: One forward pass in training mode and one in evaluation mode, without gradients.
        fx_seconds: Plain ``torch.fx.symbolic_trace``, once.
        fx_error: Why that fails.
        symbolic: ``analyze`` without example inputs.
        recorded: ``analyze`` with them.
        symbolic_error: Why the former fails.
        differences: Where the two differ in convolutions' verdicts, or in parameters' order and role.
        disturbed: What ``analyze`` left changed in the model or in the random number generators.
        convolutions_run: Convolution calls that one run in training mode dispatches, without fixed kernels.
        convolutions_seen: Those that the recorded trace of the same run shows.
        overlooked: Convolutions that ``analyze`` says training never calls, although a gradient reaches them.
        prepared: Change of the outputs after ``prepare``, max |y' - y| / max |y|, in evaluation mode.
        restored: The same after ``restore``.
        silent: Whether all outputs are one and the same number, so that equality says little.
        state: What differs between the ``state_dict`` before and after, in keys, shapes or the sum of a tensor.
        groups: What is wrong with the parameter groups; empty if each trainable parameter is in exactly one.
        oracle: See :class:`Oracle`.
        seconds: Time of everything.
        peak_mb: Largest resident memory of the process, in MB.
    """

    zoo: str
    model: str
    failed: str | None = None
    reason: str | None = None
    inputs: str | None = None
    parameters: int | None = None
    forward_seconds: float | None = None
    fx_seconds: float | None = None
    fx_error: str | None = None
    symbolic: Reading | None = None
    symbolic_error: str | None = None
    recorded: Reading | None = None
    differences: tuple[str, ...] | None = None
    disturbed: tuple[str, ...] | None = None
    convolutions_run: int | None = None
    convolutions_seen: int | None = None
    overlooked: tuple[str, ...] | None = None
    prepared: float | None = None
    restored: float | None = None
    silent: bool | None = None
    state: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None
    oracle: Oracle | None = None
    seconds: float | None = None
    peak_mb: int | None = None

    @property
    def equal(self) -> bool:
        """Whether outputs are the same after ``prepare`` and after ``restore``, to rounding."""
        return all(d is not None and d <= 1e-5 for d in (self.prepared, self.restored))

    @property
    def problems(self) -> tuple[str, ...]:
        """Everything that is wrong; empty for a model that is covered."""
        return tuple(_problems(self))


def _problems(row: Row) -> Iterator[str]:
    if row.failed:
        yield f"{row.failed}: {row.reason}"
    if row.prepared is not None and row.restored is not None and not row.equal:
        yield f"outputs differ by {row.prepared:.1e} when prepared, {row.restored:.1e} when restored"
    if row.convolutions_run != row.convolutions_seen:
        yield f"{row.convolutions_run} convolution calls run, {row.convolutions_seen} seen"
    for label, found in (
        ("symbolic and recorded differ", row.differences),
        ("analyze leaves changed", row.disturbed),
        ("the state dict changes", row.state),
        ("groups", row.groups),
        ("used in training, but called never-called", row.overlooked),
        ("called normalized but no gain is absorbed", row.oracle.unsound if row.oracle else ()),
    ):
        if found:
            yield f"{label}: {_first_few(found)}"


def _first_few(found: tuple[str, ...]) -> str:
    return "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")


@dataclass(frozen=True, slots=True)
class Log:
    """A file of JSON lines, one for each row. A model's last line counts.

    Args:
        file: The file. Its folder must exist.
    """

    file: Path

    def append(self, row: Row) -> None:
        """Write one line."""
        append_line(self.file, json.dumps(asdict(row), ensure_ascii=False))

    def rows(self) -> dict[tuple[str, str], Row]:
        """Read all rows, by zoo and model."""
        text = self.file.read_text(encoding="utf-8") if self.file.exists() else ""
        rows = {}
        for line in text.splitlines():
            # A kill may have left half a line. Its model counts as not done.
            with contextlib.suppress(json.JSONDecodeError):
                row = _row(json.loads(line))
                rows[row.zoo, row.model] = row
        return rows


def _row(line: dict[str, Any]) -> Row:
    for name, kind in (("symbolic", Reading), ("recorded", Reading), ("oracle", Oracle)):
        if line[name] is not None:
            line[name] = kind(**_tuples(line[name]))
    return Row(**_tuples(line))


def _tuples(line: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in line.items()}
