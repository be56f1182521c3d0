"""Recurrent networks as cuDNN runs them, by a stand-in on the CPU, against torch's own cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import _VF, Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from sgdph_fx.curvature.forward_over_reverse import backward_with_product, coverage
from sgdph_fx.errors import NoCurvatureError
from tests.products import LENGTH, Operation, activities, loss_of, product_by_torch

pytestmark = pytest.mark.usefixtures("one_thread")

MODES = {"ReLU network": 0, "tanh network": 1, "LSTM": 2, "GRU": 3}
NAMES = ("rnn_relu", "rnn_tanh", "lstm", "gru")


def by_cells(mode: int, biased: bool, how: Sequence[Any], x: Tensor, sizes: Any, *rest: Tensor) -> Any:
    """By torch's own cells: x, the weights, and the states."""
    states = 2 if mode == 2 else 1
    weights, state = rest[:-states], rest[-states:]
    first = list(state) if mode == 2 else state[0]
    lengths = [] if sizes is None else [sizes]
    ends = [] if sizes is not None else [False]
    return getattr(_VF, NAMES[mode])(x, *lengths, first, list(weights), biased, *how, *ends)


def _cudnn(x: Tensor, weights: Any, _: Any, buffer: Any, hx: Tensor, cx: Any, mode: int, *rest: Any) -> Any:
    layers, train, both, sizes = rest[2], rest[5], rest[6], rest[7]
    lengths = torch.tensor(sizes) if sizes else None
    how = (layers, 0.0, train, both)
    given = (*weights, hx, *([] if cx is None else [cx]))
    biased = len(weights) // (layers * (1 + both)) > 3
    out = by_cells(mode, biased, how, x, lengths, *given)
    hy, cy = out[1], out[2] if mode == 2 else x.new_empty(0)
    return out[0], hy, cy, x.new_empty(0), x.new_empty(0)


def _cudnn_backward(
    x: Tensor, weights: Any, _: Any, buffer: Any, hx: Tensor, cx: Any, out: Any, *rest: Any
) -> Any:
    g, mode, layers, train, both, sizes = rest[:3], rest[3], rest[6], rest[9], rest[10], rest[11]
    keys = torch._C.DispatchKey
    with (
        torch._C._SetExcludeDispatchKeyGuard(keys.AutogradFunctionality, False),
        torch._C._SetExcludeDispatchKeyGuard(keys.AutogradCPU, False),
        torch.enable_grad(),
    ):
        leaves = [t.detach().requires_grad_() for t in (x, *weights, hx, *([] if cx is None else [cx]))]
        biased = len(weights) // (layers * (1 + both)) > 3
        lengths = torch.tensor(sizes) if sizes else None
        made = by_cells(mode, biased, (layers, 0.0, train, both), leaves[0], lengths, *leaves[1:])
        pairs = [(a, b) for a, b in zip(made, g, strict=False) if b is not None]
        found = torch.autograd.grad([a for a, _ in pairs], leaves, [b for _, b in pairs], allow_unused=True)
    count = 1 + len(weights)
    return found[0], found[count], found[count + 1] if mode == 2 else None, list(found[1:count])


@pytest.fixture(scope="module", autouse=True)
def _stand_in() -> Iterator[None]:
    library = torch.library.Library("aten", "IMPL", "CPU")
    library.impl("_cudnn_rnn", _cudnn)
    library.impl("_cudnn_rnn_backward", _cudnn_backward)
    yield
    library._destroy()


def by_library(mode: int, how: Sequence[Any], x: Tensor, sizes: Any, *rest: Tensor) -> Any:
    """The same, by cuDNN's operation."""
    states = 2 if mode == 2 else 1
    weights, (hx, *more) = rest[:-states], rest[-states:]
    layers, dropout, train, both = how
    call: Any = torch.ops.aten._cudnn_rnn
    given = (mode, hx.shape[-1], 0, layers, False, dropout, train, both)
    lengths = [] if sizes is None else sizes.tolist()
    out = call(x, list(weights), 4, None, hx, *(more or [None]), *given, lengths, None)
    return out[: 1 + states]


def network(mode: int, layers: int = 1, both: bool = False, biased: bool = True, packed: bool = False) -> Any:
    """The two ways, and the shapes of x, the weights and the states: 3 numbers in, 2 of state, sequences of 3."""
    gates, ways = (1, 1, 4, 3)[mode], 2 if both else 1
    shapes: list[tuple[int, ...]] = [(5, 3) if packed else (3, 2, 3)]
    for layer in range(layers):
        for _ in range(ways):
            shapes += [(2 * gates, 3 if layer == 0 else 2 * ways), (2 * gates, 2)]
            shapes += [(2 * gates,)] * 2 if biased else []
    shapes += [(layers * ways, 2, 2)] * (2 if mode == 2 else 1)
    sizes, how = torch.tensor([2, 2, 1]) if packed else None, (layers, 0.0, True, both)

    def read(run: Callable[..., Any]) -> Callable[..., Tensor]:
        def flat(x: Tensor, *rest: Tensor) -> Tensor:
            # States of one width with the inputs' would hide a mistake in the order.
            return torch.cat([t.flatten() for t in run(x * 0.4, sizes, *(t * 0.4 for t in rest))])

        return flat

    library = read(lambda x, lengths, *rest: by_library(mode, how, x, lengths, *rest))
    cells = read(lambda x, lengths, *rest: by_cells(mode, biased, how, x, lengths, *rest))
    return library, cells, shapes


NETWORKS = {
    **{name: network(mode) for name, mode in MODES.items()},
    "LSTM without biases": network(2, biased=False),
    "LSTM of two layers, both ways": network(2, layers=2, both=True),
    "GRU of packed sequences": network(3, packed=True),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_product_is_that_of_torchs_own_cells(name: str) -> None:
    library, cells, shapes = NETWORKS[name]
    operation: Operation = (library, shapes)
    for active in activities(operation):
        p, v = torch.randn(
            2, LENGTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        ).unbind()
        p = p.clone().requires_grad_()
        expected = product_by_torch(p, v, (cells, shapes), active)
        (gradient,) = torch.autograd.grad(loss_of(p, (cells, shapes), active), p)
        loss = loss_of(p, operation, active)
        assert coverage(loss, p).fallbacks == {}
        found = backward_with_product(loss, p, v)
        scale = max(expected.abs().max().item(), 1e-3)
        torch.testing.assert_close(p.grad, gradient, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-11 * scale)


def test_whatever_precisions_are_chosen_for_cudnn() -> None:
    """One for convolutions and another for recurrent networks, from torch 2.9 on: its own switch fails there."""
    library, _, shapes = NETWORKS["LSTM"]
    p = torch.ones(LENGTH, dtype=torch.float64, requires_grad=True)
    operation: Operation = (library, shapes)
    before = torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    try:
        loss = loss_of(p, operation, (True,) * len(shapes))
        assert backward_with_product(loss, p, torch.ones_like(p), on_give_up=pytest.fail) is not None
        assert torch.backends.cudnn.enabled
    finally:
        torch.backends.cudnn.conv.fp32_precision = before


def test_packing_is_as_torch_does_it() -> None:
    packed = pack_padded_sequence(torch.zeros(3, 2, 3), torch.tensor([3, 2]))
    assert isinstance(packed, PackedSequence)
    assert packed.batch_sizes.tolist() == [2, 2, 1]


def test_dropout_between_layers_is_refused_by_name_before_any_gradient_is_written() -> None:
    p = torch.ones(3, dtype=torch.float64, requires_grad=True)
    _, _, shapes = network(2, layers=2)
    rest = [torch.ones(shape, dtype=torch.float64) for shape in shapes]
    out = by_library(2, (2, 0.3, True, False), rest[0] * p, None, *rest[1:])[0]
    with pytest.raises(
        NoCurvatureError, match=r"dropout 0\.3 between its layers; .*cudnn\.flags\(enabled=False\)"
    ):
        backward_with_product(out.square().sum(), p, torch.ones_like(p))
    assert p.grad is None
