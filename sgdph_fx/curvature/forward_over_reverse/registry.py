"""Every operation that has a rule of its own, by the name of its node in autograd's graph."""

from __future__ import annotations

from collections.abc import Mapping

from torch.autograd.graph import Node

from sgdph_fx.curvature.custom_functions import full_name
from sgdph_fx.curvature.forward_over_reverse import python_functions
from sgdph_fx.curvature.forward_over_reverse.fallback import FALLBACK
from sgdph_fx.curvature.forward_over_reverse.operations import (
    arithmetic,
    attention,
    batch_norm,
    combination,
    convolution,
    deformable,
    gating,
    gelu,
    group_norm,
    indexing,
    layer_norm,
    library_rnn,
    losses,
    matmul,
    pooling,
    recurrent,
    reduction,
    region_pooling,
    resampling,
    scaling,
    shape,
    smooth,
    softmax,
    statistics,
    torch_weight_norm,
    vector_norm,
)
from sgdph_fx.curvature.forward_over_reverse.rule import Rule

__all__ = ["RULES", "rule_of"]

RULES: Mapping[str, Rule] = {
    **arithmetic.RULES,
    **attention.RULES,
    **batch_norm.RULES,
    **combination.RULES,
    **convolution.RULES,
    **gating.RULES,
    **gelu.RULES,
    **group_norm.RULES,
    **indexing.RULES,
    **layer_norm.RULES,
    **library_rnn.RULES,
    **losses.RULES,
    **matmul.RULES,
    **pooling.RULES,
    **recurrent.RULES,
    **reduction.RULES,
    **resampling.RULES,
    **scaling.RULES,
    **shape.RULES,
    **smooth.RULES,
    **softmax.RULES,
    **statistics.RULES,
    **torch_weight_norm.RULES,
    **vector_norm.RULES,
}
"""Names as of torch's C++ nodes, overload number included."""

_PYTHON_RULES: Mapping[str, Rule] = {
    **python_functions.RULES,
    **deformable.RULES,
    **region_pooling.RULES,
}


def rule_of(node: Node) -> Rule:
    """Look up the rule for an operation; :data:`FALLBACK`, torch's own second derivative, where it has none."""
    if not callable(node):
        # A Python function may bear the name of any operation.
        return _PYTHON_RULES.get(full_name(node), FALLBACK)
    return FALLBACK if _complex(node) else RULES.get(type(node).__name__, FALLBACK)


def _complex(node: Node) -> bool:
    """Whether an input or an output is complex: the rules are written for real numbers."""
    for declared in node._input_metadata:
        if declared.dtype.is_complex:
            return True
    for child, number in node.next_functions:
        if child is not None and child._input_metadata[number].dtype.is_complex:
            return True
    return False
