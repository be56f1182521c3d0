"""Convolution classes with a forward of their own: what they do beside convolving is seen, where it can be."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgdph_fx import analyze, prepare
from sgdph_fx.plan.entries import ConvolutionEntry

BOTH_WAYS = pytest.mark.parametrize("recorded", [False, True], ids=["symbolic", "recorded"])


def entries(model: nn.Module, x: Tensor | None = None) -> dict[str, ConvolutionEntry]:
    return {entry.name: entry for entry in analyze(model, x).convolutions}


@BOTH_WAYS
def test_what_a_convolution_class_does_after_its_convolution_is_seen(recorded: bool) -> None:
    class Activated(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.gelu(super().forward(x))

    found = entries(
        nn.Sequential(Activated(3, 8, 3), nn.BatchNorm2d(8)), torch.rand(2, 3, 8, 8) if recorded else None
    )
    assert (found["0"].kind, found["0"].verdict, found["0"].decouple) == ("Activated", "bare", True)
    assert "to gelu" in found["0"].reason


@BOTH_WAYS
def test_a_class_that_computes_its_padding_counts_as_its_ancestor(recorded: bool) -> None:
    class SamePadding(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            missing = max((math.ceil(x.shape[-1] / 2) - 1) * 2 + 3 - x.shape[-1], 0)
            return super().forward(F.pad(x, [0, missing, 0, missing]))

    model = nn.Sequential(SamePadding(3, 8, 3, stride=2), nn.BatchNorm2d(8))
    found = entries(model, torch.rand(2, 3, 8, 8) if recorded else None)
    assert (found["0"].kind, found["0"].verdict) == ("SamePadding", "normalized")


class Backwards(nn.Conv2d):
    """Its weight the other way, as if it were a transposed convolution's."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.weight)


class Tied(nn.Module):
    """An autoencoder: the decoder has the weight of the encoder."""

    def __init__(self, decode: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder, self.norm, self.decode = nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), decode

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.norm(self.encoder(x)).relu(), self.encoder.weight)


@BOTH_WAYS
@pytest.mark.parametrize(
    ("build", "is_decoupled"),
    [
        (lambda: nn.Sequential(Backwards(4, 6, 3, bias=False), nn.GELU()), False),
        (lambda: Tied(F.conv_transpose2d), False),
        # The same numbers of the weight make a filter, in groups or not.
        (lambda: Tied(lambda y, weight: F.conv2d(y[:, :6].repeat(1, 2, 1, 1), weight, groups=2)), True),
    ],
    ids=["backwards", "tied", "in groups"],
)
def test_a_weight_of_which_a_function_takes_other_filters_is_left_as_it_is(
    build: Callable[[], nn.Module], is_decoupled: bool, recorded: bool
) -> None:
    torch.manual_seed(0)
    model, x = build().double().eval(), torch.rand(2, 6, 7, 7).double()
    prepared, _, report = prepare(model, x if recorded else None)
    (entry,) = report.plan.convolutions
    assert (entry.verdict, entry.decouple, entry.transposed) == ("bare", is_decoupled, False)
    assert ("conv_transpose2d takes other numbers of its weight" in entry.reason) is not is_decoupled
    assert any(name.endswith("gain") for name, _ in prepared.named_parameters()) is is_decoupled
    torch.testing.assert_close(prepared(x), model(x), rtol=1e-12, atol=0)


@BOTH_WAYS
def test_two_with_one_weight_are_each_known_by_their_own_calls(recorded: bool) -> None:
    class Own(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight, self.bias)

    first, second = Own(8, 8, 1), Own(8, 8, 1)
    second.weight = first.weight
    model = nn.Sequential(first, nn.Tanh(), second, nn.GELU())
    plan = analyze(model, torch.rand(2, 8, 4, 4) if recorded else None)
    assert [(entry.name, entry.weight) for entry in plan.convolutions] == [
        ("0", "0.weight"),
        ("2", "0.weight"),
    ]
    assert [
        word in entry.reason for entry, word in zip(plan.convolutions, ("to Tanh", "to GELU"), strict=True)
    ] == [
        True,
        True,
    ]
    assert [hint.code for hint in plan.hints] == []


class Noisy(nn.Linear):
    """torchrl's noisy layer: weight and bias are properties, the bias a mean and a spread times fixed noise."""

    def __init__(self, inputs: int, outputs: int) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = inputs, outputs
        self.mean = nn.Parameter(torch.randn(outputs, inputs))
        self.bias_mean = nn.Parameter(torch.zeros(outputs))
        self.bias_spread = nn.Parameter(torch.ones(outputs))
        self.register_buffer("noise", torch.randn(outputs))

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.mean

    @property
    def bias(self) -> Tensor:  # type: ignore[override]
        return self.bias_mean + self.bias_spread * self.noise


class Scaled(nn.Conv2d):
    """A convolution with a gain of its own, in a property."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3)
        self.raw, self.scale = nn.Parameter(self.weight.detach()), nn.Parameter(torch.ones(outputs, 1, 1, 1))
        del self.weight

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.raw * self.scale / 3


class LogScaled(nn.BatchNorm2d):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        del self.weight
        self.log_weight = nn.Parameter(torch.zeros(channels))

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.log_weight.exp()


@BOTH_WAYS
def test_what_properties_make_weights_and_biases_of_is_seen(recorded: bool) -> None:
    """Each number of a bias's mean and spread, of a gain and of a log-scale belongs to one channel of the output."""
    model = nn.Sequential(
        *(Scaled(3, 6), nn.ReLU(), Scaled(6, 6), LogScaled(6), nn.Flatten()),
        *(Noisy(96, 4), nn.ReLU(), nn.Linear(4, 2)),
    )
    plan = analyze(model, torch.rand(2, 3, 8, 8) if recorded else None)
    assert [(c.name, c.verdict, c.decouple) for c in plan.convolutions] == [
        ("0", "bare", False),
        ("2", "normalized", False),
    ]
    assert {p.name: (p.order, p.role) for p in plan.parameters} == {
        **dict.fromkeys(("0.raw", "2.raw", "5.mean", "7.weight"), (1, "weight")),
        **dict.fromkeys(("0.bias", "2.bias", "5.bias_mean", "5.bias_spread", "7.bias"), (2, "bias")),
        "0.scale": (2, "gain"),
        "2.scale": (2, "gain"),
        "3.log_weight": (2, "norm.weight"),
        "3.bias": (2, "norm.bias"),
    }
