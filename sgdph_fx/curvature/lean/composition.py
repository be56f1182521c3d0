"""A weight of direction and gain, W = γ V / ‖V‖: linear in the gain, which is what it depends on where it is due.

A direction that is itself computed from the due parameter is left to torch's second derivative.
"""

from __future__ import annotations

from typing import Any

from sgdph_fx.curvature.lean.fallback import apply, torch_pull, torch_push
from sgdph_fx.curvature.lean.visit import NONLINEAR, Rule, Tensors, Turn, Visit
from sgdph_fx.filters import compose

__all__ = ["RULE"]


def _push(visit: Visit) -> Tensors:
    by_direction, by_gain = visit.tangents
    if by_direction is not None or by_gain is None:
        return torch_push(visit)
    node: Any = visit.node
    direction, _ = node.saved_tensors
    return [compose(direction, by_gain, node.filters)]


def _pull(turn: Turn) -> Tensors:
    by_direction, _ = turn.active
    if by_direction:
        return torch_pull(turn)
    return [None, None if turn.dg[0] is None else apply(turn.node, turn.dg)[1]]


RULE = Rule(_push, _pull, NONLINEAR)
