"""What a rule costs beside the operation's own backward, on tensors of a real model."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.fallback import apply
from sgdph_fx.curvature.forward_over_reverse.rule import BackwardNode, ForwardNode, Rule, Tensors

__all__ = ["Price", "price_of"]

_ROUNDS = 3
Price = tuple[float, float]
"""Seconds of the rule, forward and backward, and of the operation's backward."""


def price_of(node: Node, rule: Rule, active: tuple[bool, ...]) -> Price:
    """Time a rule on one operation, the best of a few rounds.

    Raises:
        Exception: whatever the rule raises.
    """
    g = [_noise(metadata) for metadata in node._input_metadata]
    by_inputs = apply(node, g)
    plain = _seconds(lambda: apply(node, g))
    ruled = min(_one_round(node, rule, active, g, by_inputs) for _ in range(_ROUNDS))
    return ruled, plain


def _one_round(
    node: Node, rule: Rule, active: tuple[bool, ...], g: list[Tensor], by_inputs: Tensors
) -> float:
    tangents = _tangents(node, active)
    fwd = ForwardNode(node, rule, active, tangents, [False] * len(tangents))
    dg = [torch.ones_like(t) for t in g]
    start = time.perf_counter()
    with torch.no_grad():
        rule.jvp(fwd)
        if sum(active) < rule.linearity:
            fwd.tangents = [None] * len(tangents)
        rule.vjp_tangent(BackwardNode(fwd, g, dg, [False] * len(dg), by_inputs))
    return time.perf_counter() - start


def _tangents(node: Node, active: tuple[bool, ...]) -> list[Tensor | None]:
    edges = zip(node.next_functions, active, strict=True)
    return [
        _noise(child._input_metadata[number]) if wanted and child is not None else None
        for (child, number), wanted in edges
    ]


def _noise(metadata: Any) -> Tensor:
    shape = tuple(metadata.shape)
    return torch.randn(shape, dtype=torch.float32).to(dtype=metadata.dtype, device=metadata.device)


def _seconds(call: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        with torch.no_grad():
            call()
        best = min(best, time.perf_counter() - start)
    return best
