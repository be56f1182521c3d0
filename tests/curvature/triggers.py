"""Each message of the curvature package, raised once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from sgdph_fx.curvature import differentiable_gradient, gauss_newton_diagonal
from sgdph_fx.curvature.forward_over_reverse import backward_with_product
from sgdph_fx.curvature.forward_over_reverse.joint import backward_with_columns
from tests.curvature.test_backward_checks import SlopeInForward
from tests.curvature.test_custom_functions import Overwriting, RunsAutograd, WithoutGrad, X, leaf
from tests.curvature.test_gauss_newton import Once
from tests.curvature.test_saved_intermediates import Norm

__all__ = ["CURVATURE"]


class Harmless(RunsAutograd):
    """Its backward returns what autograd can follow, and writes a gradient beside it."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        RunsAutograd.backward(ctx, g)
        return g * 0, None


def product(loss: Tensor, p: Tensor) -> None:
    backward_with_product(loss, p, torch.ones_like(p))


def through(function: Any) -> None:
    p = leaf()
    product(function.apply(X * p).pow(2).sum(), p)


def writes_gradients() -> None:
    p = leaf()
    product(Harmless.apply(X * p, leaf()).pow(2).sum(), p)


def third_derivative() -> None:
    p = leaf()
    x = torch.ones(1, 2, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.ones(2, 2, 3, dtype=torch.float64) * p
    out = F.conv_transpose1d(x * p, weight, stride=2, output_padding=1)
    product(torch.autograd.grad(out.pow(3).sum(), x, create_graph=True)[0].pow(2).sum(), p)


def wrong_derivative() -> None:
    p = leaf()
    differentiable_gradient(
        torch._weight_norm(X * p, torch.ones(len(X), 1, dtype=X.dtype), 0).pow(3).sum(), p
    )


def selective_checkpoint() -> None:
    context = functools.partial(create_selective_checkpoint_contexts, [torch.ops.aten.tanh.default])
    p = leaf()
    product(checkpoint(lambda t: t * t.tanh(), p, use_reentrant=False, context_fn=context).sum(), p)


def reentrant(p: Tensor) -> Tensor:
    found: Tensor = checkpoint(torch.sin, p, use_reentrant=True).sum()
    return found


def block_in_a_reentrant_checkpoint() -> None:
    p, q = leaf(), leaf()
    backward_with_columns((p * q).square().sum() + reentrant(p), [p, q], torch.ones_like(p))


CURVATURE: tuple[Callable[[], Any], ...] = (
    lambda: through(WithoutGrad),
    lambda: through(Overwriting),
    lambda: through(SlopeInForward),
    lambda: product(Norm.apply(X * (p := leaf()), X.exp()).pow(2).sum(), p),  # type: ignore[no-untyped-call]
    writes_gradients,
    third_derivative,
    wrong_derivative,
    selective_checkpoint,
    block_in_a_reentrant_checkpoint,
    lambda: gauss_newton_diagonal((p := leaf()).tanh().sum(), [p], None),
    lambda: gauss_newton_diagonal((p := leaf()).tanh().abs().sum(), [p], None),
    lambda: gauss_newton_diagonal((p := leaf()).square().sum() + reentrant(p), [p], None),
    lambda: gauss_newton_diagonal(Once.apply(p := leaf()).square().sum(), [p], None),
)
