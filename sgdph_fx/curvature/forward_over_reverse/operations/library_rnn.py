"""LSTMs, GRUs and plain recurrent networks as cuDNN and MIOpen run them: run again by torch's own cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import _VF, Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.operations.recomputation import Recomputed, recomputed
from sgdph_fx.curvature.forward_over_reverse.rule import ForwardNode, Rule, saved
from sgdph_fx.curvature.hvp import no_second_derivative

__all__ = ["RULES"]

_MODES = ("rnn_relu", "rnn_tanh", "lstm", "gru")
"""By the number that the libraries give them."""


def _again(fwd: ForwardNode) -> Recomputed:
    node = fwd.node
    layers, dropout, train = (saved(node, name) for name in ("num_layers", "dropout", "train"))
    if dropout and train and layers > 1:
        raise no_second_derivative(
            f"a recurrent network run by cuDNN or MIOpen with dropout {dropout:g} between its layers; "
            "`torch.backends.cudnn.flags(enabled=False)` around the forward pass runs it by torch's own cells"
        )
    weights, cx = saved(node, "weight"), saved(node, "cx")
    given = [saved(node, "input"), *weights, saved(node, "hx"), *([] if cx is None else [cx])]
    return Recomputed.of(given, fwd.active, lambda leaves: _run(node, len(weights), leaves))


def _run(node: Node, count: int, leaves: Sequence[Tensor]) -> Sequence[Tensor]:
    x, weights, state = leaves[0], list(leaves[1 : 1 + count]), list(leaves[1 + count :])
    mode, layers, both_ways = (saved(node, name) for name in ("mode", "num_layers", "bidirectional"))
    biased = count // (layers * (2 if both_ways else 1)) > 3
    call: Any = getattr(_VF, _MODES[mode])
    first = state if _MODES[mode] == "lstm" else state[0]
    how = [biased, layers, 0.0, saved(node, "train"), both_ways]
    sizes = saved(node, "batch_sizes")
    with _without_library():
        if sizes:
            outputs: Sequence[Tensor] = call(x, torch.tensor(sizes), first, weights, *how)
        else:
            outputs = call(x, first, weights, *how, saved(node, "batch_first"))
    return outputs


@contextmanager
def _without_library() -> Iterator[None]:
    """Not by ``torch.backends.cudnn.flags``, which sets precisions too, and fails where these differ."""
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


RULES: Mapping[str, Rule] = dict.fromkeys(("CudnnRnnBackward0", "MiopenRnnBackward0"), recomputed(_again))
"""Node ↦ rule."""
