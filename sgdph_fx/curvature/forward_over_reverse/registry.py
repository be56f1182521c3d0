"""Every operation that has a rule of its own, by the name of its node in autograd's graph."""

from __future__ import annotations

from collections.abc import Mapping

from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse import (
    activation,
    arithmetic,
    attention,
    batch_norm,
    convolution,
    group_norm,
    layer_norm,
    matmul,
    pooling,
    python_functions,
    reduction,
    shape,
    softmax,
)
from sgdph_fx.curvature.forward_over_reverse.fallback import FALLBACK
from sgdph_fx.curvature.forward_over_reverse.rule import Rule

__all__ = ["RULES", "rule_of"]

RULES: Mapping[str, Rule] = {
    **activation.RULES,
    **arithmetic.RULES,
    **attention.RULES,
    **batch_norm.RULES,
    **convolution.RULES,
    **group_norm.RULES,
    **layer_norm.RULES,
    **matmul.RULES,
    **pooling.RULES,
    **reduction.RULES,
    **shape.RULES,
    **softmax.RULES,
}
"""Names as of torch's C++ nodes, overload number included."""


def rule_of(node: Node) -> Rule:
    """The rule for an operation; :data:`FALLBACK`, torch's own second derivative, where it has none."""
    if callable(node):
        return RULES.get(type(node).__name__, FALLBACK)
    # A Python function may bear the name of any operation.
    return python_functions.RULES.get(python_functions.full_name(node), FALLBACK)
