"""Which operations of a loss have a rule of their own for the second derivative, and which fall back to torch's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from sgdph_fx.curvature.autograd_graph import nodes
from sgdph_fx.curvature.forward_over_reverse.fallback import FALLBACK
from sgdph_fx.curvature.forward_over_reverse.path import path
from sgdph_fx.curvature.forward_over_reverse.registry import rule_of

__all__ = ["Coverage", "coverage"]


@dataclass(frozen=True, slots=True)
class Coverage:
    """The operations that a loss is made by, as autograd names them, with how often each occurs.

    Args:
        own_rule: Those with a rule of their own.
        fallbacks: Those that torch's double backward differentiates, each by itself: right, and slower.
    """

    own_rule: Mapping[str, int]
    fallbacks: Mapping[str, int]


def coverage(loss: Tensor, parameter: Tensor | None = None) -> Coverage:
    """Say what a Hessian-vector product of ``loss`` would fall back for; nothing is computed or changed.

    Args:
        loss: Any tensor with its graph.
        parameter: Count only what lies between this leaf and the loss, which is all that its product passes.
    """
    own_rule: Counter[str] = Counter()
    fallbacks: Counter[str] = Counter()
    for node in nodes(loss) if parameter is None else path(loss, parameter):
        name = type(node).__name__
        if name != "AccumulateGrad":
            (fallbacks if rule_of(node) is FALLBACK else own_rule)[name] += 1
    return Coverage(dict(own_rule), dict(fallbacks))
