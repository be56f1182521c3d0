"""Norms of other libraries, by name, and what each does to a gain, against numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.layers import evo_norm, filter_response_norm
from torch import Tensor, nn

from sgdph_fx import Config, analyze, register_norm
from sgdph_fx.rules.kinds import Norm
from sgdph_fx.rules.modules import MODULES, rule_of
from tests.zoo.oracle import absorbs

_GROUPED = ("S0", "S0a", "S1", "S1a", "S2", "S2a")
_EVO = {f"EvoNorm2d{series}": {} for series in ("B0", "B1", "B2")} | {
    f"EvoNorm2d{series}": {"groups": 2} for series in _GROUPED
}


def _build(name: str) -> nn.Module:
    made: nn.Module = getattr(evo_norm, name)(4, **_EVO[name])
    return made


NORMS: dict[str, Callable[[], nn.Module]] = {
    **{name: (lambda name=name: _build(name)) for name in _EVO},  # type: ignore[misc]
    "FilterResponseNormTlu2d": lambda: filter_response_norm.FilterResponseNormTlu2d(4),
    "FilterResponseNormAct2d": lambda: filter_response_norm.FilterResponseNormAct2d(4),
}


class Net(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_with_an_activation_inside_is_a_norm(name: str) -> None:
    torch.manual_seed(0)
    model, x = Net(NORMS[name]()), torch.randn(3, 3, 6, 6)
    for inputs in (None, x):
        plan = analyze(model, inputs)
        assert [(e.verdict, e.norm) for e in plan.convolutions] == [("normalized", "norm")]
        # None of them subtracts a mean, so no bias is absorbed.
        assert plan.hints == ()
        assert {p.order for p in plan.parameters if p.name.startswith("norm.")} == {2}
        roles = {p.name: p.role for p in plan.parameters}
        assert (roles["norm.weight"], roles["norm.bias"]) == ("norm.weight", "norm.bias")
        assert {roles.get("norm.tau"), roles.get("norm.v")} <= {None, "activation"}
    absorbing = analyze(model, x, config=Config("absorbing")).convolutions[0].verdict
    assert (absorbing == "normalized") is absorbs(model, "conv", (x,))


def test_an_evo_norm_without_its_activation_takes_no_statistics() -> None:
    model = Net(evo_norm.EvoNorm2dB0(4, apply_act=False))
    assert [e.verdict for e in analyze(model).convolutions] == ["bare"]
    assert not absorbs(model, "conv", (torch.randn(3, 3, 6, 6),))


class LlamaRMSNorm(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class FilterResponseNorm2d(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        shape = 1, channels, 1, 1
        self.gamma, self.beta = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))
        self.tau, self.eps = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.tensor([1e-6]))

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(x.pow(2).mean((2, 3), keepdim=True) + self.eps.abs())
        return torch.max(self.gamma * x + self.beta, self.tau)


class FrozenBatchNorm2d(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.view(1, -1, 1, 1)


def test_norms_that_are_copied_around_are_known_by_their_class_name() -> None:
    plan = analyze(Net(FilterResponseNorm2d(4)), torch.randn(2, 3, 6, 6))
    assert plan.convolutions[0].verdict == "normalized"
    assert {p.name: (p.role, p.order) for p in plan.parameters if p.name.startswith("norm.")} == {
        "norm.gamma": ("norm.weight", 2),
        "norm.beta": ("norm.bias", 2),
        "norm.tau": ("activation", 2),
        "norm.eps": ("other", 1),  # one number for all channels
    }
    tokens = nn.Sequential(nn.Conv1d(3, 4, 3), nn.Flatten(1), LlamaRMSNorm(16))
    assert analyze(tokens, torch.randn(2, 3, 6)).parameters[-1].role == "norm.weight"
    assert analyze(Net(FrozenBatchNorm2d(4))).convolutions[0].verdict == "bare"


def test_a_name_alone_proves_nothing_about_a_gain() -> None:
    plan = analyze(Net(FilterResponseNorm2d(4)), torch.randn(2, 3, 6, 6), config=Config("absorbing"))
    assert plan.convolutions[0].verdict == "bare"
    assert (
        "nothing proves" in plan.convolutions[0].reason
        or "more than normalize" in plan.convolutions[0].reason
    )


def test_a_module_with_matrices_of_its_own_is_no_norm_whatever_its_name() -> None:
    class ConditionalRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.to_scale = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return x * self.to_scale(x.mean((2, 3))[:, :3])[:, :, None, None]

    assert rule_of(ConditionalRMSNorm()) is None
    assert analyze(Net(ConditionalRMSNorm()), torch.randn(2, 3, 6, 6)).convolutions[0].verdict == "bare"


def test_a_batch_norm_class_with_a_forward_of_its_own_proves_nothing_about_a_gain() -> None:
    class OverTheLast(nn.BatchNorm1d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.transpose(1, 2)).transpose(1, 2)

    model = nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), OverTheLast(6))
    see_through, absorbing = (analyze(model, config=Config(p)) for p in ("see-through", "absorbing"))
    assert [plan.convolutions[0].verdict for plan in (see_through, absorbing)] == ["normalized", "bare"]
    assert "absorbed-bias" not in {hint.code for hint in analyze(model).hints}


def test_a_norm_of_your_own_that_subtracts_no_mean() -> None:
    class Mine(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.rsqrt(x.pow(2).mean((2, 3), keepdim=True) + 1e-6)

    before = dict(MODULES)
    try:
        register_norm(Mine, statistics="instance", centered=False)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), Mine())
        plan = analyze(model, config=Config("absorbing"))
    finally:
        MODULES.clear()
        MODULES.update(before)
    assert plan.convolutions[0].verdict == "normalized"
    assert [hint.code for hint in plan.hints] == ["norm-without-affine"]


def test_what_is_known_of_an_rms_norm() -> None:
    assert not Norm("rms").absorbs_constants
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.RMSNorm((6, 6)))
    plan = analyze(model, config=Config("absorbing"))
    assert (plan.convolutions[0].verdict, plan.hints) == ("normalized", ())
