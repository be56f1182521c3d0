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


def test_a_parameter_without_a_gradient_is_not_hidden() -> None:
    _, shown, optimizer = problem(without_curvature="raise")
    optimizer.backward(shown.pow(4).sum())
    optimizer.step()
    assert optimizer.curvature_missed == 0


def test_selective_checkpoints_train_by_the_gradient() -> None:
    """Torch allows one backward pass through them, and the gradients need it."""

    def policy(_: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        kept = operation is torch.ops.aten.tanh.default
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    context = functools.partial(create_selective_checkpoint_contexts, policy)
    p = nn.Parameter(torch.tensor([0.5, -1.0], dtype=torch.float64))
    optimizer = SGDPH([{"params": [("p", p)], "order": 2}], 0.1, variant="paper")
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
