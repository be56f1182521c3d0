"""Operations that only move numbers: views, permutations, slices, concatenations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.fallback import apply, torch_jvp
from sgdph_fx.curvature.forward_over_reverse.rule import (
    LINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    output_shape,
    saved,
    saved_int,
    saved_ints,
)

__all__ = ["RULES", "linear", "linear_vjp_tangent"]


def linear_vjp_tangent(bwd: BackwardNode) -> Tensors:
    """ġ passes as g does."""
    return apply(bwd.node, bwd.dg)


def linear(forward: Callable[[Node, Tensor], Tensor | Sequence[Tensor]]) -> Rule:
    """The rule of an operation that is linear, by what it does to its first input."""

    def jvp(fwd: ForwardNode) -> Tensors:
        tangent, *others = fwd.tangents
        if tangent is None or any(t is not None for t in others):
            return torch_jvp(fwd)
        out = forward(fwd.node, tangent)
        return [out] if isinstance(out, Tensor) else list(out)

    return Rule(jvp, linear_vjp_tangent, LINEAR, owns_output=True)


def _reshape(node: Node, t: Tensor) -> Tensor:
    return t.reshape(output_shape(node))


def _clone(node: Node, t: Tensor) -> Tensor:
    return t


def _expand(node: Node, t: Tensor) -> Tensor:
    return t.expand(output_shape(node))


def _permute(node: Node, t: Tensor) -> Tensor:
    return t.permute(saved_ints(node, "dims"))


def _transpose(node: Node, t: Tensor) -> Tensor:
    return t.transpose(saved_int(node, "dim0"), saved_int(node, "dim1"))


def _select(node: Node, t: Tensor) -> Tensor:
    return t.select(saved_int(node, "dim"), saved_int(node, "index"))


def _slice(node: Node, t: Tensor) -> Tensor:
    start, end, step = saved(node, "start"), saved(node, "end"), saved_int(node, "step")
    call: Any = torch.ops.aten.slice.Tensor
    sliced: Tensor = call(t, saved_int(node, "dim"), start, end, step)
    return sliced


def _split(node: Node, t: Tensor) -> Sequence[Tensor]:
    return torch.split(t, saved_int(node, "split_size"), saved_int(node, "dim"))


def _split_with_sizes(node: Node, t: Tensor) -> Sequence[Tensor]:
    return torch.split(t, saved_ints(node, "split_sizes"), saved_int(node, "dim"))


def _unbind(node: Node, t: Tensor) -> Sequence[Tensor]:
    return t.unbind(saved_int(node, "dim"))


def _repeat(node: Node, t: Tensor) -> Tensor:
    return t.repeat(saved_ints(node, "repeats"))


def _pad(node: Node, t: Tensor) -> Tensor:
    return torch.constant_pad_nd(t, saved_ints(node, "pad"), 0)


def _join(join: Callable[[list[Tensor], int], Tensor]) -> Rule:
    def jvp(fwd: ForwardNode) -> Tensors:
        edges = fwd.node.next_functions
        if any(child is None for child, _ in edges):
            return torch_jvp(fwd)  # autograd knows no shape of an input without gradient
        like = next(t for t in fwd.tangents if t is not None)
        parts = [
            like.new_zeros(output_shape(child, number)) if t is None else t
            for t, (child, number) in zip(fwd.tangents, edges, strict=True)
            if child is not None
        ]
        return [join(parts, saved_int(fwd.node, "dim"))]

    return Rule(jvp, linear_vjp_tangent, LINEAR, owns_output=True)


_RESHAPES = ("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Alias")

RULES: Mapping[str, Rule] = {
    **{f"{name}Backward{number}": linear(_reshape) for name in _RESHAPES for number in range(4)},
    "CatBackward0": _join(torch.cat),
    "CloneBackward0": linear(_clone),
    "ConstantPadNdBackward0": linear(_pad),
    "ExpandBackward0": linear(_expand),
    "PermuteBackward0": linear(_permute),
    "RepeatBackward0": linear(_repeat),
    "SelectBackward0": linear(_select),
    "SliceBackward0": linear(_slice),
    "SplitBackward0": linear(_split),
    "SplitWithSizesBackward0": linear(_split_with_sizes),
    "StackBackward0": _join(torch.stack),
    "TBackward0": linear(lambda node, t: t.t()),
    "ToCopyBackward0": linear(_clone),
    "TransposeBackward0": linear(_transpose),
    "UnbindBackward0": linear(_unbind),
}
"""By node."""
