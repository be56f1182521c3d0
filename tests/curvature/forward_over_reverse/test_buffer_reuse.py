"""Tangents are written over where nobody reads them again, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sgdph_fx.curvature import block_product, differentiable_gradient
from sgdph_fx.curvature.forward_over_reverse import backward_with_product
from sgdph_fx.curvature.forward_over_reverse.buffer_reuse import owned_results
from sgdph_fx.curvature.forward_over_reverse.fallback import FALLBACK
from sgdph_fx.curvature.forward_over_reverse.registry import RULES

X = torch.randn(4, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
W = torch.randn(3, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def norm(x: Tensor, p: Tensor | None = None) -> Tensor:
    return F.batch_norm(x, None, None, p, None, training=True)


def conv(x: Tensor) -> Tensor:
    return F.conv2d(x, W, padding=1)


def late(x: Tensor) -> Tensor:
    """A second reader whose turn comes after everything before it."""
    return conv(conv(x)).tanh()


# What each makes of z, which depends on p; z's tangent or its gradient's has more than one reader in all of them.
SHARED: dict[str, Callable[[Tensor], Tensor]] = {
    "a chain, which nobody shares": lambda z: norm(F.relu(conv(z))),
    "two activations": lambda z: F.relu(z) * late(z),
    "an activation first, a norm later": lambda z: norm(z) + late(F.relu(z)),
    "a sum with itself": lambda z: F.relu(z + z),
    "a sum with itself, scaled": lambda z: F.relu(torch.sub(z, z, alpha=3)),
    "a sum, then one of its terms": lambda z: (conv(z) + z) * F.relu(z),
    "two sums of the same": lambda z: F.relu(conv(z) + z) * (z + late(z)),
    "a residual block": lambda z: F.relu(norm(conv(F.relu(norm(conv(z))))) + z),
    "a residual block and its shortcut": lambda z: F.relu(norm(conv(F.relu(z))) + norm(conv(z))),
    "a view and its base": lambda z: F.relu(z.flatten(1)).view_as(z) * late(z),
    "a view whose base is read first": lambda z: F.relu(z) * late(z.transpose(2, 3)),
    "halves": lambda z: torch.cat([F.relu(z[:, :1]), z[:, 1:] + z[:, :2]], 1),
    "all thirds": lambda z: torch.stack([F.relu(z[:, 0]), z[:, 1].tanh(), z[:, 2].exp() * z[:, 0]], 1),
    "a third twice, and the whole": lambda z: (F.relu(z[:, 1]) * z[:, 1].tanh())[:, None] + late(z),
    "parts of parts": lambda z: (
        z * (z[1:, ::2].tanh().mean() + F.relu(z[0:3, 1, -1] * z[1:, 0, 1].exp()).sum())
    ),
    "parts of a clone": lambda z: late(z) + torch.cat([F.relu(y := z.clone())[:2], y[2:].tanh() * y[:2]]),
    "half and whole": lambda z: F.relu(z.split(2)[0]).repeat(2, 1, 1, 1) * F.relu(z),
    "broadcast": lambda z: F.relu(z.mean((2, 3), keepdim=True) + X),
    "broadcast, first of two": lambda z: F.relu(z.mean((2, 3), keepdim=True) + z),
    "clones": lambda z: F.relu(z.clone()) * late(z),
    "a smooth chain, which nobody shares": lambda z: norm(F.gelu(conv(F.silu(conv(z))))),
    "two smooth activations": lambda z: F.gelu(z) * late(z) * torch.sigmoid(z),
    "a smooth activation of a view": lambda z: F.gelu(z.flatten(1)).view_as(z) * z,
    "a smooth activation of a sum": lambda z: F.gelu(conv(z) + z) * F.relu(z),
    "a smooth activation of a sum with itself": lambda z: F.gelu(z + z).exp(),
    "a smooth activation of a clone": lambda z: F.gelu(z.clone()) * z.transpose(2, 3),
    "products of matrices": lambda z: F.gelu(z.flatten(0, 2) @ X[0, 0] @ X[0, 1]).view_as(z) * z,
    "layer norms": lambda z: F.gelu(F.layer_norm(F.gelu(F.layer_norm(z, (5,))) + z, (5,))),
    "in place": lambda z: F.relu_(conv(z)) * late(z),
    "windows that overlap, as many as their base": lambda z: (
        z * z.tanh().flatten()[:24].clone().view(6, 4).unfold(0, 3, 2).pow(3).sum()
    ),
    "a norm read twice": lambda z: F.relu(norm(z)) * norm(z) + norm(norm(z)),
    "one value to two norms": lambda z: norm(z) * norm(z + 0 * X).exp(),
}


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("over", ["gain", "bias"])
def test_the_product_is_torchs_whoever_else_reads_a_tangent(name: str, over: str) -> None:
    p = torch.tensor([1.5, -0.5, 0.75], dtype=torch.float64, requires_grad=True)

    def loss() -> Tensor:
        z = conv(norm(conv(X), p)) if over == "gain" else conv(F.conv2d(X, W, p, padding=1).tanh())
        return SHARED[name](z).square().mul(X.flatten()[: z[0].numel()].view_as(z[0])).mean()

    v = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    gradient = differentiable_gradient(loss(), p)
    assert gradient is not None
    expected = block_product(gradient, p)(v)
    assert expected.abs().max() > 1e-6
    found = backward_with_product(loss(), p, v)
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)
    assert v.tolist() == [1.0, -2.0, 0.5]


def test_a_layer_norm_that_has_a_bias_alone_leaves_the_biass_tangent_as_it_is() -> None:
    """torch cannot differentiate it twice, but the same as two operations."""
    p, v = torch.tensor([[1.5], [-0.5]], dtype=torch.float64), torch.tensor([[1.0], [2.0]]).double()

    def loss(gain: Tensor, whole: bool) -> Tensor:
        z = (X.flatten()[:10].view(2, 5) * gain).tanh()
        bias = z.square().sum(0)
        out = F.layer_norm(z, (5,), None, bias) if whole else F.layer_norm(z, (5,)) + bias
        return out.exp().sum()

    found, expected = (
        backward_with_product(loss(leaf, whole), leaf, v)
        for leaf, whole in ((p.clone().requires_grad_(), True), (p.clone().requires_grad_(), False))
    )
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


class Tagged(Tensor):
    """A subclass."""


RELU = RULES["ReluBackward0"]


def test_a_result_in_memory_of_its_own_is_owned() -> None:
    assert owned_results(RELU, [torch.ones(3)], [torch.ones(3)], [False]) == [True]


def test_a_result_in_a_spare_tangents_memory_is_owned() -> None:
    t = torch.ones(2, 3)
    assert owned_results(RELU, [t.view(6)], [t], [True]) == [True]


@pytest.mark.parametrize(
    ("made", "given"),
    [
        ([None], [None]),
        ([(t := torch.ones(3))], [t]),
        ([t.view(3, 1)], [t]),
        ([t, t], [None]),
        ([torch.ones(1).expand(3)], [None]),
        ([torch.ones(6, 4).unfold(0, 3, 2)], [None]),
        ([torch.ones(6)[:3]], [None]),
        ([torch.ones(3).as_subclass(Tagged)], [None]),
        ([torch.ones(3)], [torch.ones(3).as_subclass(Tagged)]),
    ],
    ids=[
        "none",
        "a tangent itself",
        "a view of one",
        "one result twice",
        "spread",
        "windows that overlap",
        "a part",
        "of a subclass",
        "from a subclass",
    ],
)
def test_whatever_else_is_not(made: list[Tensor | None], given: list[Tensor | None]) -> None:
    assert not any(owned_results(RELU, made, given, [False] * len(given)))


def test_rules_that_may_give_away_what_others_hold_own_nothing() -> None:
    assert owned_results(FALLBACK, [torch.ones(3)], [None], [False]) == [False]


def test_a_chain_takes_no_memory_for_its_activations() -> None:
    """A ReLU writes over the tangent that a convolution handed it, there and back."""
    p = torch.ones(3, dtype=torch.float64, requires_grad=True)
    loss = F.relu(conv(F.relu(F.conv2d(X, W, p, padding=1)))).square().sum()
    with _Taken() as taken:
        backward_with_product(loss, p, torch.ones_like(p))
    # Of six, two are the gradient's own, and forward the first gets the bias, spread over the image: the other
    # three are handed what a convolution or the square made.
    assert taken.shapes.count(X.shape) == 3


class _Taken(torch.utils._python_dispatch.TorchDispatchMode):
    """The results of ``threshold_backward`` that it did not write into a tensor it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[torch.Size] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.threshold_backward.default:
            self.shapes.append(out.shape)
        return out
