"""Convolutions whose weight is computed: each call has an entry, and what can be decoupled is.

A gain on a parameter is a gain on the filters where the weight is a constant multiple of it, and nowhere else. The
expectations follow from the formula that each model's forward writes out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.layers import CondConv2d
from torch import Tensor, nn

from sgdph_fx import analyze, prepare, restore
from sgdph_fx.plan.entries import ConvolutionEntry

BOTH_WAYS = pytest.mark.parametrize("recorded", [False, True], ids=["symbolic", "recorded"])


class Scaled(nn.Module):
    """Equalized learning rate: the weight times a constant of any kind."""

    def __init__(self, scale: object, multiply: Callable[[Tensor, object], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 3, 3, 3))
        if isinstance(scale, Tensor):
            self.register_buffer("scale", scale)
        else:
            self.scale = scale
        self.multiply = multiply

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.multiply(self.weight, self.scale), padding=1)


MULTIPLES: dict[str, tuple[object, Callable[[Tensor, object], Tensor]]] = {
    "a number": (0.2, lambda w, s: w * s),
    "a number first": (0.2, lambda w, s: s * w),
    "one of NumPy's": (np.sqrt(0.1), lambda w, s: w * s),
    "a negative one": (-3.0, lambda w, s: w * s),
    "minus": (None, lambda w, s: -w),
    "a quotient": (math.sqrt(27), lambda w, s: w / s),
    "a quotient by another name": (math.sqrt(27), torch.true_divide),
    "a buffer": (torch.tensor(0.3), lambda w, s: (s * w).to(w.dtype)),
    "one for each filter": (torch.arange(1.0, 9).view(8, 1, 1, 1), lambda w, s: w * s),
    "one for each row of a view": (
        torch.arange(1.0, 9),
        lambda w, s: (w.flatten(1) * s.sqrt()[:, None]).view(8, 3, 3, 3),  # type: ignore[attr-defined]
    ),
    "a mask": (torch.ones(3, 3).tril(), lambda w, s: w * s),
    "a computed constant": (torch.tensor(4.0), lambda w, s: w * torch.sqrt(s)),
    "a method": (0.5, lambda w, s: w.mul(s).contiguous()),
}


@BOTH_WAYS
@pytest.mark.parametrize(("scale", "multiply"), MULTIPLES.values(), ids=MULTIPLES)
def test_a_constant_multiple_is_decoupled(
    scale: object, multiply: Callable[[Tensor, object], Tensor], recorded: bool
) -> None:
    model, x = Scaled(scale, multiply), torch.rand(2, 3, 6, 6)
    before = model(x)
    prepared, _, report = prepare(model, x if recorded else None)
    (entry,) = report.plan.convolutions
    assert (entry.weight, entry.verdict, entry.decouple) == ("weight", "bare", True)
    torch.testing.assert_close(prepared(x), before, rtol=0, atol=1e-5)
    with torch.no_grad():
        prepared.gain[1] *= 2  # the second channel, and no other
    torch.testing.assert_close(prepared(x)[:, 1], 2 * before[:, 1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(prepared(x)[:, 2:], before[:, 2:], rtol=0, atol=1e-5)
    assert list(restore(prepared).state_dict()) == list(model.state_dict())


@BOTH_WAYS
def test_scaled_weights_before_and_without_a_norm(recorded: bool) -> None:
    class Equalized(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, channels, 3, 3))
            self.bias = nn.Parameter(torch.zeros(8))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight * 0.1, self.bias, padding=1)

    model = nn.Sequential(Equalized(3), nn.ReLU(), Equalized(8), nn.BatchNorm2d(8))
    plan = analyze(model, torch.rand(2, 3, 8, 8) if recorded else None)
    assert {e.weight: e.verdict for e in plan.convolutions} == {"0.weight": "bare", "2.weight": "normalized"}
    assert [(hint.code, hint.where) for hint in plan.hints] == [("absorbed-bias", "2.bias")]


class Widened(nn.Module):
    """A constant that makes two filters of one: a gain on the parameter would be one on both."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, 3, 3, 3))
        self.register_buffer("signs", torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.signs)


class Modulated(nn.Module):
    """StyleGAN2's: the style scales input channels, then each filter is normalized."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, 8, 3, 3, 3))
        self.style = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        weight = 0.1 * self.weight * self.style(x.mean((2, 3))).view(b, 1, c, 1, 1)
        weight = weight * torch.rsqrt(weight.pow(2).sum([2, 3, 4], keepdim=True) + 1e-8)
        out = F.conv2d(x.reshape(1, b * c, h, w), weight.view(-1, c, 3, 3), padding=1, groups=b)
        return out.view(b, -1, h, w)


class Routed(nn.Module):
    """timm's CondConv: each image convolves by its own mixture of four kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.conv = nn.Linear(3, 4), CondConv2d(3, 8, 3, num_experts=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, torch.sigmoid(self.router(x.mean((2, 3)))))


class Standardized(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / torch.sqrt(w.var((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, w, self.bias)


class StandardizedByBatchNorm(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        w = F.batch_norm(self.weight.reshape(1, self.out_channels, -1), None, None, training=True)
        return F.conv2d(x, w.reshape_as(self.weight), self.bias)


class Quantized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.fake_quantize_per_tensor_affine(self.conv.weight, 0.1, 0, -128, 127)
        return F.conv2d(x, weight, self.conv.bias)


class Binary(nn.Conv2d):
    """Signs forward, the identity backward."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight + (self.weight.sign() - self.weight).detach())


class Adapted(nn.Module):
    """LoRA: a low-rank product on top of the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.a, self.b = nn.Parameter(torch.randn(2, 27)), nn.Parameter(torch.zeros(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.conv.weight + (self.b @ self.a).view(8, 3, 3, 3))


class Generated(nn.Module):
    """A hypernetwork makes the weight of an embedding of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Parameter(torch.randn(1, 6))
        self.hyper = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8 * 27))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.hyper(self.code).view(8, 3, 3, 3))


KEPT: dict[str, tuple[Callable[[], nn.Module], str, str, str]] = {
    "widened": (Widened, "weight", "weight", "other filters"),
    "modulated": (Modulated, "weight", "weight", "computed from weight by mul"),
    "routed": (Routed, "conv", "conv.weight", "computed from conv.weight by matmul"),
    "standardized": (lambda: Standardized(3, 8, 3), "", "weight", "computed from weight by div, sub"),
    "standardized by a norm": (
        lambda: StandardizedByBatchNorm(3, 8, 3), "", "weight", "computed from weight by batch_norm",
    ),
    "quantized": (Quantized, "conv", "conv.weight", "by fake_quantize_per_tensor_affine"),
    "binary": (lambda: Binary(3, 8, 3), "", "weight", "computed from weight by add"),
    "adapted": (Adapted, "conv", "conv.weight", "computed from conv.weight by add"),
    "generated": (Generated, "hyper.2", "hyper.2.weight", "computed from hyper.2.weight by Linear"),
}  # fmt: skip


@BOTH_WAYS
@pytest.mark.parametrize(("build", "name", "weight", "why"), KEPT.values(), ids=KEPT)
def test_what_cannot_be_decoupled_is_kept_with_the_reason(
    build: Callable[[], nn.Module], name: str, weight: str, why: str, recorded: bool
) -> None:
    model, x = build(), torch.rand(2, 3, 8, 8)
    plan = analyze(model, x if recorded else None)
    (entry,) = plan.convolutions
    assert (entry.name, entry.weight, entry.verdict, entry.decouple) == (name, weight, "bare", False)
    assert why in entry.reason
    assert "never-called" not in {hint.code for hint in plan.hints}
    orders = {p.name: (p.order, p.role) for p in plan.parameters}
    assert orders[weight] == (1, "weight")


def entries(model: nn.Module, x: Tensor | None = None) -> dict[str, ConvolutionEntry]:
    return {entry.name: entry for entry in analyze(model, x).convolutions}


@BOTH_WAYS
def test_a_kernel_cut_from_features_has_an_entry_and_no_parameter(recorded: bool) -> None:
    class Correlation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(self.features(x), self.features(x[:1, :, :5, :5]))

    found = entries(Correlation(), torch.rand(2, 3, 8, 8) if recorded else None)
    assert found.keys() == {"features", "conv2d"}
    assert (found["conv2d"].weight, found["conv2d"].decouple) == ("", False)
    assert "no parameter is behind it" in found["conv2d"].reason
    assert found["features"].decouple
