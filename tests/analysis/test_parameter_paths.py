"""What lies between a parameter and its use: casts, functions of each number, looks that pass no gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgdph_fx import SGDPH, analyze, prepare

Use = Callable[[Any, Tensor], Any]


class Uses(nn.Module):
    """A layer, and a raw parameter that is used in one way."""

    def __init__(self, use: Use) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)
        self.p = nn.Parameter(torch.rand(4, 1, 1) + 0.5)
        self.register_buffer("seen", torch.zeros(4, 1, 1))
        self.register_buffer("spread", torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None])
        self.gate = nn.Sigmoid()
        self.use = use

    def forward(self, x: Tensor) -> Any:
        return self.use(self, self.layer(x))


@torch.no_grad()
def start_at(parameter: Tensor, x: Tensor) -> None:
    parameter.copy_(x.std((0, 2, 3))[:, None, None])


@torch.no_grad()
def look(seen: Tensor, parameter: Tensor) -> None:
    seen.copy_(parameter.abs().mean())


def after(_: Any, result: Any) -> Any:
    return result


CHANNEL_WISE: dict[str, Use] = {
    "log-scale": lambda m, x: x * m.p.exp(),
    "inverse log-scale": lambda m, x: x / torch.exp(-m.p),
    "softplus": lambda m, x: x * F.softplus(m.p) + 1,
    "gate": lambda m, x: x * torch.sigmoid(m.p) + x.roll(1, 0) * (1 - torch.sigmoid(m.p)),
    "square": lambda m, x: x / (m.p**2 + 1e-5).sqrt(),
    "half": lambda m, x: x * (m.p / 2 - 1),
    "bounded": lambda m, x: x * m.p.clamp(min=0.1),
    "clone": lambda m, x: x * m.p.clone().contiguous(),
    "cast": lambda m, x: x * m.p.type(x.dtype).double().float(),
    "own shape": lambda m, x: x * m.p.view(1, m.p.shape[0], m.p.size(1), 1),
    "own device": lambda m, x: x.to(m.p.device, m.p.dtype) * m.p,
    "started from data": lambda m, x: after(start_at(m.p, x), x * m.p),
    "started through data": lambda m, x: after(
        m.p.data.copy_(x.detach().amax((0, 2, 3))[:, None, None]), x * m.p
    ),
    "kept positive": lambda m, x: after(m.p.data.clamp_(min=0.1), x * m.p),
    "looked at": lambda m, x: after(m.seen.copy_(m.p.detach().abs()), x * m.p),
    "looked at without gradient": lambda m, x: after(look(m.seen, m.p), x * m.p),
    "log-determinant": lambda m, x: (
        x * m.p,
        x.new_zeros(x.shape[0]) + m.p.abs().log().sum() * x.shape[2] * x.shape[3],
    ),
    "log-determinant in a mean": lambda m, x: (
        x * m.p,
        -torch.mean(x.new_zeros(x.shape[0]) + m.p.abs().log().sum() * x.shape[2]),
    ),
    "folded statistics": lambda m, x: x * (m.p * (m.spread + 1e-5).rsqrt()),
    "folded shift": lambda m, x: x + (m.p - m.seen / m.spread.sqrt()),
    "divided by a buffer": lambda m, x: x * (m.spread / m.p),
    "start in a buffer": lambda m, x: x - (m.spread + m.p),
    "divided by a norm": lambda m, x: x * (m.p / m.layer.weight.norm(dim=1, keepdim=True)[..., 0].detach()),
    "module": lambda m, x: x * m.gate(m.p),
    "part": lambda m, x: x * m.p.narrow(0, 0, 4),
    "parts": lambda m, x: torch.cat([x[:, :2] * m.p.chunk(2)[0], x[:, 2:] + m.p.split(2)[1]], 1),
}
NOT_CHANNEL_WISE: dict[str, Use] = {
    "softmax": lambda m, x: x * m.p.softmax(0),
    "relative": lambda m, x: x * (m.p / m.p.mean()),
    "running sum": lambda m, x: x * m.p.cumsum(0),
    "mean alone": lambda m, x: x * m.p.mean(),
    "one number for all, twice": lambda m, x: x * m.p[0] + x.roll(1, 3) * m.p[1],
    "one number of a view": lambda m, x: x * m.p.flatten()[2],
    "scaled by the sum, too": lambda m, x: x * m.p * m.p.sum(),
    "sum on data, too": lambda m, x: (x + m.p + m.p.sum()).relu(),
    "dot product": lambda m, x: x + (x * m.p).sum(-3, keepdim=True),
    "dot product at a place": lambda m, x: x + torch.sum(m.p.flatten() * x.movedim(1, -1), dim=-1)[:, None],
    "flat table of places": lambda m, x: x[..., :2, :2] + m.p.view(2, 2),
    "map of a buffer": lambda m, x: x * (m.p * m.spread.view(1, 1, 4)).sum(2, keepdim=True).sum(0),
    "of data": lambda m, x: x + (m.p / x.exp()).sum(1, keepdim=True),
    "by label": lambda m, x: x * m.p.flatten()[x.mean((1, 2, 3)).gt(0).long()].view(-1, 1, 1, 1),
}
WITH_SHAPES: dict[str, Use] = {
    "expanded": lambda m, x: x * m.p.expand(x.shape[0], -1, -1, -1),
    "expanded as": lambda m, x: x + m.p.expand_as(x),
    "broadcast": lambda m, x: x * torch.broadcast_to(m.p, x.shape),
}


def order_of(use: Use, *, recorded: bool = True) -> int:
    plan = analyze(Uses(use), torch.randn(2, 3, 5, 5) if recorded else None)
    return next(row.order for row in plan.parameters if row.name == "p")


def each_number_has_a_channel(use: Use) -> bool:
    """Whether channel i of the output depends on number i alone, by the Jacobian."""
    model, x = Uses(use), torch.randn(2, 3, 5, 5)

    def channels(p: Tensor) -> Tensor:
        made = torch.func.functional_call(model, {"p": p.clone()}, (x,))
        return (made[0] if isinstance(made, tuple) else made).transpose(0, 1).flatten(1)

    jacobian = torch.autograd.functional.jacobian(channels, model.p.detach()).abs().sum((1, 3, 4))
    return bool((jacobian - torch.diag(jacobian.diag()) == 0).all())


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "symbolic"])
@pytest.mark.parametrize("way", CHANNEL_WISE)
def test_channel_wise_on_its_way(way: str, *, recorded: bool) -> None:
    assert order_of(CHANNEL_WISE[way], recorded=recorded) == 2
    assert "started" in way or each_number_has_a_channel(CHANNEL_WISE[way])


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "symbolic"])
@pytest.mark.parametrize("way", NOT_CHANNEL_WISE)
def test_numbers_that_meet_on_the_way(way: str, *, recorded: bool) -> None:
    assert order_of(NOT_CHANNEL_WISE[way], recorded=recorded) == 1
    assert not each_number_has_a_channel(NOT_CHANNEL_WISE[way])


@pytest.mark.parametrize("way", WITH_SHAPES)
def test_expanding_is_followed_where_shapes_are_known(way: str) -> None:
    assert order_of(WITH_SHAPES[way]) == 2
    assert each_number_has_a_channel(WITH_SHAPES[way])


NORMALIZED: dict[str, Use] = {
    "started from data": lambda m, x: after(start_at(m.p, x), m.p),
    "started through data": lambda m, x: after(
        m.p.data.copy_(x.detach().amax((0, 2, 3))[:, None, None]), m.p
    ),
    "looked at": lambda m, x: after(m.seen.copy_(m.p.detach().abs()), m.p),
    "own shape": lambda m, x: m.p.view(m.p.shape[0], 1, 1),
    "expanded": lambda m, x: m.p.expand(4, 4, 3),
}


class WeightNormalized(nn.Module):
    """A weight normalization written by hand, whose gain is handled in one way before its use."""

    def __init__(self, use: Use) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.randn(4, 4, 3, 3))
        self.p = nn.Parameter(torch.ones(4, 1, 1))
        self.register_buffer("seen", torch.zeros(4, 1, 1))
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        gain = self.use(self, x)
        return F.conv2d(x, F.normalize(self.v.flatten(1), dim=1).view_as(self.v) * gain[..., None])


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "symbolic"])
@pytest.mark.parametrize("way", NORMALIZED)
def test_a_carried_gain_on_its_way(way: str, *, recorded: bool) -> None:
    plan = analyze(WeightNormalized(NORMALIZED[way]), torch.randn(2, 4, 5, 5) if recorded else None)
    assert {row.name: (row.order, row.role) for row in plan.parameters} == {
        "v": (1, "weight"),
        "p": (2, "gain"),
    }


class Masked(nn.Module):
    """As masked autoencoders and BEiT put a token in the place of the patches that they hide."""

    def __init__(self, *, expanded: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.expanded = expanded

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(x)
        token = self.token.expand(x.shape[0], x.shape[1], -1) if self.expanded else self.token
        hidden = mask[..., None].to(x)
        return x * (1 - hidden) + token * hidden


@pytest.mark.parametrize("expanded", [True, False])
def test_a_mask_token_is_no_scale_of_the_mask(*, expanded: bool) -> None:
    inputs = torch.randn(2, 7, 5), torch.randint(2, (2, 7))
    rows = {row.name: row.order for row in analyze(Masked(expanded=expanded), inputs).parameters}
    assert rows == {"token": 1, "embed.weight": 1, "embed.bias": 2}
    if expanded:
        assert {r.name: r.order for r in analyze(Masked(expanded=True)).parameters} == rows


def test_a_scale_whose_logarithm_is_added_to_data_is_a_scale() -> None:
    """A flow's batch norm returns log σ² + log of its scale beside its output."""

    def use(m: Uses, x: Tensor) -> Tensor:
        scale = F.softplus(m.p)
        volume = scale.log() - x.var((0, 2, 3), keepdim=True).log()
        return x * scale + volume

    rows = analyze(Uses(use), torch.randn(2, 3, 5, 5)).parameters
    assert [row.role for row in rows if row.name == "p"] == ["layer_scale"]


class ActNorm(nn.Module):
    """Glow's: a shift and a log-scale for each channel, which the first batch decides."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.register_buffer("started", torch.tensor(False))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.training and not self.started:
            with torch.no_grad():
                self.shift.copy_(-x.mean((0, 2, 3), keepdim=True))
                self.log_scale.copy_(-x.std((0, 2, 3), keepdim=True).log())
                self.started.fill_(True)
        volume = self.log_scale.sum() * x.shape[2] * x.shape[3]
        return (x + self.shift) * self.log_scale.exp(), volume


@pytest.mark.parametrize("started", [True, False])
def test_act_norm_is_second_order_before_and_after_its_start(*, started: bool) -> None:
    torch.manual_seed(0)
    net = ActNorm(3).double()
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64) * 2 + 1
    if started:
        net(x)
    prepared = prepare(net, x)
    assert {row.name: row.order for row in prepared.report.plan.parameters} == {"shift": 2, "log_scale": 2}
    assert bool(prepared.model.get_buffer("started")) is started
    optimizer = SGDPH(prepared.param_groups, lr=0.01)
    z, volume = prepared.model(x)
    loss = (z.square().sum((1, 2, 3)) / 2 - volume).mean()
    p = prepared.model.get_parameter("shift")
    optimizer.backward(loss)
    optimizer.step()
    # L = ½ n e^{2s} (shift + mean)² + …, n = 25 places of an image: the second derivative by the shift is n e^{2s}.
    expected = 0.1 * 25 / x.var((0, 2, 3), keepdim=True)
    torch.testing.assert_close(optimizer.state[p]["hessian_average"], expected)
