"""Kinds, places and fans of parameters, worked out by hand from each model's forward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgdph_fx import analyze
from sgdph_fx.plan.entries import ParameterEntry


def entries(model: nn.Module, inputs: object = None) -> dict[str, ParameterEntry]:
    return {entry.name: entry for entry in analyze(model, inputs).parameters}  # type: ignore[arg-type]


def kinds(model: nn.Module, inputs: object = None) -> dict[str, str]:
    return {name: entry.kind for name, entry in entries(model, inputs).items()}


class Experts(nn.Module):
    """A mixture of experts whose matrices are stacked, and the router that chooses among them."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(6, 4, bias=False)
        self.experts = nn.Module()
        self.experts.up = nn.Parameter(torch.randn(4, 6, 8))
        self.experts.down = nn.Parameter(torch.randn(4, 8, 6))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.router(x).softmax(-1)
        y = torch.einsum("nc,ech->neh", x, self.experts.up).relu()
        y = torch.einsum("neh,ehc->nec", y, self.experts.down)
        return (y * weight[..., None]).sum(1)


class Mixer(nn.Module):
    """The parameters of a state-space layer, used as Mamba uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.in_proj = nn.Linear(4, 8, bias=False)
        self.A_log = nn.Parameter(torch.zeros(8, 3))
        self.D = nn.Parameter(torch.ones(8))
        self.out_proj = nn.Linear(8, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.in_proj(x)
        state = torch.exp(y[..., None] * -torch.exp(self.A_log)).sum(-1)
        return self.out_proj(state + y * self.D) + x


class Tiny(nn.Module):
    """A language model with tied embeddings, fused attention and a learned temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(11, 6), nn.Embedding(5, 6)
        self.norm, self.qkv, self.out = nn.LayerNorm(6), nn.Linear(6, 18), nn.Linear(6, 6)
        self.logit_scale = nn.Parameter(torch.tensor(1.0))
        self.register_token = nn.Parameter(torch.zeros(1, 1, 6))
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        x = torch.cat([self.register_token.expand(ids.shape[0], -1, -1), x], 1)
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.out((q @ k.mT * self.logit_scale).softmax(-1) @ v)
        return self.head(x)


def test_kinds_of_a_mixture_of_experts() -> None:
    assert kinds(Experts(), torch.randn(3, 6)) == {
        "router.weight": "router",
        "experts.up": "experts",
        "experts.down": "experts",
    }


def test_kinds_of_a_state_space_layer() -> None:
    assert kinds(nn.Sequential(Mixer(), Mixer()), torch.randn(2, 4)) == {
        f"{number}.{name}": kind
        for number in (0, 1)
        for name, kind in {
            "A_log": "state-space",
            "D": "state-space",
            "in_proj.weight": "linear",
            "out_proj.weight": "linear",
        }.items()
    }


def test_kinds_and_places_of_a_language_model() -> None:
    found = entries(Tiny(), torch.tensor([[1, 2, 3], [4, 5, 6]]))
    assert {name: (e.kind, e.place) for name, e in found.items()} == {
        "logit_scale": ("temperature", ""),
        "register_token": ("token", ""),
        "tokens.weight": ("tied-embedding", "last"),
        "positions.weight": ("position", "first"),
        "norm.weight": ("norm-scale", ""),
        "norm.bias": ("norm-shift", ""),
        "qkv.weight": ("attention-qkv", ""),
        "qkv.bias": ("bias", ""),
        "out.weight": ("linear", ""),
        "out.bias": ("bias", ""),
    }


def test_kinds_of_what_modules_own() -> None:
    model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.PReLU(4), nn.Flatten(), nn.Linear(16, 4), nn.Linear(4, 2))
    found = entries(model, torch.randn(2, 3, 6))
    assert {name: (e.kind, e.place) for name, e in found.items()} == {
        "0.direction": ("direction", "first"),
        "0.gain": ("gain", "first"),
        "0.bias": ("bias", "first"),
        "1.weight": ("slope", ""),
        "3.weight": ("linear", ""),
        "3.bias": ("bias", ""),
        "4.weight": ("head", "last"),
        "4.bias": ("bias", "last"),
    }
    assert kinds(nn.LSTM(4, 5), torch.randn(3, 2, 4)) == {
        "weight_ih_l0": "recurrent",
        "weight_hh_l0": "recurrent",
        "bias_ih_l0": "bias",
        "bias_hh_l0": "bias",
    }
    attention = kinds(nn.TransformerEncoderLayer(8, 2, 16))
    assert (attention["self_attn.in_proj_weight"], attention["linear1.weight"]) == ("attention-qkv", "linear")


def test_an_output_that_something_was_added_to_is_no_head() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.one(x)
            return y + self.two(y.relu())

    assert {name: e.place for name, e in entries(Residual(), torch.randn(2, 4)).items()} == {
        "one.weight": "first",
        "one.bias": "first",
        "two.weight": "",
        "two.bias": "",
    }


def test_a_bias_that_is_joined_to_others_is_one() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(4, 12, bias=False)
            self.q_bias, self.v_bias = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(4))
            self.register_buffer("k_bias", torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            bias = torch.cat((self.q_bias, self.k_bias, self.v_bias))
            return F.linear(x, self.qkv.weight, bias).relu()

    found = entries(Joined(), torch.randn(2, 4))
    assert {n: (e.role, e.order) for n, e in found.items() if "bias" in n} == {
        "q_bias": ("bias", 2),
        "v_bias": ("bias", 2),
    }


def test_a_token_plus_its_own_position_is_no_bias() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
            self.table = nn.Parameter(torch.zeros(1, 3, 4))
            self.out = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            token = self.cls_token + self.table[:, :1]
            return self.out(torch.cat([token.expand(x.shape[0], -1, -1), x + self.table[:, 1:]], 1))

    found = entries(Masked(), torch.randn(2, 2, 4))
    assert (found["cls_token"].kind, found["cls_token"].order) == ("token", 1)
    assert found["table"].kind == "position"


@pytest.mark.parametrize(
    ("module", "shape", "fans"),
    [
        (nn.Linear(5, 3), (2, 5), (5, 3)),
        (nn.Conv2d(6, 4, 3, groups=2), (2, 6, 5, 5), (3 * 9, 2 * 9)),
        # Each output number is a sum over its group's 3 inputs and the 4 places of the kernel.
        (nn.ConvTranspose1d(6, 4, 4, groups=2), (2, 6, 5), (3 * 4, 2 * 4)),
        (nn.Embedding(7, 3), None, (7, 3)),
    ],
    ids=["linear", "grouped", "transposed", "embedding"],
)
def test_fans(module: nn.Module, shape: tuple[int, ...] | None, fans: tuple[int, int]) -> None:
    inputs = torch.tensor([1, 2]) if shape is None else torch.randn(shape)
    weight, *others = (
        e for e in entries(module, inputs).values() if e.role in ("weight", "direction", "other")
    )
    assert (weight.fan_in, weight.fan_out, others) == (*fans, [])
