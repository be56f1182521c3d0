"""Losses that hold a gradient through layer or batch norm: products are those of finite differences in float64.

Torch's double backward is no oracle here: it takes mean and 1/σ for constants, or refuses.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sgdph_fx.curvature import product_by_double_backward
from sgdph_fx.curvature.forward_over_reverse import backward_with_product
from tests.torch_versions import differentiates_group_norm

pytestmark = pytest.mark.usefixtures("one_thread")

GENERATOR = torch.Generator().manual_seed(0)
ROWS = torch.randn(5, 4, dtype=torch.float64, generator=GENERATOR)
IMAGES = torch.randn(3, 2, 5, 5, dtype=torch.float64, generator=GENERATOR)


def dense(norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.Softplus(), norm, nn.Tanh(), nn.Linear(6, 1))


def convolutional(norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 6, 2), norm, nn.Softplus(), nn.Conv2d(6, 1, 2))


NETWORKS: dict[str, Callable[[], tuple[nn.Sequential, Tensor]]] = {
    "layer norm": lambda: (dense(nn.LayerNorm(6)), ROWS),
    "layer norm without affine": lambda: (dense(nn.LayerNorm(6, elementwise_affine=False)), ROWS),
    "layer norm of images": lambda: (convolutional(nn.LayerNorm([6, 4, 4])), IMAGES),
    "batch norm": lambda: (dense(nn.BatchNorm1d(6, momentum=0.0)), ROWS),
    "batch norm in evaluation": lambda: (dense(nn.BatchNorm1d(6)).eval(), ROWS),
    "batch norm of images": lambda: (convolutional(nn.BatchNorm2d(6, momentum=0.0)), IMAGES),
    "instance norm": lambda: (convolutional(nn.InstanceNorm2d(6, affine=True)), IMAGES),
}


def penalty(network: nn.Module, data: Tensor) -> Tensor:
    """How far the gradient by each example is from length one, as WGAN-GP has it."""
    x = data.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def by_differences(loss: Callable[[], Tensor], p: Tensor, v: Tensor) -> Tensor:
    def gradient(step: float) -> Tensor:
        with torch.no_grad():
            p.add_(v, alpha=step)
        (found,) = torch.autograd.grad(loss(), p)
        with torch.no_grad():
            p.sub_(v, alpha=step)
        return found

    return (gradient(1e-5) - gradient(-1e-5)) / 2e-5


def made(name: str) -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(1)
    network, data = NETWORKS[name]()
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0.2, 0.7)
    return network.double(), data


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("due", ["0.weight", "last.weight", "norm.weight", "norm.bias"])
def test_the_product_is_that_of_finite_differences(name: str, due: str) -> None:
    network, data = made(name)
    norm = next(m for m in network if "Norm" in type(m).__name__)
    p = {"0.weight": network[0].weight, "last.weight": network[-1].weight}.get(due)
    p = getattr(norm, due.split(".")[1]) if p is None else p
    if p is None:
        assert name == "layer norm without affine"
        return
    v = torch.linspace(-1, 1.3, p.numel(), dtype=torch.float64).view_as(p)
    expected = by_differences(lambda: penalty(network, data), p, v)
    found = backward_with_product(penalty(network, data), p, v)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_the_gradient_is_torchs_to_the_bit() -> None:
    network, data = made("layer norm")
    penalty(network, data).backward()  # type: ignore[no-untyped-call]
    expected = [p.grad for p in network.parameters()]
    network.zero_grad()
    backward_with_product(penalty(network, data), network[0].bias, torch.ones(6, dtype=torch.float64))
    for p, gradient in zip(network.parameters(), expected, strict=True):
        assert p.grad is gradient is None or torch.equal(p.grad, gradient)  # type: ignore[arg-type]


def test_exact_diagonals_are_right_as_well() -> None:
    network, data = made("batch norm")
    p = network[0].bias
    with product_by_double_backward(penalty(network, data), p) as product:
        assert product is not None
        for v in torch.eye(6, dtype=torch.float64):
            expected = by_differences(lambda: penalty(network, data), p, v)
            torch.testing.assert_close(product(v), expected, rtol=1e-6, atol=1e-7)


def test_inside_a_reentrant_checkpoint_the_statistics_are_followed_too() -> None:
    """The block holds a gradient itself, as networks of forces do."""
    network, data = made("layer norm")

    def force(x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
        return gradient

    p, v = network[0].bias, torch.linspace(-1, 1.3, 6, dtype=torch.float64)
    given = data.clone().requires_grad_()
    expected = by_differences(lambda: force(data).pow(3).sum(), p, v)
    loss = checkpoint(force, given * 1, use_reentrant=True).pow(3).sum()
    torch.testing.assert_close(backward_with_product(loss, p, v), expected, rtol=1e-6, atol=1e-7)


BIAS_ALONE: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = {
    "layer norm": (lambda x, b: F.layer_norm(x, (4,), None, b), ROWS),
    "layer norm over two": (lambda x, b: F.layer_norm(x, (2, 4), None, b.expand(2, 4)), ROWS[:4].view(2, 2, 4)),
    "batch norm": (lambda x, b: F.batch_norm(x, None, None, None, b, training=True), ROWS),
    "batch norm of images": (lambda x, b: F.batch_norm(x, None, None, None, b[:2], training=True), IMAGES),
    "batch norm in evaluation": (
        lambda x, b: F.batch_norm(x, ROWS[0].square(), ROWS[1].square() + 1, None, b), ROWS,
    ),
    "instance norm": (lambda x, b: F.instance_norm(x, bias=b[:2]), IMAGES),
    "group norm": (lambda x, b: F.group_norm(x, 2, None, b[:2]), IMAGES),
}  # fmt: skip


@pytest.mark.parametrize("again", ["as it is", "checkpointed", "checkpointed, reentrant"])
@pytest.mark.parametrize("name", BIAS_ALONE)
def test_the_bias_of_a_norm_without_weight_has_its_product(name: str, again: str) -> None:
    """Torch's own is zero. L = Σ c exp(y + b) has the Hessian diag(Σ c exp(y + b)) by b, summed over all but b."""
    norm, data = BIAS_ALONE[name]
    b = torch.tensor([0.3, -0.2, 0.1, 0.7], dtype=torch.float64, requires_grad=True)
    if name == "group norm" and not differentiates_group_norm():
        pytest.skip("this torch has not even a gradient of it that could be differentiated")
    c = torch.linspace(0.5, 2, data.numel(), dtype=torch.float64).view_as(data)

    def block(x: Tensor, b: Tensor) -> Tensor:
        return norm(x, b).exp()

    made = block(data, b)
    if again != "as it is":
        x = data.clone().requires_grad_()
        made = checkpoint(block, x, b, use_reentrant=again.endswith("reentrant"))
    by_sums = {4: lambda t: t.sum((0, 2, 3)), 3: lambda t: t.sum((0, 1)), 2: lambda t: t.sum(0)}[data.dim()]
    sums = by_sums((c * block(data, b)).detach())
    expected = F.pad(sums, (0, 4 - sums.numel())).diag()
    with product_by_double_backward((c * made).sum(), b) as product:
        assert product is not None
        found = torch.stack([product(v) for v in torch.eye(4, dtype=torch.float64)])
    torch.testing.assert_close(found, expected)
