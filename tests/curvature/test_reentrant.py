"""Reentrant checkpoints: products and gradients are those of the same network without checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sgdph_fx.curvature import coverage, product_by_double_backward
from sgdph_fx.curvature.forward_over_reverse import backward_with_product
from sgdph_fx.curvature.reentrant import reentrant_checkpoints
from sgdph_fx.errors import NoCurvatureError
from sgdph_fx.optim import SGDPH
from tests.curvature.test_custom_functions import ByNumpy

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True:UserWarning"),
]

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(6, 4, dtype=torch.float64, generator=GENERATOR)
V = torch.arange(1.0, 5, dtype=torch.float64)
WHY = "a reentrant checkpoint hides the operations inside it"
Wrap = Callable[..., Any]

# p is the due parameter, q another; C runs a function, checkpointed or not.
LOSSES: dict[str, Callable[[Wrap, Tensor, Tensor], Tensor]] = {
    "below": lambda C, p, q: C(lambda t: torch.tanh(t) ** 2, X * p).sum(),
    "inside": lambda C, p, q: C(lambda t: torch.tanh(t * p) ** 3, X * q).sum(),
    "inside and around": lambda C, p, q: (C(lambda t: torch.tanh(t * p) ** 3, X * p) * p).sum(),
    "inside two in a row": lambda C, p, q: C(lambda t: (t * p).sin(), C(lambda t: (t * p).tanh(), X * q)).pow(2).sum(),
    "inside one in another": lambda C, p, q: C(lambda t: C(lambda s: (s * p).tanh(), t * t).sin(), X * q).pow(2).sum(),
    "everywhere": lambda C, p, q: C(lambda t: C(lambda s: (s * p).tanh(), t * p * t).sin(), X * p).pow(2).sum(),
    "with two outputs": lambda C, p, q: sum(C(lambda t, u: (torch.tanh(t * p), u * t), X * q, X * p)).pow(3).sum(),  # type: ignore[arg-type]
    "as an input": lambda C, p, q: C(lambda t: torch.tanh(X * t * p), p).pow(2).sum(),
    "above, out of its way": lambda C, p, q: C(torch.tanh, X * q).sum() * p.pow(3).sum(),
}  # fmt: skip


def leaves() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    p, q = (torch.randn(4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    return p, q


def reentrant(function: Any, *args: Any) -> Any:
    return checkpoint(function, *args, use_reentrant=True)


def plain(function: Any, *args: Any) -> Any:
    return function(*args)


@pytest.mark.parametrize("name", LOSSES)
def test_products_and_gradients_are_those_without_checkpoints(name: str) -> None:
    p, q = leaves()
    (gradient,) = torch.autograd.grad(LOSSES[name](plain, p, q), p, create_graph=True)
    (expected,) = torch.autograd.grad(gradient, p, V)
    by_leaf = torch.autograd.grad(LOSSES[name](plain, p, q), [p, q], allow_unused=True)
    why: list[str] = []
    found = backward_with_product(LOSSES[name](reentrant, p, q), p, V, on_give_up=why.append)
    assert why == [WHY]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for leaf, wanted in zip((p, q), by_leaf, strict=True):
        torch.testing.assert_close(leaf.grad, wanted, rtol=1e-12, atol=1e-12)


def test_it_may_be_asked_for_many_products_and_writes_no_gradient() -> None:
    p, q = leaves()
    (gradient,) = torch.autograd.grad(LOSSES["everywhere"](plain, p, q), p, create_graph=True)
    loss = LOSSES["everywhere"](reentrant, p, q)
    with product_by_double_backward(loss, p) as product:
        assert product is not None
        for v in torch.eye(4, dtype=torch.float64):
            (expected,) = torch.autograd.grad(gradient, p, v, retain_graph=True)
            torch.testing.assert_close(product(v), expected, rtol=1e-12, atol=1e-12)
    assert p.grad is None
    loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(p.grad, gradient.detach(), rtol=1e-12, atol=1e-12)


def test_dropout_inside_is_drawn_as_it_was() -> None:
    torch.manual_seed(0)
    block: Any = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Tanh(), nn.Linear(16, 3)).double()
    due, x = block[0].bias, X.clone().requires_grad_()
    results = []
    for wrap in (plain, reentrant):
        torch.manual_seed(7)
        loss = wrap(block, x).pow(3).sum()
        block.zero_grad()
        results.append((backward_with_product(loss, due, torch.ones_like(due)), due.grad.clone()))
    torch.testing.assert_close(results[1], results[0], rtol=1e-11, atol=1e-12)


def test_coverage_names_the_checkpoint() -> None:
    p, q = leaves()
    assert coverage(LOSSES["below"](reentrant, p, q), p).gives_up == WHY
    assert p.grad is None


def test_the_node_has_its_own_backward_again() -> None:
    p, q = leaves()
    loss = LOSSES["inside"](reentrant, p, q)
    (node,) = reentrant_checkpoints(loss)
    with product_by_double_backward(loss, p):
        assert "_forward_cls" in vars(node)
    assert "_forward_cls" not in vars(node)
    # What torch's own says of being asked for one gradient alone.
    with pytest.raises(RuntimeError, match="use_reentrant=True"):
        torch.autograd.grad(loss, q)


def test_functions_inside_are_watched_as_outside() -> None:
    p, q = leaves()
    loss = reentrant(lambda t: ByNumpy.apply(t * p).sin(), X * q).sum()
    with pytest.raises(NoCurvatureError, match="ByNumpy returns gradients that do not depend"):
        backward_with_product(loss, p, V)
    assert p.grad is None
    assert q.grad is None


def test_a_model_that_lies_in_a_checkpoint_as_a_whole_is_trained() -> None:
    x = X.clone().requires_grad_()
    trained = []
    for wrap in (plain, reentrant):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 2)).double()
        optimizer = SGDPH([{"params": list(net.parameters()), "order": 2}], lr=1e-3)
        for _ in range(8):
            optimizer.zero_grad()
            optimizer.backward(wrap(net, x).pow(3).sum())
            optimizer.step()
        trained.append(list(net.parameters()))
    for ours, expected in zip(*trained, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)
