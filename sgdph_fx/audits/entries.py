"""What an audit measures: one row for each parameter, and the findings of all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from typing import Literal

__all__ = ["AuditRow", "Empty", "Findings"]

Empty = Literal["flat", "linear", "shift", "unused"]
"""Why the probe ``ones`` finds nothing.

``flat``: the loss does not change with the parameter; gradient and Hessian are zero to rounding. ``linear``: the
Hessian is zero, the gradient is not. ``shift``: the row sums are zero to rounding, the diagonal is not,
as the loss does not bend when all numbers move alike. ``unused``: the loss does not depend on it at all.
"""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """What the Hessian block of one second-order parameter is, on the batch that was audited.

    Errors and shares are relative (1.0 is 100%), and None where the diagonal is zero to rounding.

    Args:
        name: The parameter's name in the model.
        role: What it is, as in its parameter group.
        shape: Its shape.
        channels: Which of its numbers were measured; all of them, unless a sample was asked for.
        diagonal: The true diagonal of the block at these channels.
        ones: The estimate of the probe ``ones`` there (3): the row sums.
        rademacher: The average there of the draws of the probe ``rademacher``.
        off_diagonal: Frobenius norm of the off-diagonal part over that of the diagonal. Also the root mean
            square of the error of one Rademacher draw, in expectation.
        one_draw_error: The root mean square of the error of one Rademacher draw, over the draws.
        empty: Why ``ones`` finds nothing here, or None.
        flat: Channels in which the loss does not change, to rounding.
        reason: A sentence on ``empty`` and ``flat``.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    channels: tuple[int, ...]
    diagonal: tuple[float, ...]
    ones: tuple[float, ...]
    rademacher: tuple[float, ...]
    off_diagonal: float | None
    one_draw_error: float | None
    empty: Empty | None
    flat: tuple[int, ...]
    reason: str

    @property
    def ones_error(self) -> float | None:
        """‖ones − diagonal‖ / ‖diagonal‖, 2-norm."""
        return self._error(self.ones)

    @property
    def rademacher_error(self) -> float | None:
        """The same of the average of all draws."""
        return self._error(self.rademacher)

    def _error(self, estimate: Sequence[float]) -> float | None:
        if self.off_diagonal is None:
            return None
        wrong = hypot(*(e - d for e, d in zip(estimate, self.diagonal, strict=True)))
        return wrong / hypot(*self.diagonal)


@dataclass(frozen=True, slots=True)
class Findings:
    """What one audit found, without any format.

    Args:
        model: The model's class.
        loss: Name of the loss function.
        value: The loss on the batch.
        training: Whether the model was in training mode.
        dtype: The dtype that was computed in.
        draws: Number of Rademacher probes for each parameter.
        seed: What decided the draws and the samples.
        parameters: How many second-order parameters the model has.
        rows: Those that were audited, in the model's order.
    """

    model: str
    loss: str
    value: float
    training: bool
    dtype: str
    draws: int
    seed: int
    parameters: int
    rows: tuple[AuditRow, ...]

    @property
    def empty(self) -> tuple[AuditRow, ...]:
        """The parameters on which the probe ``ones`` finds nothing."""
        return tuple(row for row in self.rows if row.empty is not None)
