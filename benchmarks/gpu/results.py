"""The measurements as JSON lines, and as a Markdown table of ratios."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.gpu.measure import Measured

__all__ = ["Result", "markdown", "read_results"]


@dataclass(frozen=True, slots=True)
class Result:
    """One figure: a step of one optimizer in one form.

    Args:
        network: The network's name.
        optimizer: The optimizer's name.
        form: ``"eager"``, ``"captured"`` or ``"compiled"``.
        interval: Every how many steps a Hessian is refreshed.
        milliseconds: Wall time of a mean step.
        megabytes: Memory; see :class:`benchmarks.gpu.measure.Measured`.
        kernel_milliseconds: The sum of the times of the kernels of a mean step.
        launches: How many there were.
    """

    network: str
    optimizer: str
    form: str
    interval: int
    milliseconds: float
    megabytes: float | None
    kernel_milliseconds: float | None
    launches: float | None

    @classmethod
    def of(cls, network: str, optimizer: str, form: str, measured: Measured) -> Result:
        """Name what was measured."""
        kernels = measured.kernels
        return cls(
            network,
            optimizer,
            form,
            measured.interval,
            measured.milliseconds,
            measured.megabytes,
            None if kernels is None else kernels.milliseconds,
            None if kernels is None else kernels.launches,
        )

    @property
    def name(self) -> str:
        """Optimizer and form, as the table shows them."""
        every = "" if self.interval == 1 else f", every {self.interval}th step"
        return f"{self.optimizer}{every}, {self.form}"

    def append_to(self, file: Path) -> None:
        """Write one line, so that a run that is cut off leaves what it has found."""
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(asdict(self)) + "\n")


def read_results(file: Path) -> list[Result]:
    """Read what :meth:`Result.append_to` wrote."""
    return [Result(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def markdown(results: Sequence[Result]) -> str:
    """Write a table. Ratios are to SGD's step on the same network, in the same form and eager.

    Args:
        results: Of one run.
    """
    lines = [
        "| network | step of | ms | ÷ SGD's, same form | ÷ SGD's, eager | kernels' ms | ÷ SGD's | launches "
        "| MiB | ÷ SGD's, same form |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        same, eager = (_sgd(results, result.network, form) for form in (result.form, "eager"))
        cells = (
            result.network,
            result.name,
            _number(result.milliseconds),
            _ratio(result, same, "milliseconds"),
            _ratio(result, eager, "milliseconds"),
            _number(result.kernel_milliseconds),
            _ratio(result, same, "kernel_milliseconds"),
            _number(result.launches, 0),
            _number(result.megabytes, 0),
            _ratio(result, same, "megabytes"),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _sgd(results: Sequence[Result], network: str, form: str) -> Result | None:
    asked = (network, "SGD", form)
    return next((r for r in results if (r.network, r.optimizer, r.form) == asked), None)


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _ratio(result: Result, base: Result | None, field: str) -> str:
    value, of = getattr(result, field), getattr(base, field, None)
    return "" if value is None or of is None else f"{value / of:.2f}"
