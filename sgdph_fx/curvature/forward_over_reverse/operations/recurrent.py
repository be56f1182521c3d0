"""LSTM and GRU cells as a GPU fuses them, by the formulas of their forward and backward passes.

Forward-mode differentiation of the first gives ẏ, and of the second the tangents of the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import Node

from sgdph_fx.curvature.forward_over_reverse.rule import (
    NONLINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
    saved,
)

__all__ = ["RULES"]

_Formula: TypeAlias = "Callable[[Sequence[Tensor]], Sequence[Tensor]]"
# In the order of autograd's node; a cell may have no biases.
_INPUTS = ("input_gates", "hidden_gates", "state", "input_bias", "hidden_bias")


def _fused(state: str, forward: _Formula, backward: _Formula, outputs: int) -> Rule:
    """Make the rule of a cell.

    Args:
        state: The name under which the cell's state is saved.
        forward: Inputs ↦ outputs.
        backward: Gradients by the outputs, then the inputs ↦ gradients by the gates of the input, those of the
            hidden state, and the state.
        outputs: How many outputs have a gradient.
    """

    def inputs(node: Node) -> list[Tensor]:
        values = (saved(node, state if name == "state" else name) for name in _INPUTS)
        return [_precise(t) for t in values if t is not None]

    def jvp(fwd: ForwardNode) -> Tensors:
        return _tangents(forward, inputs(fwd.node), fwd.tangents)

    def vjp_tangent(bwd: BackwardNode) -> Tensors:
        values, some = inputs(bwd.node), next(g for g in (*bwd.g, *bwd.dg) if g is not None)
        g = [torch.zeros_like(some) if t is None else t for t in bwd.g[:outputs]]
        given = [*map(_precise, g), *values]
        by_input, by_hidden, by_state = _tangents(backward, given, (*bwd.dg[:outputs], *bwd.tangents))
        return [by_input, by_hidden, by_state, _over_batch(by_input), _over_batch(by_hidden)]

    return Rule(jvp, vjp_tangent, NONLINEAR, owns_output=True)


def _tangents(formula: _Formula, values: Sequence[Tensor], tangents: Tensors) -> Tensors:
    make_dual: Any = forward_ad.make_dual
    unpack_dual: Any = forward_ad.unpack_dual
    with forward_ad.dual_level():
        duals = [
            t if tangent is None else make_dual(t, tangent.to(t.dtype).expand_as(t))
            for t, tangent in zip(values, tangents, strict=False)
        ]
        return [unpack_dual(t).tangent for t in formula(duals)]


def _over_batch(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.sum(0)


def _precise(t: Tensor) -> Tensor:
    return t.to(torch.promote_types(t.dtype, torch.float32))


def _lstm_gates(inputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """Add up the parts of the input, the hidden state and the biases, and split the sum into the four gates."""
    by_input, by_hidden, _, *biases = inputs
    return sum(biases, by_input + by_hidden).chunk(4, 1)


def _lstm(inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    i, f, c, o = _lstm_gates(inputs)
    cell = f.sigmoid() * inputs[2] + i.sigmoid() * c.tanh()
    return o.sigmoid() * cell.tanh(), cell


def _lstm_backward(given: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    by_h, by_c, *inputs = given
    z_i, z_f, z_c, z_o = _lstm_gates(inputs)
    i, f, c, o, state = z_i.sigmoid(), z_f.sigmoid(), z_c.tanh(), z_o.sigmoid(), inputs[2]
    t = (f * state + i * c).tanh()
    by_cell = by_c + by_h * o * (1 - t * t)
    by_gates = torch.cat(
        [
            by_cell * c * i * (1 - i),
            by_cell * state * f * (1 - f),
            by_cell * i * (1 - c * c),
            by_h * t * o * (1 - o),
        ],
        1,
    )
    return by_gates, by_gates, by_cell * f


def _gru_parts(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Compute the reset and update gates, the new state, and the hidden state's part of the new state."""
    by_input, by_hidden, _, *biases = inputs
    if biases:
        by_input, by_hidden = by_input + biases[0], by_hidden + biases[1]
    (i_r, i_z, i_n), (h_r, h_z, h_n) = by_input.chunk(3, 1), by_hidden.chunk(3, 1)
    r = (i_r + h_r).sigmoid()
    return r, (i_z + h_z).sigmoid(), (i_n + r * h_n).tanh(), h_n


def _gru(inputs: Sequence[Tensor]) -> tuple[Tensor]:
    _, z, n, _ = _gru_parts(inputs)
    return (n + z * (inputs[2] - n),)


def _gru_backward(given: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    g, *inputs = given
    r, z, n, h_n = _gru_parts(inputs)
    by_n = g * (1 - z) * (1 - n * n)
    by_r = by_n * h_n * r * (1 - r)
    by_z = g * (inputs[2] - n) * z * (1 - z)
    return torch.cat([by_r, by_z, by_n], 1), torch.cat([by_r, by_z, by_n * r], 1), g * z


RULES: Mapping[str, Rule] = {
    "ThnnFusedGruCellBackward0": _fused("hx", _gru, _gru_backward, outputs=1),
    "ThnnFusedLstmCellBackward0": _fused("cx", _lstm, _lstm_backward, outputs=2),
}
"""Node ↦ rule."""
