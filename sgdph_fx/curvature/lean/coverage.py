"""Which operations of a loss have a lean second derivative, and which fall back to torch's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from sgdph_fx.curvature.graph import nodes
from sgdph_fx.curvature.lean.fallback import FALLBACK
from sgdph_fx.curvature.lean.path import path
from sgdph_fx.curvature.lean.rules import rule_of

__all__ = ["Coverage", "lean_coverage"]


@dataclass(frozen=True, slots=True)
class Coverage:
    """The operations that a loss is made by, as autograd names them, with how often each occurs.

    Args:
        lean: Those with a rule of their own.
        fallbacks: Those that torch's double backward differentiates, each by itself: right, and slower.
    """

    lean: Mapping[str, int]
    fallbacks: Mapping[str, int]


def lean_coverage(loss: Tensor, parameter: Tensor | None = None) -> Coverage:
    """Say what a Hessian-vector product of ``loss`` would fall back for; nothing is computed or changed.

    Args:
        loss: Any tensor with its graph.
        parameter: Count only what lies between this leaf and the loss, which is all that its product passes.
    """
    lean: Counter[str] = Counter()
    fallbacks: Counter[str] = Counter()
    for node in nodes(loss) if parameter is None else path(loss, parameter):
        name = type(node).__name__
        if name != "AccumulateGrad":
            (fallbacks if rule_of(node) is FALLBACK else lean)[name] += 1
    return Coverage(dict(lean), dict(fallbacks))
