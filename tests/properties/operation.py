"""What an operation of a random network is, by definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Form", "Kind", "Operation", "Statistics"]

# conv: a convolution. same: each number stays its own and commutes with a gain. shape: as "same", and no number
# changes. pool: combines neighbours along the last dimensions. mean: combines all along some dimensions.
# norm: see `statistics`. mix: anything else.
Kind = Literal["conv", "same", "shape", "pool", "mean", "norm", "mix"]
# How dimensions stand, after the batch's: channels, space; space, channels; channels, length; length, channels;
# features.
Form = Literal["map", "last", "seq", "tokens", "flat"]
# What the numbers of one statistic have in common: dimension 1, half of dimension 1, or all but so many last ones.
Statistics = Literal["dimension 1", "halves", "last", "all last", "frozen"]


@dataclass(frozen=True)
class Operation:
    """One row of the table.

    Args:
        kind: What it does to channels.
        run: Called with the network, the step's module or parameter, and its operands.
        make: Builds that module or parameter, from the network and the step.
        forms: Forms of the operands that it takes.
        to: Form of its result, if another.
        statistics: Of a norm, over what they are taken.
        dims: The dimension that a mean goes over, or the number of last ones that a pooling does; 0 for all of space.
        results: How many tensors it returns.
        operands: How many it takes.
        hidden: Whether only shapes tell where it puts the channels, or whether halves are two of them.
        only: The one number of spatial dimensions for which it exists, if not all.
    """

    kind: Kind
    run: Callable[..., Any]
    make: Callable[[Any, Any], Any] | None = None
    forms: tuple[Form, ...] = ("map",)
    to: Form | None = None
    statistics: Statistics | None = None
    dims: int = 0
    results: int = 1
    operands: int = 1
    hidden: bool = False
    only: int | None = None
