"""Scaled dot-product attention: torch's fused backward on the CPU has no derivative, so its formula is used."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from sgdph_fx.curvature.lean.visit import NONLINEAR, Rule, Tensors, Turn, Visit, saved

__all__ = ["RULES"]


def _push(visit: Visit) -> Tensors:
    with torch.enable_grad():
        inputs, output = _again(visit.node)
        g = torch.zeros_like(output, requires_grad=True)
        gradients = torch.autograd.grad(output, inputs, g, create_graph=True)
    out, *_ = _along(gradients, (g,), visit.tangents)
    return [out, *[None] * (len(visit.node._input_metadata) - 1)]


def _pull(turn: Turn) -> Tensors:
    g, dg = turn.g[0], turn.dg[0]
    with torch.enable_grad():
        inputs, output = _again(turn.node)
        own = torch.zeros_like(output) if g is None else g
        gradients = torch.autograd.grad(output, inputs, own, create_graph=True)
    passed: Tensors = [None] * 3
    if dg is not None:
        passed = torch.autograd.grad(output, inputs, dg, retain_graph=True)
    bent = _along(gradients, inputs, turn.tangents)
    return [b if p is None else p if b is None else p + b for p, b in zip(passed, bent, strict=True)]


def _again(node: Node) -> tuple[tuple[Tensor, ...], Tensor]:
    names = ("query", "key", "value")
    query, key, value = (saved(node, name).detach().requires_grad_() for name in names)
    with sdpa_kernel(SDPBackend.MATH):
        output = torch.nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=saved(node, "attn_mask"),
            is_causal=saved(node, "is_causal"),
            scale=saved(node, "scale"),
            enable_gqa=query.shape[1] != key.shape[1],
        )
    return (query, key, value), output


def _along(gradients: Tensors, by: tuple[Tensor, ...], tangents: Tensors) -> Tensors:
    pairs = [(g, t) for g, t in zip(gradients, tangents, strict=True) if g is not None and t is not None]
    outputs, along = [g for g, _ in pairs], [t for _, t in pairs]
    return torch.autograd.grad(outputs, by, along, allow_unused=True, retain_graph=True)


# Dropout is none of its business: torch takes the formula itself then.
RULES: Mapping[str, Rule] = {"ScaledDotProductFlashAttentionForCpuBackward0": Rule(_push, _pull, NONLINEAR)}
"""By node."""
