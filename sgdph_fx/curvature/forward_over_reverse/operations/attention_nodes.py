"""What the nodes of torch's fused attentions save, each under names of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.rule import saved

__all__ = ["MASKS", "mask_of", "scale_of"]

MASKS: Mapping[str, str | None] = {
    "ScaledDotProductCudnnAttentionBackward0": "attn_bias",
    "ScaledDotProductEfficientAttentionBackward0": "attn_bias",
    "ScaledDotProductFlashAttentionBackward0": None,
    "ScaledDotProductFlashAttentionForCpuBackward0": "attn_mask",
}
"""torch's kernels: node ↦ the name under which it saves the mask added to the scores, None if it takes no mask."""


def mask_of(node: Node) -> Tensor | None:
    """Return what is added to the scores."""
    name = MASKS[type(node).__name__]
    mask: Tensor | None = None if name is None else saved(node, name)
    return mask


def scale_of(node: Node) -> float:
    """Return what Q Kᵀ is multiplied by."""
    given = saved(node, "scale")
    return float(1 / math.sqrt(saved(node, "query").shape[-1]) if given is None else given)
