"""What a parameter is found to be: its order, its role and the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from sgdph_fx.plan.entries import Role

__all__ = ["FoundRole", "channel_wise", "norm_role", "weight_norm_role"]


@dataclass(frozen=True, slots=True)
class FoundRole:
    """Order, role and reason of one parameter, by its owner or by one of its uses."""

    order: Literal[1, 2]
    role: Role
    reason: str


def norm_role(role: Literal["norm.weight", "norm.bias"], parameter: nn.Parameter, kind: str) -> FoundRole:
    """The scale or the shift of a norm, which is channel-wise unless it is a map over several dimensions."""
    what = "scale" if role == "norm.weight" else "shift"
    if not channel_wise(parameter.shape):
        shape = "×".join(map(str, parameter.shape))
        return FoundRole(
            1, role, f"first-order: {what} of {kind} is {shape}, an element-wise map, not channel-wise"
        )
    return FoundRole(
        2, role, f"second-order: {what} of {kind}, one number for each of {parameter.numel()} channels"
    )


def weight_norm_role(is_gain: bool) -> FoundRole:
    """The gain or the direction of a weight normalization."""
    if is_gain:
        return FoundRole(2, "gain", "second-order: gain of a weight normalization, whatever its shape")
    return FoundRole(1, "direction", "first-order: direction of a weight normalization")


def channel_wise(shape: Sequence[int]) -> bool:
    """Whether at most one dimension is longer than 1, so that there is one number for each channel."""
    return sum(size > 1 for size in shape) <= 1
