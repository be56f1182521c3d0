"""Norms and activations that derive from torch's and compute something else: what they compute counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgdph_fx import Config, analyze, prepare

X = torch.randn(3, 3, 6, 6)


class WithActivation(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(super().forward(x))


class AlwaysFrozen(nn.BatchNorm2d):
    """As segmentation networks fix their norms: trained statistics, in training too."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


class FrozenByHand(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


class ByHand(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True)
        return (x - mean) / (variance + self.eps).sqrt() * self.weight[:, None, None] + self.bias[
            :, None, None
        ]


class ActsBefore(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.gelu(x))


class RectifiesBefore(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.relu(x))


class Skips(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x


class Off(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return x


class ByShape(nn.BatchNorm2d):
    """What cannot be run on placeholders counts as what it derives from."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return super().forward(x.reshape(n, c, h * w, 1)).reshape(n, c, h, w)


class InTheMiddle(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NotReally(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x)


class Mixes(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return x + x.roll(1, 1)


class Gates(nn.AdaptiveAvgPool2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sigmoid() * x


class Scales(nn.Identity):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x


Network = Callable[[], nn.Module]
NORMALIZED: dict[str, Network] = {
    "with an activation behind": lambda: WithActivation(4),
    "by hand": lambda: ByHand(4),
    "relu before": lambda: RectifiesBefore(4),
    "by shape": lambda: ByShape(4),
    "identity that scales": lambda: nn.Sequential(Scales(), nn.BatchNorm2d(4)),
}
BARE: dict[str, Network] = {
    "always frozen": lambda: AlwaysFrozen(4),
    "frozen by hand": lambda: FrozenByHand(4),
    "gelu before": lambda: ActsBefore(4),
    "skip": lambda: Skips(4),
    "off": lambda: Off(4),
    "gelu called relu": lambda: nn.Sequential(NotReally(), nn.BatchNorm2d(4)),
    "dropout that mixes": lambda: nn.Sequential(Mixes(), nn.BatchNorm2d(4)),
    "pool that gates": lambda: nn.Sequential(Gates(1), nn.BatchNorm2d(4)),
}


@pytest.mark.parametrize("inputs", [None, X], ids=["symbolic", "recorded"])
@pytest.mark.parametrize("name", [*NORMALIZED, *BARE])
def test_verdict_is_that_of_what_is_computed(name: str, inputs: Tensor | None) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), (NORMALIZED | BARE)[name]()).double()
    assert _changes_with_a_gain(model) == (name in BARE)
    if name == "by shape" and inputs is None:
        return  # its sizes are taken apart, which only a run allows
    (row,) = analyze(model, inputs if inputs is None else inputs.double()).convolutions
    assert row.verdict == ("bare" if name in BARE else "normalized"), row.reason


class OfRows(nn.LayerNorm): ...


@pytest.mark.parametrize("inputs", [None, X], ids=["symbolic", "recorded"])
@pytest.mark.parametrize(
    ("make", "absorbs"),
    [(lambda: OfRows([4, 4]), True), (lambda: nn.LayerNorm([4, 4]), True), (lambda: InTheMiddle(4), False)],
)
def test_a_layer_norm_with_torch_s_own_forward_is_known(
    inputs: Tensor | None, make: Network, absorbs: bool
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), make())
    (row,) = analyze(model, inputs, config=Config("absorbing")).convolutions
    assert row.verdict == ("normalized" if absorbs else "bare"), row.reason
    assert _changes_with_a_gain(model.double()) is not absorbs


def _changes_with_a_gain(model: nn.Sequential) -> bool:
    """The numerical truth: whether a positive number for each filter changes what the model computes in training."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.LayerNorm):
            norm.eps = 1e-20
    gains = torch.tensor([0.2, 0.5, 2.0, 4.0], dtype=torch.double)
    before = model(X.double())
    with torch.no_grad():
        model[0].weight *= gains[:, None, None, None]
        model[0].bias *= gains
    return not torch.allclose(before, model(X.double()), atol=1e-6)


@pytest.mark.parametrize("inputs", [None, X], ids=["symbolic", "recorded"])
def test_scales_of_derived_norms_are_second_order_and_a_layer_norm_may_turn_its_input(
    inputs: Tensor | None,
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), InTheMiddle(4), nn.Conv2d(4, 4, 1), AlwaysFrozen(4))
    prepared = prepare(model, inputs)
    plan = prepared.report.plan
    assert {row.name: (row.verdict, row.norm) for row in plan.convolutions} == {
        "0": ("normalized", "1"),
        "2": ("bare", None),
    }
    reasons = [row.reason for row in plan.convolutions]
    assert "to InTheMiddle 1" in reasons[0]
    assert "to AlwaysFrozen 3, which is frozen" in reasons[1]
    roles = {entry.name: (entry.order, entry.role) for entry in plan.parameters}
    assert {name: roles[name] for name in ("1.weight", "3.bias")} == {
        "1.weight": (2, "norm.weight"),
        "3.bias": (2, "norm.bias"),
    }
    assert torch.allclose(prepared.model(X), model(X), atol=1e-5)
    assert "_check_input_dim" not in vars(model[3])


def test_a_class_that_was_registered_stays_what_it_was_registered_as() -> None:
    from sgdph_fx import register_norm
    from sgdph_fx.rules.modules import MODULES

    register_norm(ActsBefore, statistics="batch")
    try:
        (row,) = analyze(nn.Sequential(nn.Conv2d(3, 4, 3), ActsBefore(4)), X).convolutions
    finally:
        del MODULES[ActsBefore]
    assert row.verdict == "normalized"
