"""Roles and orders of parameters: by the module that owns them, else by the operation that uses them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.convnext import CNBlock, LayerNorm2d

from sgdph_fx import SGDPH, analyze, prepare


class Uses(nn.Module):
    """One raw parameter in each way of use."""

    def __init__(self) -> None:
        super().__init__()
        channels = 6
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.scale_1d = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.position = nn.Parameter(torch.zeros(1, 9, channels))
        self.token = nn.Parameter(torch.zeros(1, 1, channels))
        self.temperature = nn.Parameter(torch.ones(1))
        self.head_temperature = nn.Parameter(torch.ones(3, 1, 1))
        self.ln_weight = nn.Parameter(torch.ones(channels))
        self.ln_bias = nn.Parameter(torch.zeros(channels))
        self.matrix = nn.Parameter(torch.eye(channels))
        self.matrix_bias = nn.Parameter(torch.zeros(channels))
        self.written_bias = nn.Parameter(torch.zeros(channels))
        self.slope = nn.Parameter(torch.ones(channels))
        self.unused = nn.Parameter(torch.ones(channels))
        self.lambdas = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        x = (
            self.lambdas[0] * x + self.lambdas[1] * x.relu()
        )  # as in residual streams: no number of them is a channel's
        x = F.prelu(x * self.scale * self.scale_1d[:, None, None] + self.shift, self.slope)
        x = x.flatten(2).transpose(1, 2) + self.position
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) / self.temperature
        x = F.layer_norm(x, (6,), self.ln_weight, self.ln_bias)
        x = F.linear(x, self.matrix, self.matrix_bias)
        x = x @ self.matrix.t() + self.written_bias
        heads = x.reshape(x.shape[0], -1, 3, 2).transpose(1, 2)
        return (heads @ heads.transpose(-1, -2)) * self.head_temperature


EXPECTED = {
    "scale": (2, "layer_scale"),
    "scale_1d": (2, "layer_scale"),
    "shift": (2, "bias"),
    "position": (1, "other"),
    "token": (1, "other"),
    "temperature": (1, "other"),
    "head_temperature": (1, "other"),
    "ln_weight": (2, "norm.weight"),
    "ln_bias": (2, "norm.bias"),
    "matrix": (1, "weight"),
    "matrix_bias": (2, "bias"),
    "written_bias": (2, "bias"),
    "slope": (2, "activation"),
    "unused": (1, "other"),
    "lambdas": (1, "other"),
}


@pytest.mark.parametrize("inputs", [None, torch.rand(2, 6, 3, 3)], ids=["symbolic", "recorded"])
def test_raw_parameters_by_use(inputs: Tensor | None) -> None:
    rows = analyze(Uses(), inputs).parameters
    assert {row.name: (row.order, row.role) for row in rows} == EXPECTED


class OtherWays(nn.Module):
    """Channel-wise scales and shifts that are not written as ``x * scale + shift``."""

    def __init__(self) -> None:
        super().__init__()
        self.from_zero, self.divisor, self.tensor = (nn.Parameter(torch.ones(6, 1, 1)) for _ in range(3))
        self.subtracted, self.summand = (nn.Parameter(torch.zeros(6, 1, 1)) for _ in range(2))
        self.dividend, self.head_divisor = (
            nn.Parameter(torch.ones(6, 1, 1)),
            nn.Parameter(torch.ones(3, 1, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = torch.addcmul(self.summand, x * (1 + self.from_zero), self.tensor)
        x = (x - self.subtracted) / self.divisor + self.dividend / (1 + x.square())
        heads = x.flatten(2).transpose(1, 2).reshape(x.shape[0], -1, 3, 2).transpose(1, 2)
        return (heads @ heads.transpose(-1, -2)) / self.head_divisor


@pytest.mark.parametrize("inputs", [None, torch.rand(2, 6, 3, 3)], ids=["symbolic", "recorded"])
def test_scales_and_shifts_in_other_ways(inputs: Tensor | None) -> None:
    scale, shift, neither = (2, "layer_scale"), (2, "bias"), (1, "other")
    assert {row.name: (row.order, row.role) for row in analyze(OtherWays(), inputs).parameters} == {
        **dict.fromkeys(("from_zero", "divisor", "tensor"), scale),
        **dict.fromkeys(("subtracted", "summand"), shift),
        **dict.fromkeys(("dividend", "head_divisor"), neither),
    }


TURNS: dict[str, Callable[[Tensor], Tensor]] = {
    "t": lambda w: w.t(),
    "mT": lambda w: w.mT,
    "mH": lambda w: w.mH,
    "adjoint": torch.adjoint,
    "swapaxes": lambda w: w.swapaxes(0, 1),
    "swapdims": lambda w: torch.swapdims(w, 0, 1),
    "movedim": lambda w: w.movedim(0, 1),
    "moveaxis": lambda w: torch.moveaxis(w, 0, 1),
}


@pytest.mark.parametrize("inputs", [None, torch.rand(2, 4)], ids=["symbolic", "recorded"])
@pytest.mark.parametrize("turn", TURNS)
def test_a_product_with_a_turned_matrix_is_a_layer_whose_bias_is_second_order(
    turn: str, inputs: Tensor | None
) -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix, self.bias = nn.Parameter(torch.rand(5, 4)), nn.Parameter(torch.rand(5))

        def forward(self, x: Tensor) -> Tensor:
            return x @ TURNS[turn](self.matrix) + self.bias

    orders = {row.name: row.order for row in analyze(Layer(), inputs).parameters}
    assert orders == {"matrix": 1, "bias": 2}


@pytest.mark.filterwarnings("ignore:No parameter of this SGDPH:RuntimeWarning")
def test_a_complex_parameter_is_first_order_and_trains() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, dtype=torch.complex64))
    x = torch.randn(2, 3, 5, 5, dtype=torch.complex64)
    prepared = prepare(model, x)
    assert {row.name: row.order for row in prepared.report.plan.parameters} == {"0.weight": 1, "0.bias": 1}
    SGDPH(prepared.param_groups, lr=0.1)


OWNED = [
    (nn.BatchNorm2d(4), {"weight": (2, "norm.weight"), "bias": (2, "norm.bias")}),
    (nn.BatchNorm2d(4, affine=False), {}),
    (nn.GroupNorm(2, 4), {"weight": (2, "norm.weight"), "bias": (2, "norm.bias")}),
    (nn.InstanceNorm2d(4, affine=True), {"weight": (2, "norm.weight"), "bias": (2, "norm.bias")}),
    (nn.SyncBatchNorm(4), {"weight": (2, "norm.weight"), "bias": (2, "norm.bias")}),
    (nn.LayerNorm(4), {"weight": (2, "norm.weight"), "bias": (2, "norm.bias")}),
    (nn.RMSNorm(4), {"weight": (2, "norm.weight")}),
    (LayerNorm2d(4), {"weight": (2, "norm.weight"), "bias": (2, "norm.bias")}),
    (nn.LayerNorm((4, 5)), {"weight": (1, "norm.weight"), "bias": (1, "norm.bias")}),
    (nn.PReLU(), {"weight": (2, "activation")}),
    (nn.Linear(3, 4), {"weight": (1, "weight"), "bias": (2, "bias")}),
    (nn.Embedding(10, 4), {"weight": (1, "other")}),
    (
        nn.LSTM(4, 5),
        {
            "weight_ih_l0": (1, "weight"),
            "weight_hh_l0": (1, "weight"),
            "bias_ih_l0": (2, "bias"),
            "bias_hh_l0": (2, "bias"),
        },
    ),
    (
        nn.LSTM(4, 6, bias=True, bidirectional=True, proj_size=2),
        {
            f"{what}_l0{way}": (2 if what.startswith("bias") else 1, what.split("_")[0])
            for way in ("", "_reverse")
            for what in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        },
    ),
    *(
        (
            kind(4, 5),
            {
                "weight_ih": (1, "weight"),
                "weight_hh": (1, "weight"),
                "bias_ih": (2, "bias"),
                "bias_hh": (2, "bias"),
            },
        )
        for kind in (nn.RNNCell, nn.LSTMCell, nn.GRUCell)
    ),
    (nn.GRU(4, 5, bias=False), {"weight_ih_l0": (1, "weight"), "weight_hh_l0": (1, "weight")}),
    (
        nn.MultiheadAttention(8, 2, add_bias_kv=True, kdim=4, vdim=6),
        {
            "q_proj_weight": (1, "weight"),
            "k_proj_weight": (1, "weight"),
            "v_proj_weight": (1, "weight"),
            "in_proj_bias": (2, "bias"),
            # One more key and one more value for all queries: elements of the sequence.
            "bias_k": (1, "other"),
            "bias_v": (1, "other"),
            "out_proj.weight": (1, "weight"),
            "out_proj.bias": (2, "bias"),
        },
    ),
]


@pytest.mark.parametrize(("module", "expected"), OWNED, ids=lambda value: getattr(value, "_get_name", str)())
def test_parameters_of_known_modules(module: nn.Module, expected: dict[str, tuple[int, str]]) -> None:
    assert {row.name: (row.order, row.role) for row in analyze(module).parameters} == expected


def test_attention_and_layer_scale_of_real_blocks() -> None:
    rows = {r.name: (r.order, r.role) for r in analyze(nn.TransformerEncoderLayer(8, 2, 16)).parameters}
    assert rows["self_attn.in_proj_weight"] == (1, "weight")
    assert (
        rows["self_attn.in_proj_bias"]
        == rows["self_attn.out_proj.bias"]
        == rows["linear1.bias"]
        == (2, "bias")
    )
    assert rows["norm1.weight"] == (2, "norm.weight")
    block = {r.name: (r.order, r.role) for r in analyze(CNBlock(8, 1e-6, 0.0)).parameters}
    assert block["layer_scale"] == (2, "layer_scale")


class GatedUnit(nn.Module):
    """A gate and a value, whose names end as those of a weight normalization's gain and direction do."""

    def __init__(self) -> None:
        super().__init__()
        self.w_g, self.w_v = nn.Parameter(torch.eye(4)), nn.Parameter(torch.eye(4))
        self.b_g, self.b_v = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x @ self.w_g + self.b_g) * (x @ self.w_v + self.b_v)


class NormalizedByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight_v, self.weight_g = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.ones(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, torch._weight_norm(self.weight_v, self.weight_g, 0))


@pytest.mark.parametrize("recorded", [False, True])
def test_names_alone_make_no_weight_normalization(recorded: bool) -> None:
    plan = analyze(GatedUnit(), torch.ones(2, 4) if recorded else None)
    assert {entry.name: entry.order for entry in plan.parameters} == {"w_g": 1, "w_v": 1, "b_g": 2, "b_v": 2}
    by_hand = analyze(NormalizedByHand(), torch.ones(2, 3) if recorded else None)
    assert {entry.name: entry.role for entry in by_hand.parameters} == {
        "weight_v": "direction",
        "weight_g": "gain",
    }


def test_every_trainable_parameter_once_and_every_row_with_a_reason() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 2)
    )
    model[4].weight.requires_grad_(False)
    plan = analyze(model)
    names = [row.name for row in plan.parameters]
    assert names == [
        "0.weight", "0.bias", "1.weight", "1.bias", "2.direction", "2.gain", "2.bias", "4.bias",
    ]  # fmt: skip
    assert plan.frozen == ("4.weight",)
    assert all(len(row.reason) > 20 for row in plan.parameters)
    assert [row.shape for row in plan.parameters][4:6] == [(4, 4, 3, 3), (4,)]


def test_frozen_convolution_is_not_decoupled() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    model[0].weight.requires_grad_(False)
    plan = analyze(model)
    assert [(row.verdict, row.decouple) for row in plan.convolutions] == [("bare", False)]
    assert [row.name for row in plan.parameters] == ["0.bias"]
