"""Parameters and operations that a graph hides: told, trained on by the gradient, never taken for a Hessian of zero."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from sgdph_fx.errors import NoCurvatureError
from sgdph_fx.optim import SGDPH
from tests.torch_versions import TORCH_TELLS


class Reversible(torch.autograd.Function):
    """x w, which writes the gradient of a parameter w that it holds, as reversible networks do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Any) -> Tensor:
        ctx.w = w
        ctx.save_for_backward(x)
        return x * w[0].detach()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,), (w,) = ctx.saved_tensors, ctx.w
        with torch.enable_grad():
            torch.autograd.backward(x.detach() * w, g.detach())
        return g * w.detach(), None


def problem(**options: Any) -> tuple[nn.Parameter, nn.Parameter, SGDPH]:
    hidden, shown = (nn.Parameter(torch.tensor([0.5, -1.0], dtype=torch.float64)) for _ in range(2))
    groups = [{"params": [("hidden", hidden), ("shown", shown)], "order": 2}]
    return hidden, shown, SGDPH(groups, 0.1, variant="paper", **options)


def loss_of(hidden: Tensor, shown: Tensor) -> Tensor:
    loss: Tensor = Reversible.apply(shown.square(), (hidden,)).pow(2).sum()
    return loss


def test_a_parameter_that_only_the_backward_knows_goes_on_by_its_gradient() -> None:
    """L = Σ (s² h)², ∂L/∂h = 2 s⁴ h."""
    hidden, shown, optimizer = problem(hessian_momentum=1.0, eps=1e-26)
    gradient = (2 * shown**4 * hidden).detach()
    optimizer.backward(loss_of(hidden, shown))
    torch.testing.assert_close(hidden.grad, gradient)
    with pytest.warns(RuntimeWarning, match=r"'hidden' has no Hessian, so \|g\| stands in.*Reversible"):
        optimizer.step()
    torch.testing.assert_close(optimizer.state[hidden]["hessian_average"], gradient.abs())
    assert optimizer.parameters_without_curvature == ("hidden",)


def test_or_is_refused_by_name() -> None:
    hidden, shown, optimizer = problem(without_curvature="raise")
    with pytest.raises(
        NoCurvatureError, match="'hidden' got a gradient, but the graph of the loss does not lead to it"
    ):
        optimizer.backward(loss_of(hidden, shown))


class Square(torch.autograd.Function):
    """s², whose backward fails where its gradient is to have a graph, as some kernels do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("this kernel has no second derivative")
        (x,) = ctx.saved_tensors
        return 2 * x * g


@pytest.mark.parametrize("square", [Square.apply, torch.square])
@pytest.mark.parametrize("how", [{}, {"curvature": "gauss-newton"}, {"checkpoint": True}])
@pytest.mark.parametrize("before", [None, 3.0])
def test_a_parameter_that_a_function_holds_gets_its_gradient_once(
    square: Any, how: dict[str, Any], before: float | None
) -> None:
    """L = Σ (s² h)²: ∂L/∂h = 2 s⁴ h, though the function runs once more on the way to the product by s."""
    hidden, shown = (nn.Parameter(torch.tensor([0.5, -1.0], dtype=torch.float64)) for _ in range(2))
    hidden.grad = None if before is None else torch.full_like(hidden, before)
    groups = [{"params": [shown], "order": 2}, {"params": [hidden], "order": 1}]
    options, in_checkpoint = dict(how), how.get("checkpoint", False)
    options.pop("checkpoint", None)
    optimizer = SGDPH(groups, 0.1, variant="paper", **options)

    def block(x: Tensor) -> Any:
        return Reversible.apply(x, (hidden,)).pow(2)

    x = square(shown)
    out = checkpoint(block, x, use_reentrant=True) if in_checkpoint else block(x)
    optimizer.backward(out.sum())
    torch.testing.assert_close(hidden.grad, (before or 0) + 2 * shown.detach() ** 4 * hidden.detach())
    torch.testing.assert_close(shown.grad, 4 * shown.detach() ** 3 * hidden.detach() ** 2)
    assert (
        "sgdph_fx." not in str(optimizer._estimate.missing).partition("(")[0]
    )  # no function of ours is blamed


def test_a_parameter_without_a_gradient_is_not_hidden() -> None:
    _, shown, optimizer = problem(without_curvature="raise")
    optimizer.backward(shown.pow(4).sum())
    optimizer.step()
    assert optimizer.curvature_missed == 0


@TORCH_TELLS
@pytest.mark.parametrize("curvature", ["hessian", "gauss-newton"])
def test_selective_checkpoints_train_by_the_gradient(curvature: Any) -> None:
    """Torch allows one backward pass through them, and the gradients need it."""

    def policy(_: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        kept = operation is torch.ops.aten.tanh.default
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    context = functools.partial(create_selective_checkpoint_contexts, policy)
    p = nn.Parameter(torch.tensor([0.5, -1.0], dtype=torch.float64))
    optimizer = SGDPH([{"params": [("p", p)], "order": 2}], 0.1, variant="paper", curvature=curvature)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):
            before = p.detach().clone().requires_grad_()
            (expected,) = torch.autograd.grad((before * before.tanh()).square().sum(), before)
            optimizer.zero_grad()
            out: Any = checkpoint(lambda t: t * t.tanh(), p, use_reentrant=False, context_fn=context)
            optimizer.backward(out.square().sum())
            torch.testing.assert_close(p.grad, expected)
            optimizer.step()
    assert optimizer.curvature_missed == 3
    assert sum("selective activation checkpoint" in str(w.message) for w in told) == 1


def test_products_that_torch_took_are_counted_and_saved() -> None:
    """The sweep gives up at complex numbers, as `coverage` says; the product of Σ p⁴ it takes itself."""
    p = nn.Parameter(torch.tensor([0.5, -1.0], dtype=torch.float64))
    optimizer = SGDPH([{"params": [("p", p)], "order": 2}], 0.1, variant="paper")
    for loss in (lambda: torch.complex(p, p * p).abs().pow(3).sum(), lambda: p.pow(4).sum()):
        optimizer.zero_grad()
        optimizer.backward(loss())
        optimizer.step()
    assert optimizer.products_given_up == optimizer.statistics()["products_given_up"] == 1
    again = SGDPH([{"params": [("p", p)], "order": 2}], 0.1, variant="paper")
    again.load_state_dict(optimizer.state_dict())
    assert again.products_given_up == 1
    earlier = optimizer.state_dict()
    del earlier["param_groups"][0]["products_given_up"]
    again.load_state_dict(earlier)
    assert again.products_given_up == 0


CREATE_GRAPH = pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True:UserWarning")


class Detached(torch.autograd.Function):
    """x², whose backward autograd does not see."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        with torch.no_grad():
            return 2 * ctx.saved_tensors[0] * g


@CREATE_GRAPH
@pytest.mark.parametrize("where", ["inside", "below", "below, with a part of its graph", "of a function"])
def test_a_gradient_that_lost_its_graph_is_no_hessian_of_zero(where: str) -> None:
    """``loss.backward(create_graph=True)`` through a reentrant checkpoint; ``optimizer.backward`` finds the truth."""
    p, last = (nn.Parameter(torch.tensor([0.5, -1.0], dtype=torch.float64)) for _ in range(2))

    def loss_at(p: Tensor, again: Any) -> Tensor:
        one = torch.ones(2, dtype=torch.float64)
        if where == "inside":
            inner = again(lambda x: x * p**2, (last * one))
        else:
            inner = again(torch.square, {"below": p * one, "of a function": p * one}.get(where, p.square()))
        return (inner * last).pow(2).sum()

    def run(way: Any, **options: Any) -> SGDPH:
        groups = [{"params": [("p", p), ("last", last)], "order": 2}]
        optimizer = SGDPH(groups, 0.0, variant="paper", hessian_momentum=1.0, eps=1e-26, **options)
        optimizer.zero_grad()
        way(optimizer)
        optimizer.step()
        return optimizer

    again: Any = functools.partial(checkpoint, use_reentrant=True)
    if where == "of a function":
        again = lambda f, x: Detached.apply(x)  # noqa: E731

    def kept(optimizer: SGDPH) -> None:
        loss_at(p, again).backward(create_graph=True)  # type: ignore[no-untyped-call]

    with pytest.raises(
        NoCurvatureError, match=r"gradient of parameter 'p' has lost its graph.*optimizer.backward"
    ):
        run(kept, without_curvature="raise")
    with pytest.warns(RuntimeWarning, match="'p' has no Hessian"):
        optimizer = run(kept)
    gradient = torch.func.grad(lambda q: loss_at(q, lambda f, x: f(x)))(p.detach())
    torch.testing.assert_close(optimizer.state[p]["hessian_average"], gradient.abs())
    if where != "of a function":
        optimizer = run(lambda optimizer: optimizer.backward(loss_at(p, again)))
        sums = torch.func.hessian(lambda q: loss_at(q, lambda f, x: f(x)))(p.detach()).sum(1)
        torch.testing.assert_close(optimizer.state[p]["hessian_average"], sums.abs())


@CREATE_GRAPH
def test_above_a_reentrant_checkpoint_gradients_keep_their_graph() -> None:
    p, below = (nn.Parameter(torch.tensor([0.5, -1.0], dtype=torch.float64)) for _ in range(2))
    groups = [{"params": [("p", p), ("below", below)], "order": 2}]
    optimizer = SGDPH(
        groups, 0.0, variant="paper", hessian_momentum=1.0, eps=1e-26, without_curvature="raise"
    )
    h = checkpoint(torch.square, below * 1, use_reentrant=True)
    (h * p).pow(3).sum().backward(create_graph=True)
    optimizer.step()
    torch.testing.assert_close(optimizer.state[p]["hessian_average"], (6 * h**3 * p).abs().detach())
