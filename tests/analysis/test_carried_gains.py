"""Gains that layers written by hand carry already; the oracle scales them and looks at the layer's output channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgdph_fx import analyze

CHANNELS, WIDTH, SIZE = 6, 4, 3
BOTH_WAYS = pytest.mark.parametrize("recorded", [False, True], ids=["symbolic", "recorded"])

Call = Callable[[Tensor, Tensor, Tensor], Tensor]


class Written(nn.Module):
    """A layer as ``call`` writes it, of an input, a weight and a parameter that may be a gain."""

    def __init__(self, call: Call, gain: tuple[int, ...], weight: tuple[int, ...]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(weight, generator=generator))
        self.gain = nn.Parameter(torch.rand(gain, generator=generator) + 0.5)
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x, self.weight, self.gain)


def standardized(w: Tensor) -> Tensor:
    mean, var = w.mean((1, 2, 3), keepdim=True), w.var((1, 2, 3), keepdim=True)
    return (w - mean) / (var + 1e-5).sqrt()


def as_nfnets_do(x: Tensor, w: Tensor, g: Tensor) -> Tensor:
    var, mean = torch.var_mean(w, dim=(1, 2, 3), keepdim=True)
    scale = torch.rsqrt(torch.clamp(var * WIDTH * SIZE**2, min=1e-4)) * g.view_as(var)
    return F.conv2d(x, w * scale - mean * scale)


def by_batch_norm(x: Tensor, w: Tensor, g: Tensor) -> Tensor:
    flat = w.reshape(1, CHANNELS, -1)
    return F.conv2d(x, F.batch_norm(flat, None, None, weight=g.view(-1), training=True).reshape_as(w))


def flattened(x: Tensor, w: Tensor, g: Tensor) -> Tensor:
    flat = w.view(CHANNELS, -1)
    return F.conv2d(x, (g[:, None] * F.normalize(flat, dim=1)).view(w.size()))


def shifted_in_place(x: Tensor, w: Tensor, g: Tensor) -> Tensor:
    made = w * g
    made += 1
    return F.conv2d(x, made)


KERNEL = (CHANNELS, WIDTH, SIZE, SIZE)
COLUMN = (CHANNELS, 1, 1, 1)
CASES: Mapping[str, tuple[Call, tuple[int, ...], tuple[int, ...]]] = {
    "standardized": (lambda x, w, g: F.conv2d(x, standardized(w) * g), COLUMN, KERNEL),
    "a vector": (lambda x, w, g: F.conv2d(x, g.view(-1, 1, 1, 1) * standardized(w)), (CHANNELS,), KERNEL),
    "an NFNet's": (as_nfnets_do, COLUMN, KERNEL),
    "by batch norm": (by_batch_norm, COLUMN, KERNEL),
    "flattened": (flattened, (CHANNELS,), KERNEL),
    "divided": (lambda x, w, g: F.conv2d(x, w * g / w.norm()), COLUMN, KERNEL),
    "of groups": (lambda x, w, g: F.conv2d(x, w * g, groups=2), COLUMN, (CHANNELS, WIDTH // 2, SIZE, SIZE)),
    "transposed": (
        lambda x, w, g: F.conv_transpose2d(x, w * g),
        (1, CHANNELS, 1, 1),
        (WIDTH, CHANNELS, SIZE, SIZE),
    ),
    "linear": (lambda x, w, g: F.linear(x, w * g[:, None]).transpose(1, 3), (CHANNELS,), (CHANNELS, 9)),
    "of the input's channels": (lambda x, w, g: F.conv2d(x, w * g), (1, WIDTH, 1, 1), KERNEL),
    "of places": (lambda x, w, g: F.conv2d(x, w * g), (1, 1, SIZE, SIZE), KERNEL),
    "added": (lambda x, w, g: F.conv2d(x, w + g), COLUMN, KERNEL),
    "squared": (lambda x, w, g: F.conv2d(x, w * (g * g)), COLUMN, KERNEL),
    "an exponent": (lambda x, w, g: F.conv2d(x, w * g.exp()), COLUMN, KERNEL),
    "its inverse": (lambda x, w, g: F.conv2d(x, w / g), COLUMN, KERNEL),
    "beside a constant": (lambda x, w, g: F.conv2d(x, w * g + 1.0), COLUMN, KERNEL),
    "beside the weight": (lambda x, w, g: F.conv2d(x, w * g + w), COLUMN, KERNEL),
    "shifted in place": (shifted_in_place, COLUMN, KERNEL),
    "reversed and added": (lambda x, w, g: F.conv2d(x, w * g + w * g.flip(0)), COLUMN, KERNEL),
    "of half of the filters": (
        lambda x, w, g: F.conv2d(x, w * g.repeat(2, 1, 1, 1)),
        (CHANNELS // 2, 1, 1, 1),
        KERNEL,
    ),
    "transposed, of the wrong side": (
        lambda x, w, g: F.conv_transpose2d(x, w * g),
        (CHANNELS, 1, 1, 1),
        (CHANNELS, CHANNELS, SIZE, SIZE),
    ),
    "normalized away": (lambda x, w, g: F.conv2d(x, standardized(w * g)), COLUMN, KERNEL),
}


def scales_channels(layer: Written, x: Tensor) -> bool:
    """Whether each output channel is multiplied by what one number of the parameter is multiplied by."""
    generator = torch.Generator().manual_seed(1)
    factors = torch.rand(layer.gain.numel(), generator=generator, dtype=torch.float64) + 1
    before = layer(x)
    layer.gain.data.mul_(factors.view_as(layer.gain))
    after = layer(x)
    layer.gain.data.div_(factors.view_as(layer.gain))
    return factors.numel() == before.shape[1] and torch.allclose(before * factors.view(-1, 1, 1), after)


@BOTH_WAYS
@pytest.mark.parametrize("case", CASES)
def test_what_scales_the_output_channels_is_a_gain(case: str, recorded: bool) -> None:
    layer = Written(*CASES[case]).double()
    inputs = torch.randn(2, layer.weight.shape[0] if "wrong" in case else WIDTH, 9, 9, dtype=torch.float64)
    plan = analyze(nn.Sequential(layer, nn.ReLU()), inputs if recorded else None)
    found = {entry.name: entry for entry in plan.parameters}["0.gain"]
    assert (found.order == 2) is scales_channels(layer, inputs)
    if found.order == 2:
        assert found.role == "gain"
        assert "carries, one number for each output channel" in found.reason


class AlsoOnData(Written):
    """Uses the gain a second time, on the result."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.gain).exp() * self.gain.sum()


@BOTH_WAYS
def test_a_parameter_that_does_more_is_no_gain(recorded: bool) -> None:
    model = AlsoOnData(lambda x, w, g: x, COLUMN, KERNEL)
    plan = analyze(model, torch.randn(2, WIDTH, 9, 9) if recorded else None)
    assert {entry.name: entry.order for entry in plan.parameters} == {"weight": 1, "gain": 1}


@pytest.mark.parametrize("weight", [(CHANNELS, 1), (CHANNELS, WIDTH)], ids=["one input", "several"])
def test_a_weight_of_its_own_is_no_gain(weight: tuple[int, int]) -> None:
    model = Written(lambda x, w, g: F.linear(x, g) * w.sum(), weight, (3,))
    (entry,) = (entry for entry in analyze(model).parameters if entry.name == "gain")
    assert (entry.order, entry.role) == (1, "weight")
