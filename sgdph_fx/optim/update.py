"""The arithmetic of one step, on lists of tensors: a plain loop, and multi-tensor calls with the same bits.

First-order parameters of the authors' variant do not pass here: torch's own ``sgd`` moves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.optim.optimizer import _default_to_fused_or_foreach
from torch.utils._foreach_utils import _group_tensors_by_device_and_dtype

from sgdph_fx.optim.nonfinite import is_finite
from sgdph_fx.optim.variants import Variant

__all__ = ["Coefficients", "Number", "Rates", "descend", "refresh"]

Number: TypeAlias = Any
"""A number that the host knows, or a tensor of one number."""

Rates: TypeAlias = "tuple[Tensor, Tensor]"
"""τ and τ_SO on the device."""


@dataclass(frozen=True, slots=True)
class Coefficients:
    """The numbers of one step of one group.

    Args:
        keep: Weight of the old momentum in the new.
        take: Weight of the gradient in the new momentum.
        first: Weight of the gradient in the momentum that it starts.
        scale: τ_SO times the variant's correction.
        damping: What is added to the average Hessian before it is inverted.
        cap: The largest factor scale / (average + damping); None for no bound.
        weight_decay: η.
        lr: τ.
        maximize: Whether the gradient's sign is turned.
    """

    keep: float
    take: float
    first: float
    scale: Number
    damping: float
    cap: float | None
    weight_decay: float
    lr: Number
    maximize: bool

    @classmethod
    def of(
        cls, group: dict[str, Any], variant: Variant, cycles_begun: Any, rates: Rates | None = None
    ) -> Coefficients:
        """Those of one group at a step in the given Hessian cycle.

        Args:
            group: The group.
            variant: Its reading of the algorithm.
            cycles_begun: n, a number or a tensor of one number.
            rates: τ and τ_SO, where they are tensors on the device; else they are the group's.
        """
        keep, take, first = variant.gradient_weights(group["momentum"])
        lr, second_order_lr = rates or (float(group["lr"]), group["second_order_lr"])
        scale = second_order_lr * variant.correction(group["hessian_momentum"], cycles_begun)
        return cls(
            keep=keep,
            take=take,
            first=first,
            scale=scale,
            damping=variant.damping(group["eps"]),
            cap=group["max_preconditioner"],
            weight_decay=group["weight_decay"],
            lr=lr,
            maximize=group["maximize"],
        )


def refresh(
    average: Tensor, hessian: Tensor, *, alpha: float, variant: Variant, allowed: Tensor | None = None
) -> Tensor:
    """Take a new Hessian diagonal, rectified by (4) unless that is left for later, into M^H in place: (5).

    Returns:
        One bool on the device: whether the diagonal was finite. M^H is as it was if not.
    """
    old, new = variant.hessian_weights(alpha)
    finite = is_finite(hessian)
    taken = finite if allowed is None else finite & allowed
    average.copy_(torch.where(taken, average.mul(old).add_(hessian, alpha=new), average))
    return finite


def descend(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    momenta: Sequence[Tensor | None],
    averages: Sequence[Tensor] | None,
    coefficients: Coefficients,
    *,
    foreach: bool | None,
) -> list[Tensor]:
    """Move ``params`` in place by (6), D, (7) and line 13 of Algorithm 1.

    Args:
        params: Tensors of any shapes, dtypes and devices.
        grads: Their gradients, without graph; left as they are.
        momenta: Their M^G, changed in place; None where there is none yet.
        averages: Their M^H, for the Newton-type direction; None for the plain one, D = M^G.
        coefficients: The numbers.
        foreach: Multi-tensor calls, or the plain loop; None lets torch choose as it does for its own.

    Returns:
        Every M^G, in the order of ``params``.
    """
    if foreach is None:
        _, foreach = _default_to_fused_or_foreach(list(params), differentiable=False, use_fused=False)
    if not foreach:
        return [
            _descend_one(*tensors, coefficients)
            for tensors in zip(params, grads, momenta, averages or repeat(None, len(params)), strict=True)
        ]
    fresh = [m is None for m in momenta]
    started = [torch.empty_like(p) if m is None else m for m, p in zip(momenta, params, strict=True)]
    columns = [list(params), list(grads), started, *([] if averages is None else [list(averages)])]
    batches = _group_tensors_by_device_and_dtype(cast(Any, columns), with_indices=True)
    for tensors, places in batches.values():
        _descend_many(cast(list[list[Tensor]], tensors), [fresh[i] for i in places], coefficients)
    return started


def _descend_one(
    parameter: Tensor, gradient: Tensor, momentum: Tensor | None, average: Tensor | None, c: Coefficients
) -> Tensor:
    if c.maximize:
        gradient = -gradient
    if momentum is None:
        momentum = gradient * c.first
    else:
        momentum.mul_(c.keep).add_(gradient, alpha=c.take)
    if average is None:
        direction = momentum if c.weight_decay == 0 else momentum.add(parameter, alpha=c.weight_decay)
        parameter.add_(direction, alpha=-c.lr)
        return momentum
    divisor = average.add(c.damping)
    if c.cap is not None:
        divisor.clamp_min_(c.scale / c.cap)
    if c.weight_decay == 0:
        parameter.addcdiv_(momentum, divisor, value=-c.lr * c.scale)
        return momentum
    direction = parameter.mul(c.weight_decay).addcdiv_(momentum, divisor, value=c.scale)
    parameter.add_(direction, alpha=-c.lr)
    return momentum


def _descend_many(tensors: list[list[Tensor]], fresh: list[bool], c: Coefficients) -> None:
    params, grads, momenta, *averages = tensors
    if c.maximize:
        grads = list(torch._foreach_neg(grads))
    _accumulate_many(momenta, grads, fresh, c)
    if not averages:
        direction = momenta
        if c.weight_decay != 0:
            direction = list(torch._foreach_add(momenta, params, alpha=c.weight_decay))
        torch._foreach_add_(params, direction, alpha=-c.lr)
        return
    divisor = torch._foreach_add(averages[0], c.damping)
    if c.cap is not None:
        torch._foreach_clamp_min_(divisor, c.scale / c.cap)
    if c.weight_decay == 0:
        torch._foreach_addcdiv_(params, momenta, divisor, value=-c.lr * c.scale)
        return
    direction = list(torch._foreach_mul(params, c.weight_decay))
    torch._foreach_addcdiv_(direction, momenta, divisor, value=c.scale)
    torch._foreach_add_(params, direction, alpha=-c.lr)


def _accumulate_many(momenta: list[Tensor], grads: list[Tensor], fresh: list[bool], c: Coefficients) -> None:
    for start in (False, True):
        chosen = [(m, g) for m, g, new in zip(momenta, grads, fresh, strict=True) if new is start]
        if not chosen:
            continue
        old, gradient = map(list, zip(*chosen, strict=True))
        if start:
            torch._foreach_copy_(old, torch._foreach_mul(gradient, c.first))
        else:
            torch._foreach_mul_(old, c.keep)
            torch._foreach_add_(old, gradient, alpha=c.take)
