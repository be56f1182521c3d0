"""Newton-type steps of scale and shift together, by the inverse of each channel's 2×2 matrix.

With M^H the matrix of a channel, and M^G_γ and M^G_β the momenta of its two parameters,

    D = τ_SO h(M^H) (M^G_γ, M^G_β)ᵀ,   h(λ) = 1 / max(r(λ) + damping, floor)

on the eigenvalues λ. Damping, floor and τ_SO, with what the variant makes of them, are those of the diagonal step. r(λ)
is (4) of λ, or of max(λ, 0) where a negative eigenvalue counts as none, or can only be rounding. Where estimates were
rectified before they were averaged, it is λ itself. So h(M^H) is positive definite, and where nothing couples the two
this is the diagonal step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgdph_fx.curvature.pair_blocks import BlockEntries
from sgdph_fx.optim.affine_blocks.averages import coupling_of
from sgdph_fx.optim.affine_blocks.matrix import function_of
from sgdph_fx.optim.group_step import Group, State, average_of, takes_newton_steps
from sgdph_fx.optim.hessian.estimators import averages_raw, is_never_negative
from sgdph_fx.optim.processes.shards import local
from sgdph_fx.optim.schedule import Pair, Schedule
from sgdph_fx.optim.stack import Stack
from sgdph_fx.optim.update import Coefficients, Rates
from sgdph_fx.optim.variants import VARIANTS

__all__ = ["BlockStep", "active_pairs", "members"]


def active_pairs(groups: Sequence[Group], state: State, schedule: Schedule) -> list[Pair]:
    """The pairs of which both have a gradient and take Newton-type steps."""
    return [
        pair
        for pair in schedule.pairs
        if all(
            p.grad is not None and takes_newton_steps(p, groups[number], state, schedule)
            for p, number in zip(pair.both, pair.groups, strict=True)
        )
    ]


def members(pairs: Sequence[Pair]) -> frozenset[int]:
    """The ``id`` of every parameter in the pairs."""
    return frozenset(id(p) for pair in pairs for p in pair.both)


@dataclass(frozen=True, slots=True, eq=False)
class BlockStep:
    """One step of pairs.

    Args:
        groups: All groups.
        state: Of all parameters.
        schedule: The Hessian cycle.
        t: The step, counted from 1; an int, or a tensor of one.
        allowed: One bool on the device: whether to step at all. None for yes.
        rates_of: Finds a group's rates on the device; None if the host's are to be used.
    """

    groups: Sequence[Group]
    state: State
    schedule: Schedule
    t: Any
    allowed: Tensor | None = None
    rates_of: Callable[[int], Rates] | None = None

    def apply(self, pairs: Sequence[Pair]) -> None:
        """Move the pairs; those whose numbers are the same move as one."""
        together: dict[Any, list[Pair]] = {}
        for pair in pairs:
            missed = tuple(self._missed(p, n) for p, n in zip(pair.both, pair.groups, strict=True))
            key = (pair.groups, missed, pair.scale.dtype, pair.scale.device)
            together.setdefault(key, []).append(pair)
        for (numbers, missed, *_), some in together.items():
            coefficients = [self._coefficients(n, m) for n, m in zip(numbers, missed, strict=True)]
            self._apply_alike(some, [self.groups[n] for n in numbers], coefficients)

    def _missed(self, parameter: Tensor, number: int) -> int:
        """How many Hessian cycles the parameter had missed when it joined."""
        group = self.groups[number]
        missed: list[int] | None = group.get("cycles_missed")
        if not missed or not any(missed):
            return 0
        return next(m for p, m in zip(group["params"], missed, strict=True) if p is parameter)

    def _coefficients(self, number: int, missed: int) -> Coefficients:
        group = self.groups[number]
        begun = self.schedule.cycles_begun(self.t, group["cycle_start"], group["cycles_before"], missed)
        rates = None if self.rates_of is None else self.rates_of(number)
        return Coefficients.of(group, VARIANTS[group["variant"]], begun, rates)

    def _apply_alike(
        self, pairs: Sequence[Pair], groups: Sequence[Group], coefficients: Sequence[Coefficients]
    ) -> None:
        columns = list(zip(*(pair.both for pair in pairs), strict=True))
        params, grads, momenta, diagonals = (
            [Stack(list(map(get, column))) for column in columns]
            for get in (local, _gradient, self._momentum, lambda p: average_of(p, groups[0], self.state))
        )
        couplings = Stack([coupling_of(pair, self.state) for pair in pairs])
        block = BlockEntries(diagonals[0].flat, couplings.flat, diagonals[1].flat)
        inverse = function_of(block, lambda values: _inverse(values, groups, coefficients))
        moved = [
            m.flat * c.keep + (-g.flat if c.maximize else g.flat) * c.take
            for m, g, c in zip(momenta, grads, coefficients, strict=True)
        ]
        along = (
            inverse.a * moved[0] + inverse.c * moved[1],
            inverse.c * moved[0] + inverse.d * moved[1],
        )
        for p, momentum, new, d, c in zip(params, momenta, moved, along, coefficients, strict=True):
            momentum.write(new, self.allowed)
            direction = (d * c.scale).to(p.flat.dtype)
            if c.weight_decay != 0:
                direction = direction + p.flat * c.weight_decay
            p.write(p.flat - direction * c.lr, self.allowed)

    def _momentum(self, parameter: Tensor) -> Tensor:
        own = self.state[parameter]
        if own.get("momentum_buffer") is None:
            own["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
        return local(own["momentum_buffer"])


def _inverse(values: Tensor, groups: Sequence[Group], coefficients: Sequence[Coefficients]) -> Tensor:
    """h of the eigenvalues, within the smaller of the two bounds on the factor."""
    group = groups[0]
    variant = VARIANTS[group["variant"]]
    if not averages_raw(group):  # rectified already: less than the start of the average can only be rounding
        values = values.clamp_min(variant.initial_average(group["eps"]))
    else:
        if is_never_negative(group) or group["negative_curvature"] == "zero":
            values = values.clamp_min(0)
        values = variant.rectify(values, group["eps"])
    divisor = values + coefficients[0].damping
    for own, c in zip(groups, coefficients, strict=True):
        if own["max_preconditioner"] is not None:
            floor = c.scale / own["max_preconditioner"]
            is_on_device = isinstance(floor, Tensor)
            divisor = torch.maximum(divisor, floor) if is_on_device else divisor.clamp_min(floor)
    return divisor.reciprocal()


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None, "only pairs with both gradients are active"
    return local(parameter.grad)
