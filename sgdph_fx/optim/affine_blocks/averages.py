"""M^H of scale and shift together: the average of each channel's 2×2 matrix.

Its diagonal is in the two parameters' ``hessian_average``, the rest in the shift's ``hessian_coupling``. An estimate
enters as it is, or rectified by (4) of the matrix: \\|λ\\|, or √(λ² + ε) in the paper's variant, in place of each
eigenvalue λ. So the average is never negative where its estimates are not, or are rectified first. What an estimate
does not have is zero: a parameter that the loss does not use has no curvature, and couples with nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from sgdph_fx.curvature.pair_blocks import BlockEntries
from sgdph_fx.optim.affine_blocks.matrix import function_of
from sgdph_fx.optim.group_step import Group, State, average_of, local_estimate, takes_newton_steps
from sgdph_fx.optim.hessian.estimate import HessianEstimate
from sgdph_fx.optim.hessian.estimators import averages_raw
from sgdph_fx.optim.nonfinite import is_finite
from sgdph_fx.optim.processes.shards import local, piece
from sgdph_fx.optim.schedule import Pair, Schedule
from sgdph_fx.optim.update import refresh
from sgdph_fx.optim.variants import VARIANTS

__all__ = ["COUPLING", "coupling_of", "init_couplings", "refresh_blocks"]

COUPLING = "hessian_coupling"
"""Key in the state of a shift."""

GroupOf: TypeAlias = Callable[[Tensor], Group]


def coupling_of(pair: Pair, state: State) -> Tensor:
    """What couples the two in M^H, this rank's part of it; made if it is not there yet."""
    own = state[pair.shift]
    if COUPLING not in own:
        own[COUPLING] = torch.zeros_like(pair.shift, requires_grad=False)
    return local(own[COUPLING])


def init_couplings(schedule: Schedule, groups: Sequence[Group], state: State) -> None:
    """Make what steps of the pairs would make, where it is not there yet."""
    for pair in schedule.pairs:
        rows = zip(pair.both, pair.groups, strict=True)
        if all(takes_newton_steps(p, groups[number], state, schedule) for p, number in rows):
            coupling_of(pair, state)


def refresh_blocks(
    found: HessianEstimate, group_of: GroupOf, state: State, allowed: Tensor | None
) -> Tensor | None:
    """Refresh the averages of all pairs of an estimate; a matrix that is not finite is left out whole.

    Args:
        found: What the step's losses brought.
        group_of: Finds a parameter's group.
        state: Of all parameters.
        allowed: One bool on the device: whether to refresh at all. None for yes.

    Returns:
        Whether all matrices were finite, one bool on the device; None where there is none.
    """
    diagonals = {id(p): diagonal for p, diagonal in found.diagonals()} if found.pairs else {}
    finite: Tensor | None = None
    for pair, coupling in found.couplings():
        given = [local_estimate(p, diagonals[id(p)], by_gradient=found.by_gradient) for p in pair.both]
        if all(h is None for h in given):
            continue
        one = _refresh(pair, given, coupling, group_of, state, allowed)
        finite = one if finite is None else finite & one.to(finite.device)
    return finite


def _refresh(
    pair: Pair,
    given: Sequence[Tensor | None],
    coupling: Tensor | None,
    group_of: GroupOf,
    state: State,
    allowed: Tensor | None,
) -> Tensor:
    groups = [group_of(p) for p in pair.both]
    averages = [average_of(p, group, state) for p, group in zip(pair.both, groups, strict=True)]
    a, d = (torch.zeros_like(m) if h is None else h for h, m in zip(given, averages, strict=True))
    c = torch.zeros_like(a) if coupling is None else piece(coupling, pair.shift)
    variant, eps, alpha = VARIANTS[groups[0]["variant"]], groups[0]["eps"], groups[0]["hessian_momentum"]
    block = BlockEntries(a, c, d)
    if not averages_raw(groups[0]):
        block = function_of(block, lambda values: variant.rectify(values, eps))
    block = BlockEntries(*(entry.to(averages[0].dtype) for entry in block))
    finite = is_finite(torch.stack([*block]))
    taken = finite if allowed is None else finite & allowed
    rows = [(coupling_of(pair, state), block.c)]
    for average, entry, used in zip(averages, (block.a, block.d), given, strict=True):
        if used is not None:
            rows.append((average, entry))
    for average, entry in rows:
        refresh(average, entry, alpha=alpha, variant=variant, allowed=taken)
    return finite
