"""Operations that only move numbers: views, permutations, slices, concatenations, rolls, padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.fallback import torch_jvp
from sgdph_fx.curvature.forward_over_reverse.operations.linear import (
    TRANSPOSED,
    by_call,
    linear,
    linear_vjp_tangent,
    part_by_call,
)
from sgdph_fx.curvature.forward_over_reverse.rule import (
    LINEAR,
    ForwardNode,
    Rule,
    Tensors,
    output_shape,
    saved,
    saved_ints,
)

__all__ = ["RULES"]


def _reshape(node: Node, t: Tensor) -> Tensor:
    return t.reshape(output_shape(node))


def _clone(node: Node, t: Tensor) -> Tensor:
    return t


def _to_copy(node: Node, t: Tensor) -> Tensor:
    return t.to(node._input_metadata[0].device)


def _expand(node: Node, t: Tensor) -> Tensor:
    return t.expand(output_shape(node))


def _split(node: Node, t: Tensor) -> Sequence[Tensor]:
    return torch.split(t, saved(node, "split_size"), saved(node, "dim"))


def _split_with_sizes(node: Node, t: Tensor) -> Sequence[Tensor]:
    return torch.split(t, saved_ints(node, "split_sizes"), saved(node, "dim"))


def _unbind(node: Node, t: Tensor) -> Sequence[Tensor]:
    return t.unbind(saved(node, "dim"))


def _join(join: Callable[[list[Tensor], int], Tensor]) -> Rule:
    def jvp(fwd: ForwardNode) -> Tensors:
        edges = fwd.node.next_functions
        present = [t for t in fwd.tangents if t is not None]
        if not present or any(child is None for child, _ in edges):
            return torch_jvp(fwd)  # autograd knows no shape of an input without gradient
        parts = [
            present[0].new_zeros(output_shape(child, number)) if t is None else t
            for t, (child, number) in zip(fwd.tangents, edges, strict=True)
            if child is not None
        ]
        return [join(parts, saved(fwd.node, "dim"))]

    return Rule(jvp, linear_vjp_tangent, LINEAR, owns_output=True)


_RESHAPES = ("View", "UnsafeView", "ReshapeAlias", "ReshapeCopy", "Squeeze", "Unsqueeze", "Alias")

_VIEWS: Mapping[str, Rule] = {
    "DiagonalBackward0": by_call("diagonal", "offset", "dim1", "dim2"),
    "ExpandBackward0": linear(_expand),
    "PermuteBackward0": by_call("permute", "dims"),
    "SelectBackward0": part_by_call("select.int", "dim", "index"),
    "SliceBackward0": part_by_call("slice.Tensor", "dim", "start", "end", "step"),
    "SplitBackward0": linear(_split),
    "SplitWithSizesBackward0": linear(_split_with_sizes),
    "TBackward0": by_call("t"),
    "TransposeBackward0": by_call("transpose.int", "dim0", "dim1"),
    "UnbindBackward0": linear(_unbind),
    "UnfoldBackward0": by_call("unfold", "dimension", "size", "step"),
}

_IN_PLACE: Mapping[str, Rule] = {
    "TBackward1": by_call("t"),
    "TransposeBackward1": by_call("transpose.int", "dim0", "dim1"),
}

_COPIES: Mapping[str, Rule] = {
    "BlockDiagBackward0": TRANSPOSED,
    "CatBackward0": _join(torch.cat),
    "ChannelShuffleBackward0": by_call("channel_shuffle", "groups"),
    "CloneBackward0": linear(_clone),
    "Col2ImBackward0": TRANSPOSED,
    "ConstantPadNdBackward0": by_call("constant_pad_nd", "pad"),
    "CopyBackwards": TRANSPOSED,
    "DiagEmbedBackward0": by_call("diag_embed", "offset", "dim1", "dim2"),
    "FlipBackward0": by_call("flip", "dims"),
    "Im2ColBackward0": by_call("im2col", "kernel_size", "dilation", "padding", "stride"),
    "NarrowCopyBackward0": by_call("narrow_copy", "dim", "start", "length"),
    "PixelShuffleBackward0": by_call("pixel_shuffle", "upscale_factor"),
    "PixelUnshuffleBackward0": by_call("pixel_unshuffle", "downscale_factor"),
    "RepeatBackward0": by_call("repeat", "repeats"),
    "RollBackward0": by_call("roll", "shifts", "dims"),
    "Rot90Backward0": by_call("rot90", "k", "dims"),
    "StackBackward0": _join(torch.stack),
    "ToCopyBackward0": linear(_to_copy),
    "UnsafeSplitBackward0": linear(_split),
    "UnsafeSplitWithSizesBackward0": linear(_split_with_sizes),
    **{f"ReflectionPad{n}DBackward0": by_call(f"reflection_pad{n}d", "padding") for n in (1, 2, 3)},
    **{f"ReplicationPad{n}DBackward0": by_call(f"replication_pad{n}d", "padding") for n in (1, 2, 3)},
}

RULES: Mapping[str, Rule] = {
    **{
        f"{name}Backward{number}{copy}": linear(_reshape)
        for name in _RESHAPES
        for number in range(6)
        for copy in ("", "_copy")
    },
    **_VIEWS,
    **{f"{name}_copy": rule for name, rule in _VIEWS.items()},
    **dict.fromkeys(("AsStridedBackward0", "AsStridedBackward0_copy", "AsStridedBackward1"), TRANSPOSED),
    **_IN_PLACE,
    **_COPIES,
}
"""Node ↦ rule."""
