"""Operations that read or write numbers at given indices: linear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.fallback import torch_jvp
from sgdph_fx.curvature.forward_over_reverse.operations.linear import (
    TRANSPOSED,
    by_call,
    linear,
    linear_vjp_tangent,
)
from sgdph_fx.curvature.forward_over_reverse.rule import (
    LINEAR,
    ForwardNode,
    GiveUp,
    Rule,
    Tensors,
    output_shape,
    saved,
)

__all__ = ["RULES"]


def _at_indices(node: Node, t: Tensor) -> Tensor:
    """Take the entries that the operation chose along a dimension: the largest, the median, a sorted order."""
    places, dim = saved(node, "indices"), saved(node, "dim")
    if t.dim() == 0:
        return t
    if places.dim() == t.dim():
        return t.gather(dim, places)
    return t.gather(dim, places.unsqueeze(dim)).squeeze(dim)


def _jvp_embedding(fwd: ForwardNode) -> Tensors:
    node = fwd.node
    if saved(node, "sparse"):
        raise GiveUp("an embedding with sparse gradients")
    # Autograd drops the padding row's gradient, or scales by how often a row is used: not the transpose of a look-up.
    if fwd.tangents[0] is None or saved(node, "padding_idx") >= 0 or saved(node, "scale_grad_by_freq"):
        return torch_jvp(fwd)
    return [torch.nn.functional.embedding(saved(node, "indices"), fwd.tangents[0])]


def _jvp_bags(fwd: ForwardNode) -> Tensors:
    node, (t, *weights) = fwd.node, fwd.tangents
    if any(weight is not None for weight in weights):
        raise GiveUp("an embedding bag whose weights for each index depend on the parameter")
    if any(saved(node, name) for name in ("sparse", "scale_grad_by_freq")) or saved(node, "padding_idx") >= 0:
        raise GiveUp("an embedding bag with sparse or scaled gradients, or with padding")
    return [None if t is None else _bags(node, t)]


def _bags(node: Node, t: Tensor) -> Tensor:
    if saved(node, "mode") == _LARGEST:
        empty = saved(node, "result2").unsqueeze(1) == 0
        return t.gather(0, saved(node, "result3")).masked_fill_(empty, 0)
    offsets, weights = saved(node, "offsets"), saved(node, "per_sample_weights")
    ends_given = offsets.numel() > output_shape(node)[0]
    call: Any = torch.ops.aten._embedding_bag.default
    how = False, saved(node, "mode"), False, weights, ends_given
    out: Tensor = call(t, saved(node, "indices"), offsets, *how)[0]
    return out


_LARGEST = 2

_PICKED = (
    *("MaxBackward0", "MinBackward0", "MedianBackward1", "NanmedianBackward1", "KthvalueBackward0"),
    *("ModeBackward0", "CummaxBackward0", "CumminBackward0", "TopkBackward0", "SortBackward0"),
    "SortBackward1",
)
_EXTREMES = (
    *("MaxBackward1", "MinBackward1", "MedianBackward0", "NanmedianBackward0", "AmaxBackward0"),
    *("AminBackward0", "AminmaxBackward0"),
)
_TAKEN = ("MaskedSelectBackward0", "TakeBackward0", "UnsafeMaskedIndexBackward0")
_PUT = (
    *("IndexAddBackward0", "IndexCopyBackward0", "IndexFillBackward1", "IndexPutBackward0"),
    *("IndexPutImplBackward0", "UnsafeIndexPutBackward0", "MaskedScatterBackward0", "PutBackward0"),
    *("ScatterBackward0", "ScatterBackward1", "ScatterAddBackward0", "SelectScatterBackward0"),
    *("SliceScatterBackward0", "DiagonalScatterBackward0", "AsStridedScatterBackward0"),
    *("UnsafeMaskedIndexPutAccumulateBackward0", "MaxUnpool2DBackward0", "MaxUnpool3DBackward0"),
)

RULES: Mapping[str, Rule] = {
    **dict.fromkeys((*_EXTREMES, *_TAKEN, *_PUT), TRANSPOSED),
    **dict.fromkeys(_PICKED, linear(_at_indices)),
    "EmbeddingBagBackward0": Rule(_jvp_bags, linear_vjp_tangent, LINEAR, owns_output=True),
    "EmbeddingBackward0": Rule(_jvp_embedding, linear_vjp_tangent, LINEAR, owns_output=True),
    "GatherBackward0": by_call("gather", "dim", "index"),
    "IndexBackward0": by_call("index.Tensor", "indices"),
    "IndexSelectBackward0": by_call("index_select", "dim", "index"),
    "UnsafeIndexBackward0": by_call("index.Tensor", "indices"),
}
"""Node ↦ rule."""
