"""Which groups share all numbers of a step, so that the same calls move their parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

__all__ = ["ALL", "PLAIN", "sharing"]

PLAIN = ("lr", "momentum", "weight_decay", "maximize", "foreach")
"""What decides how first-order parameters move."""

ALL = (
    *PLAIN,
    *("order", "second_order_lr", "hessian_momentum", "eps", "max_preconditioner", "probe"),
    *("negative_curvature", "without_curvature", "cycle_start", "cycles_before"),
)
"""What decides how the parameters of a group move."""


def sharing(groups: Sequence[Mapping[str, Any]], keys: Sequence[str] = ALL) -> tuple[int, ...]:
    """For each group the place of the first one with the same numbers.

    A rate that is a tensor on a device is the same only as itself, as the host does not read it.

    Args:
        groups: All groups of one optimizer.
        keys: The numbers that are compared.
    """
    first: dict[tuple[object, ...], int] = {}
    return tuple(
        first.setdefault(tuple(_comparable(group[key]) for key in keys), place)
        for place, group in enumerate(groups)
    )


def _comparable(value: object) -> object:
    if not isinstance(value, Tensor):
        return value
    return float(value) if value.device.type == "cpu" else id(value)
