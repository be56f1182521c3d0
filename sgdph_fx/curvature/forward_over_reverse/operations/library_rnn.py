"""LSTMs, GRUs and plain recurrent networks as cuDNN and MIOpen run them, which have no second derivative there.

The network runs once more by torch's own cells, on what the library saved, and torch differentiates that twice: a
product takes the time and the memory of an unfused network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import _VF, Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.rule import (
    NONLINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    saved,
    total,
)
from sgdph_fx.curvature.hvp import no_second_derivative

__all__ = ["RULES"]

_MODES = ("rnn_relu", "rnn_tanh", "lstm", "gru")
"""By the number that the libraries give them."""


@dataclass(frozen=True, slots=True)
class _Network:
    """The network with a graph: its inputs in the order of the node's, leaves that require a gradient if active."""

    leaves: Sequence[Tensor]
    outputs: Sequence[Tensor]

    def gradients(self, g: Tensors, *, differentiable: bool = False) -> Tensors:
        """Compute the gradients by the leaves; None is zero, in ``g`` and in the result."""
        pairs = [(out, each) for out, each in zip(self.outputs, g, strict=True) if each is not None]
        wanted = [leaf for leaf in self.leaves if leaf.requires_grad]
        if not pairs:
            return [None] * len(self.leaves)
        outputs, given = zip(*pairs, strict=True)
        with torch.enable_grad():
            found = torch.autograd.grad(
                outputs, wanted, given, retain_graph=True, create_graph=differentiable, allow_unused=True
            )
        return _spread(found, self.leaves)


def _jvp(fwd: ForwardNode) -> Tensors:
    """Differentiate the gradients, which are linear in g, by g along ẋ."""
    fwd.memo = network = _again(fwd)
    probes = [torch.zeros_like(out).requires_grad_() for out in network.outputs]
    gradients = network.gradients(probes, differentiable=True)
    return _along(gradients, fwd.tangents, probes)


def _vjp_tangent(bwd: BackwardNode) -> Tensors:
    """Add up the gradients of ġ and the derivatives of the gradients of g by the inputs along ẋ."""
    network: _Network = bwd.fwd.memo
    count = len(network.outputs)
    passed = network.gradients(_like(network, bwd.dg[:count]))
    gradients = network.gradients(_like(network, bwd.g[:count]), differentiable=True)
    active = [leaf for leaf in network.leaves if leaf.requires_grad]
    bent = _spread(_along(gradients, bwd.tangents, active), network.leaves)
    return [total(first, second) for first, second in zip(passed, bent, strict=True)]


def _spread(found: Tensors, leaves: Sequence[Tensor]) -> Tensors:
    """Put what was found for the active leaves in their places."""
    each = iter(found)
    return [next(each) if leaf.requires_grad else None for leaf in leaves]


def _like(network: _Network, tensors: Tensors) -> Tensors:
    pairs = zip(tensors, network.outputs, strict=True)
    return [None if t is None else t.detach().to(out.dtype) for t, out in pairs]


def _along(gradients: Tensors, tangents: Tensors, wanted: Sequence[Tensor]) -> Tensors:
    pairs = [
        (g, t.to(g.dtype))
        for g, t in zip(gradients, tangents, strict=True)
        if g is not None and t is not None and g.requires_grad
    ]
    if not pairs:
        return [None] * len(wanted)
    return torch.autograd.grad(
        [g for g, _ in pairs], wanted, [t for _, t in pairs], retain_graph=True, allow_unused=True
    )


def _again(fwd: ForwardNode) -> _Network:
    node = fwd.node
    layers, dropout, train = (saved(node, name) for name in ("num_layers", "dropout", "train"))
    if dropout and train and layers > 1:
        raise no_second_derivative(
            f"a recurrent network run by cuDNN or MIOpen with dropout {dropout:g} between its layers; "
            "`torch.backends.cudnn.flags(enabled=False)` around the forward pass runs it by torch's own cells"
        )
    hx, cx, weights = saved(node, "hx"), saved(node, "cx"), saved(node, "weight")
    given = [saved(node, "input"), *weights, hx, *([] if cx is None else [cx])]
    leaves = [_leaf(t, is_active) for t, is_active in zip(given, fwd.active, strict=False)]
    x, state = leaves[0], leaves[1 + len(weights) :]
    outputs = _run(node, x, leaves[1 : 1 + len(weights)], state)
    # A network without a second state leaves an edge for it.
    leaves += [torch.empty(0, device=x.device)] * (len(fwd.active) - len(leaves))
    return _Network(leaves, outputs)


def _leaf(t: Tensor, is_active: bool) -> Tensor:
    return t.detach().to(torch.promote_types(t.dtype, torch.float32)).requires_grad_(is_active)


def _run(node: Node, x: Tensor, weights: Sequence[Tensor], state: Sequence[Tensor]) -> Sequence[Tensor]:
    mode, layers, bidirectional = (saved(node, name) for name in ("mode", "num_layers", "bidirectional"))
    biased = len(weights) // (layers * (2 if bidirectional else 1)) > 3
    call: Any = getattr(_VF, _MODES[mode])
    first = list(state) if _MODES[mode] == "lstm" else state[0]
    how = [biased, layers, 0.0, saved(node, "train"), bidirectional]
    sizes = saved(node, "batch_sizes")
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        if sizes:
            outputs = call(x, torch.tensor(sizes), first, list(weights), *how)
        else:
            outputs = call(x, first, list(weights), *how, saved(node, "batch_first"))
    return list(outputs)


RULES: Mapping[str, Rule] = dict.fromkeys(
    ("CudnnRnnBackward0", "MiopenRnnBackward0"), Rule(_jvp, _vjp_tangent, NONLINEAR)
)
"""Node ↦ rule."""
