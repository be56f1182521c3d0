"""Each operation alone, all or some of its inputs made from the due parameter, against torch's double backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sgdph_fx.curvature.forward_over_reverse import backward_with_product, coverage
from sgdph_fx.transform.filters import Filters, compose
from tests.products import LENGTH, Operation, activities, loss_of, product_by_torch

IMAGE = (2, 4, 5, 6)

pytestmark = pytest.mark.usefixtures("one_thread")


def _conv(name: str, **how: Any) -> Callable[..., Tensor]:
    return lambda x, w, b: getattr(F, name)(x, w, b, **how)


def _batch_norm(x: Tensor, w: Tensor | None = None, b: Tensor | None = None) -> Tensor:
    return F.batch_norm(x, None, None, w, b, training=True)


def _frozen_norm(x: Tensor, w: Tensor | None = None, b: Tensor | None = None) -> Tensor:
    mean, variance = torch.linspace(-1, 1, 4).double(), torch.linspace(0.5, 2, 4).double()
    return F.batch_norm(x, mean, variance, w, b, training=False)


def _dropout(x: Tensor) -> Tensor:
    torch.manual_seed(3)
    return F.dropout(x, 0.4)


def _entropy(x: Tensor) -> Tensor:
    return F.cross_entropy(x, torch.tensor([1, 0, 3]), weight=torch.tensor([1.0, 2.0, 0.5, 1.0]).double())


def _smooth_entropy(x: Tensor) -> Tensor:
    return F.cross_entropy(x, torch.tensor([1, -100, 3]), label_smoothing=0.2)


def _pixel_entropy(x: Tensor) -> Tensor:
    return F.cross_entropy(x, torch.arange(60).view(2, 5, 6) % 4)


def _attention(**how: Any) -> Callable[..., Tensor]:
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **how)


BIAS = torch.linspace(-2, 2, 15, dtype=torch.float64).view(5, 3)


CONVOLUTIONS: dict[str, Operation] = {
    "conv1d": (_conv("conv1d", stride=2), [(2, 3, 7), (4, 3, 3), (4,)]),
    "conv2d": (_conv("conv2d", padding=1, stride=2), [IMAGE, (3, 4, 3, 3), (3,)]),
    "conv2d pointwise, strided": (_conv("conv2d", stride=(2, 3)), [IMAGE, (3, 4, 1, 1), (3,)]),
    "conv2d pointwise, strided, grouped": (_conv("conv2d", stride=2, groups=2), [IMAGE, (6, 2, 1, 1), (6,)]),
    "conv2d pointwise, strided, padded": (_conv("conv2d", stride=2, padding=1), [IMAGE, (3, 4, 1, 1), (3,)]),
    "conv1d pointwise, strided": (_conv("conv1d", stride=2), [(2, 3, 6), (4, 3, 1), (4,)]),
    "conv2d dilated": (_conv("conv2d", dilation=2, padding=2), [IMAGE, (3, 4, 2, 3), (3,)]),
    "conv2d grouped": (_conv("conv2d", groups=2), [IMAGE, (6, 2, 3, 3), (6,)]),
    "conv2d depthwise": (_conv("conv2d", groups=4, padding=1), [IMAGE, (4, 1, 3, 3), (4,)]),
    "conv3d": (_conv("conv3d"), [(1, 2, 3, 4, 3), (2, 2, 2, 2, 2), (2,)]),
    "transposed": (_conv("conv_transpose2d", stride=2, output_padding=1), [IMAGE, (4, 3, 2, 2), (3,)]),
    "transposed grouped": (_conv("conv_transpose2d", groups=2), [IMAGE, (4, 3, 2, 2), (6,)]),
}
NORMS: dict[str, Operation] = {
    "batch norm": (_batch_norm, [IMAGE, (4,), (4,)]),
    "batch norm of vectors": (_batch_norm, [(6, 4), (4,), (4,)]),
    "batch norm without affine": (_batch_norm, [IMAGE]),
    "frozen batch norm": (_frozen_norm, [IMAGE, (4,), (4,)]),
    "frozen batch norm without affine": (_frozen_norm, [IMAGE]),
    "weight of direction and gain": (lambda v, g: compose(v, g, Filters()), [(4, 3, 2), (4,)]),
    "transposed weight of direction and gain": (
        lambda v, g: compose(v, g, Filters(transposed=True, groups=2)),
        [(4, 3, 2), (6,)],
    ),
    "group norm": (lambda x, w, b: F.group_norm(x, 2, w, b), [IMAGE, (4,), (4,)]),
    "group norm without affine": (lambda x: F.group_norm(x, 2), [IMAGE]),
    "instance norm": (lambda x, w, b: F.instance_norm(x, weight=w, bias=b), [IMAGE, (4,), (4,)]),
    "layer norm": (lambda x, w, b: F.layer_norm(x, (5, 6), w, b), [IMAGE, (5, 6), (5, 6)]),
    "layer norm without affine": (lambda x: F.layer_norm(x, (6,)), [IMAGE]),
    "RMS norm": (lambda x, w: F.rms_norm(x, (6,), w), [IMAGE, (6,)]),
    "RMS norm without weight": (lambda x: F.rms_norm(x, (5, 6)), [IMAGE]),
}
POINTWISE: dict[str, Operation] = {
    "relu": (F.relu, [IMAGE]),
    "relu in place": (lambda x: F.relu(x * 1, inplace=True), [IMAGE]),
    "leaky relu": (F.leaky_relu, [IMAGE]),
    "relu6": (F.relu6, [IMAGE]),
    "hardsigmoid": (F.hardsigmoid, [IMAGE]),
    "gelu": (F.gelu, [IMAGE]),
    "gelu tanh": (lambda x: F.gelu(x, approximate="tanh"), [IMAGE]),
    "silu": (F.silu, [IMAGE]),
    "sigmoid": (torch.sigmoid, [IMAGE]),
    "tanh": (torch.tanh, [IMAGE]),
    "exp": (torch.exp, [IMAGE]),
    "power": (lambda x: (x * x + 1) ** 1.5, [IMAGE]),
    "whole powers": (lambda x: x**3 + x**2 + x**1 + x**0 + (2 + x) ** -1, [IMAGE]),
    "powers of zero": (lambda x: sum((x - x.detach()) ** e for e in (0, 1, 2)), [IMAGE]),
    "square root": (lambda x: torch.sqrt(x * x + 1), [IMAGE]),
    "reciprocal of the root": (lambda x: torch.rsqrt(x * x + 1), [IMAGE]),
    "dropout": (_dropout, [IMAGE]),
    "masked fill": (lambda x: x.masked_fill(torch.eye(5, 6).bool(), 2.0), [IMAGE]),
    "negative, scaled": (lambda x: -x * 3 / 2 + 1 - 4, [IMAGE]),
}
ARITHMETIC: dict[str, Operation] = {
    "add": (torch.add, [IMAGE, (4, 1, 6)]),
    "add, scaled": (lambda a, b: torch.add(a, b, alpha=3), [IMAGE, IMAGE]),
    "subtract": (lambda a, b: torch.sub(a, b, alpha=2), [(4, 1, 1), IMAGE]),
    "multiply": (torch.mul, [IMAGE, (1, 4, 1, 1)]),
    "square": (lambda a: a * a, [IMAGE]),
    "divide": (lambda a, b: a / (b * b + 1), [IMAGE, (4, 1, 1)]),
    "linear": (F.linear, [(3, 5), (4, 5), (4,)]),
    "linear without bias": (F.linear, [(2, 3, 5), (4, 5)]),
    "addmm, scaled": (lambda b, x, w: torch.addmm(b, x, w, beta=2, alpha=3), [(4,), (3, 5), (5, 4)]),
    "bmm": (torch.bmm, [(2, 3, 4), (2, 4, 5)]),
    "softmax": (lambda x: torch.softmax(x, -1), [IMAGE]),
    "log softmax": (lambda x: torch.log_softmax(x, 1), [IMAGE]),
    "cross entropy": (_entropy, [(3, 4)]),
    "smoothed cross entropy": (_smooth_entropy, [(3, 4)]),
    "cross entropy of pixels": (_pixel_entropy, [IMAGE]),
    "attention": (_attention(), [(2, 2, 4, 4)] * 3),
    "attention to fewer": (_attention(scale=0.7), [(2, 2, 5, 4), (2, 2, 3, 4), (2, 2, 3, 4)]),
    "attention with a bias": (_attention(attn_mask=BIAS), [(2, 2, 5, 4), (2, 2, 3, 4), (2, 2, 3, 4)]),
    "masked attention": (_attention(attn_mask=BIAS > -0.1), [(1, 2, 5, 4), (1, 2, 3, 4), (1, 2, 3, 4)]),
    "causal attention": (_attention(is_causal=True), [(2, 2, 4, 4)] * 3),
    "causal attention to fewer": (_attention(is_causal=True), [(2, 2, 5, 4), (2, 2, 3, 4), (2, 2, 3, 4)]),
    "attention of groups": (_attention(enable_gqa=True), [(2, 4, 5, 4), (2, 2, 3, 4), (2, 2, 3, 4)]),
}
SHAPES: dict[str, Operation] = {
    "max pool": (lambda x: F.max_pool2d(x, 2), [IMAGE]),
    "max pool 1d": (lambda x: F.max_pool1d(x, 2), [(2, 4, 6)]),
    "max pool 3d": (lambda x: F.max_pool3d(x, 2), [(1, 2, 4, 4, 4)]),
    "overlapping max pool": (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), [IMAGE]),
    "average pool": (lambda x: F.avg_pool2d(x, 2, 1, 1, count_include_pad=False), [IMAGE]),
    "average pool 3d": (lambda x: F.avg_pool3d(x, 2), [(1, 2, 4, 4, 4)]),
    "adaptive average pool": (lambda x: F.adaptive_avg_pool2d(x, (2, 3)), [IMAGE]),
    "adaptive max pool": (lambda x: F.adaptive_max_pool2d(x, (2, 3)), [IMAGE]),
    "sums and means": (lambda x: x.sum() + x.mean() + x.sum(-1).mean((0, 2), keepdim=True), [IMAGE]),
    "flatten, view, squeeze": (lambda x: x.flatten(1).view(2, 1, -1).squeeze(1).unsqueeze(-1), [IMAGE]),
    "permute, transpose": (lambda x: x.permute(0, -1, 1, 2).transpose(-1, 1).contiguous()[0, 0].t(), [IMAGE]),
    "expand, repeat": (lambda x: x.expand(3, 4, 5).repeat(2, 1, 1, 1), [(4, 1)]),
    "slice, select": (lambda x: x[:, -1, 1:4:2].select(-1, -2), [IMAGE]),
    "chunk": (lambda x: torch.add(*x.chunk(2, 1)) * x.split([1, 3], 1)[1][:, :2], [IMAGE]),
    "unbind, stack": (lambda x: torch.stack([t * t for t in x.unbind(1)[:2]], -1), [IMAGE]),
    "concatenate": (lambda a, b: torch.cat([a, b, a], -3), [IMAGE, (2, 1, 5, 6)]),
    "concatenate with a constant": (lambda a: torch.cat([torch.ones(IMAGE).double(), a], 1), [IMAGE]),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 1)), [IMAGE]),
    "to another dtype and back": (lambda x: x.float().double(), [IMAGE]),
}
KNOWN = CONVOLUTIONS | NORMS | POINTWISE | ARITHMETIC | SHAPES


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return 3 * x * x * g


def _written_into(x: Tensor) -> Tensor:
    y = x * 2
    y[:, 1] = x[:, 0] ** 2
    y[:, 2:].mul_(x[:, :2])
    return y


UNKNOWN: dict[str, Operation] = {
    "power that varies": (lambda x: (x * x + 1) ** x, [IMAGE]),
    "softplus, elu": (lambda x: F.elu(F.softplus(x) - 1), [IMAGE]),
    "hypot of a value and what it makes": (lambda x: torch.hypot(x, x.cos() + 2), [IMAGE]),
    "hypot of a value with itself": (lambda x: torch.hypot(x + 3, x + 3), [IMAGE]),
    "hypot that broadcasts": (torch.hypot, [IMAGE, (4, 1, 1)]),
    "maximum, where": (lambda a, b: torch.maximum(a, torch.where(b > 0, a * b, b)), [IMAGE, IMAGE]),
    "gather": (lambda x: x.flatten(1).gather(1, torch.tensor([[0, 5, 5], [2, 1, 0]])), [IMAGE]),
    "upsampling": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), [IMAGE]),
    "written into": (_written_into, [IMAGE]),
    "einsum, norm": (lambda x, y: torch.einsum("ij,kj->ik", x, y) / x.norm(), [(3, 4), (2, 4)]),
    "custom function": (lambda x: Cube.apply(x) * x, [IMAGE]),
    "masked fill with a value": (
        lambda x, v: x.masked_fill(torch.eye(5, 6).bool(), v.reshape(())),
        [IMAGE, (1,)],
    ),
}


# torch has no second derivative of these under their own name.
WRITTEN_OUT: dict[Callable[..., Any], Callable[..., Any]] = {F.hardsigmoid: lambda x: F.relu6(x + 3) / 6}


CASES = [
    pytest.param(operation, active, id=f"{name}-{''.join('v' if a else '.' for a in active)}")
    for name, operation in (KNOWN | UNKNOWN).items()
    for active in activities(operation)
]


@pytest.mark.parametrize(("operation", "active"), CASES)
def test_the_product_is_torchs(operation: Operation, active: tuple[bool, ...]) -> None:
    torch.manual_seed(0)
    p, v = torch.randn(2, LENGTH, dtype=torch.float64).unbind()
    p = p.clone().requires_grad_()
    function, shapes = operation
    expected = product_by_torch(p, v, (WRITTEN_OUT.get(function, function), shapes), active)
    loss = loss_of(p, operation, active)
    (gradient,) = torch.autograd.grad(loss, p, retain_graph=True)
    found = backward_with_product(loss, p, v)
    assert found is not None
    assert p.grad is not None
    assert torch.equal(p.grad, gradient)
    assert not found.requires_grad
    # torch's hardsigmoid holds 1/6 in single precision.
    single = operation in (KNOWN["to another dtype and back"], KNOWN["hardsigmoid"])
    scale = max(expected.abs().max().item(), 1e-3)
    torch.testing.assert_close(found, expected, rtol=0, atol=(1e-6 if single else 1e-12) * scale)


@pytest.mark.parametrize("name", KNOWN)
def test_known_operations_do_not_fall_back(name: str) -> None:
    p = torch.randn(LENGTH, dtype=torch.float64, requires_grad=True)
    operation = KNOWN[name]
    fallbacks = set(coverage(loss_of(p, operation, (True,) * len(operation[1]))).fallbacks)
    assert not fallbacks - {"MvBackward0"}
