"""Recurrent cells as a GPU fuses them, by stand-ins on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sgdph_fx.curvature.forward_over_reverse import backward_with_product, coverage
from tests.products import LENGTH, activities, loss_of, product_by_torch

pytestmark = pytest.mark.usefixtures("one_thread", "stand_ins")


def lstm(gates: Tensor, hidden: Tensor, state: Tensor, *biases: Tensor) -> tuple[Tensor, Tensor]:
    """As torch documents ``nn.LSTMCell``."""
    i, f, g, o = (gates + hidden + sum(biases)).chunk(4, 1)
    cell = torch.sigmoid(f) * state + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def gru(gates: Tensor, hidden: Tensor, state: Tensor, *biases: Tensor) -> Tensor:
    """As torch documents ``nn.GRUCell``."""
    if biases:
        gates, hidden = gates + biases[0], hidden + biases[1]
    (i_r, i_z, i_n), (h_r, h_z, h_n) = gates.chunk(3, 1), hidden.chunk(3, 1)
    z, n = torch.sigmoid(i_z + h_z), torch.tanh(i_n + torch.sigmoid(i_r + h_r) * h_n)
    return (1 - z) * n + z * state


def _given(*tensors: Tensor | None) -> tuple[Tensor, ...]:
    return tuple(t for t in tensors if t is not None)


def _fused_lstm(gates: Tensor, hidden: Tensor, state: Tensor, b: Any = None, c: Any = None) -> Any:
    summed = gates + hidden + sum(_given(b, c))
    return *lstm(gates, hidden, state, *_given(b, c)), summed


def _fused_lstm_backward(h: Any, c: Any, state: Tensor, cell: Tensor, summed: Tensor, biased: bool) -> Any:
    i, f, g, o = (t.tanh() if n == 2 else t.sigmoid() for n, t in enumerate(summed.chunk(4, 1)))
    h, c = (torch.zeros_like(cell) if t is None else t for t in (h, c))
    c = c + h * o * (1 - cell.tanh() ** 2)
    gates = [c * g * i * (1 - i), c * state * f * (1 - f), c * i * (1 - g**2), h * cell.tanh() * o * (1 - o)]
    by_gates = torch.cat(gates, 1)
    return by_gates, c * f, by_gates.sum(0) if biased else None


def _fused_gru(gates: Tensor, hidden: Tensor, state: Tensor, b: Any = None, c: Any = None) -> Any:
    # What is kept for the backward pass is for the stand-in to choose.
    kept = (gates, hidden) if b is None else (gates + b, hidden + c)
    return gru(*kept, state), torch.cat([*kept, state], 1)


def _fused_gru_backward(g: Tensor, kept: Tensor, biased: bool) -> Any:
    width = kept.shape[1] // 7
    i_r, i_z, i_n, h_r, h_z, h_n, state = kept.split(width, 1)
    r, z = torch.sigmoid(i_r + h_r), torch.sigmoid(i_z + h_z)
    n = torch.tanh(i_n + r * h_n)
    by_n = g * (1 - z) * (1 - n**2)
    shared = [by_n * h_n * r * (1 - r), g * (state - n) * z * (1 - z)]
    by_input, by_hidden = torch.cat([*shared, by_n], 1), torch.cat([*shared, by_n * r], 1)
    return by_input, by_hidden, g * z, *((by_input.sum(0), by_hidden.sum(0)) if biased else (None, None))


STAND_INS: dict[str, Callable[..., Any]] = {
    "_thnn_fused_lstm_cell": _fused_lstm,
    "_thnn_fused_lstm_cell_backward_impl": _fused_lstm_backward,
    "_thnn_fused_gru_cell": _fused_gru,
    "_thnn_fused_gru_cell_backward": _fused_gru_backward,
}


def _call(name: str, outputs: int) -> Callable[..., Tensor]:
    call: Any = getattr(torch.ops.aten, name)
    return lambda *given: torch.cat(call(*given)[:outputs], 1)


CELLS = {
    "LSTM": (_call("_thnn_fused_lstm_cell", 2), lambda *given: torch.cat(lstm(*given), 1), 4),
    "LSTM's state alone": (
        lambda *given: torch.ops.aten._thnn_fused_lstm_cell(*given)[1],
        lambda *g: lstm(*g)[1],
        4,
    ),
    "GRU": (_call("_thnn_fused_gru_cell", 1), gru, 3),
}


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("name", CELLS)
def test_the_product_is_that_of_the_cell_written_out(name: str, biased: bool) -> None:
    fused, written_out, gates = CELLS[name]
    wide, bias = (3, gates * 2), (gates * 2,)
    shapes: list[tuple[int, ...]] = [wide, wide, (3, 2), *([bias, bias] if biased else [])]
    for active in activities((fused, shapes)):
        p, v = torch.randn(
            2, LENGTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        ).unbind()
        p = p.clone().requires_grad_()
        expected = product_by_torch(p, v, (written_out, shapes), active)
        (gradient,) = torch.autograd.grad(loss_of(p, (written_out, shapes), active), p)
        loss = loss_of(p, (fused, shapes), active)
        assert coverage(loss, p).fallbacks == {}
        found = backward_with_product(loss, p, v)
        torch.testing.assert_close(p.grad, gradient, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)
