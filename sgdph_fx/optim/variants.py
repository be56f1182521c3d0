"""What the paper prints and what the authors' code does, each as one row of a table.

=============================== ============================= ===========================================
what                            ``"paper"``                   ``"authors"`` (default)
=============================== ============================= ===========================================
rectified Hessian (4)           √(H² + ε)                     abs(H)
average M^H (5)                 (1−α)·old + α·new             α·old + (1−α)·new
M^H before its first refresh    √ε, a zero Hessian rectified  0
                                (the paper does not say)
inverse                         1 / M^H                       1 / (M^H + ε)
answer to the start at zero     none                          D times 1 − αⁿ, n = ⌊t / M⌋ + 1, t counted
                                                              from 1, the same n for all
momentum M^G (6)                (1−β)·old + β·g, from 0       β·old + g, started at the first g
last second-order parameter     as all others                 first-order, yet has its turn in the cycle
decay, second-order             added to D                    added to D
decay, first-order              added to D                    inside M^G, as torch's SGD does
=============================== ============================= ===========================================

The symbols: α the Hessian's momentum, β the gradient's, ε the rectification, M^H the average of rectified
Hessians (5), M^G the momentum (6), D = τ_SO M^G / M^H the direction, M the number of second-order parameters.

Where "authors" differs from the authors' code: α and β are two numbers; the decay of first-order parameters is added
to the gradient before M^G, not to M^G after (the same but for rounding; torch's order, so that without a
second-order group the steps are ``torch.optim.SGD``'s to the bit); the last parameter's Hessian, which the code
computes and never uses, is not computed; a parameter is second-order by its group, not by its shape; one without a
gradient keeps its place in the cycle; with ``hessian_interval=k`` a cycle takes k M steps, and n = ⌊t / (k M)⌋ + 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

__all__ = ["VARIANTS", "Variant", "VariantName"]

VariantName: TypeAlias = Literal["authors", "paper"]


@dataclass(frozen=True, slots=True)
class Variant:
    """The places in which one reading of the algorithm differs from another.

    Args:
        gradient_weights: β ↦ weights in M^G of the old M^G, of the new gradient, and of the first gradient.
        hessian_weights: α ↦ weights in M^H of the old M^H and of the new rectified Hessian.
        rectify: (Hv, ε) ↦ the rectified Hessian H̃.
        initial_average: ε ↦ M^H of a parameter before its first refresh.
        damping: ε ↦ what is added to M^H before it is inverted.
        correction: (α, n) ↦ factor on D that answers for the start of M^H; n counts the Hessian cycles begun.
        decay_first_order_gradient: Whether first-order parameters are torch's SGD, decay inside the momentum
            buffer; else the decay is added to the direction, as (7) has it.
        last_is_first_order: Whether the last second-order parameter in registration order is treated as first-order.
        open_interval_at: The end of [0, 1] that α and β must stay away from, where nothing would move.
    """

    gradient_weights: Callable[[float], tuple[float, float, float]]
    hessian_weights: Callable[[float], tuple[float, float]]
    rectify: Callable[[Tensor, float], Tensor]
    initial_average: Callable[[float], float]
    damping: Callable[[float], float]
    correction: Callable[[float, Any], Any]
    decay_first_order_gradient: bool
    last_is_first_order: bool
    open_interval_at: Literal[0, 1]


def _absolute(hessian: Tensor, eps: float) -> Tensor:
    return hessian.abs()


def _rectified(hessian: Tensor, eps: float) -> Tensor:
    return torch.sqrt(hessian * hessian + eps)


VARIANTS: Mapping[str, Variant] = {
    "authors": Variant(
        gradient_weights=lambda beta: (beta, 1.0, 1.0),
        hessian_weights=lambda alpha: (alpha, 1 - alpha),
        rectify=_absolute,
        initial_average=lambda eps: 0.0,
        damping=lambda eps: eps,
        correction=lambda alpha, n: 1 - alpha**n,
        decay_first_order_gradient=True,
        last_is_first_order=True,
        open_interval_at=1,
    ),
    "paper": Variant(
        gradient_weights=lambda beta: (1 - beta, beta, beta),
        hessian_weights=lambda alpha: (1 - alpha, alpha),
        rectify=_rectified,
        initial_average=math.sqrt,
        damping=lambda eps: 0.0,
        correction=lambda alpha, n: 1.0,
        decay_first_order_gradient=False,
        last_is_first_order=False,
        open_interval_at=0,
    ),
}
"""Every variant by its name."""
