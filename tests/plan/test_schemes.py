"""Schemes: groups as timm and torchvision make them, Muon's two sets, and schemes of one's own."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn
from torchvision.models import get_model

from sgdph_fx import (
    Config,
    Scheme,
    SchemeRow,
    analyze,
    assign,
    param_groups,
    prepare,
    register_scheme,
)
from sgdph_fx.errors import ConfigError
from sgdph_fx.plan.schemes import SCHEMES

MODELS = ["test_vit", "test_resnet", "test_byobnet", "test_convnext"]


def built(name: str) -> tuple[nn.Module, torch.Tensor]:
    model = timm.create_model(name)
    return model, torch.randn(2, *model.pretrained_cfg["input_size"])


def options(groups: list[dict[str, Any]], *keys: str) -> dict[str, tuple[Any, ...]]:
    """The options of each parameter's group, by its name."""
    return {name: tuple(g[key] for key in keys) for g in groups for name in g["param_names"]}


def named(model: nn.Module, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return [{**group, "param_names": [names[id(p)] for p in group["params"]]} for group in groups]


@pytest.mark.parametrize("name", MODELS)
def test_weight_decay_is_timm_s(name: str) -> None:
    model, x = built(name)
    excluded = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    theirs = named(model, param_groups_weight_decay(model, 0.1, no_weight_decay_list=excluded))
    ours = param_groups(model, x, scheme="no-decay", weight_decay=0.1)
    assert options(ours, "weight_decay") == options(theirs, "weight_decay")


@pytest.mark.parametrize("name", MODELS)
def test_layer_decay_is_timm_s(name: str) -> None:
    model, x = built(name)
    excluded = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    theirs = param_groups_layer_decay(model, 0.1, no_weight_decay_list=excluded, layer_decay=0.7)
    ours = param_groups(model, x, scheme="layer-decay", weight_decay=0.1, layer_decay=0.7)
    keys = "weight_decay", "lr_scale"
    assert options(ours, *keys) == options(named(model, theirs), *keys)


@pytest.mark.parametrize("frozen", ["head", "blocks.1", "norm"])
def test_a_frozen_layer_leaves_the_scales_of_all_others(frozen: str) -> None:
    model, x = built("test_vit")
    whole = options(param_groups(model, x, scheme="layer-decay"), "lr_scale")
    model.get_submodule(frozen).requires_grad_(False)
    theirs = options(named(model, param_groups_layer_decay(model, layer_decay=0.75)), "lr_scale")
    ours = options(param_groups(model, x, scheme="layer-decay"), "lr_scale")
    assert ours == {name: scale for name, scale in whole.items() if not name.startswith(frozen)}
    assert ours == theirs


def test_where_we_differ_from_timm_it_is_by_a_gain_of_four_dimensions() -> None:
    """timm goes by the number of dimensions, and calls a standardized convolution's gain (C, 1, 1, 1) a weight."""
    model, x = built("test_nfnet")
    theirs = options(named(model, param_groups_weight_decay(model, 0.1)), "weight_decay")
    ours = options(param_groups(model, x, scheme="no-decay", weight_decay=0.1), "weight_decay")
    different = {name for name in ours if ours[name] != theirs[name]}
    assert different == {name for name in ours if name.endswith(".gain")}


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", "swin_t"])
def test_weight_decay_is_what_torchvision_s_recipes_ask_for(name: str) -> None:
    """No decay for norms by their class; for biases and positions by their names, as its recipes list them."""
    model = get_model(name, weights=None)
    norms = nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm
    keys = "bias", "class_token", "position_embedding", "relative_position_bias_table"
    expected = {
        f"{path}.{leaf}": isinstance(module, norms) or leaf in keys
        for path, module in model.named_modules()
        for leaf in module._parameters
        if module._parameters[leaf] is not None
    }
    # LayerScale, which the recipes decay.
    expected |= {n: True for n in expected if n.endswith("layer_scale")}
    found = options(param_groups(model, torch.randn(2, 3, 64, 64), scheme="no-decay"), "weight_decay")
    assert {n: decay == 0.0 for n, (decay,) in found.items()} == expected


class Small(nn.Module):
    """Embedding, recurrent layer, two hidden matrices and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(7, 6), nn.LSTM(6, 8, batch_first=True)
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        self.mlp = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, 7)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x, _ = self.lstm(self.embedding(ids))
        x = self.conv(x.mT).mT.relu()
        return self.head(x + self.mlp(x))


IDS = torch.randint(7, (4, 5), generator=torch.Generator().manual_seed(0))
HIDDEN = {"lstm.weight_ih_l0", "lstm.weight_hh_l0", "mlp.1.weight", "mlp.3.weight"}


def test_hidden_matrices_go_to_muon_and_all_else_to_adamw() -> None:
    model = Small()
    sets = param_groups(model, IDS, scheme="muon", muon_lr=0.03, adamw_lr=1e-3, weight_decay=0.2)
    assert list(sets) == ["muon", "adamw"]
    assert {n for g in sets["muon"] for n in g["param_names"]} == HIDDEN
    assert options(sets["muon"], "lr", "weight_decay")["mlp.1.weight"] == (0.03, 0.2)
    rest = options(sets["adamw"], "lr", "weight_decay")
    assert {*rest} | HIDDEN == {name for name, _ in model.named_parameters()}
    assert rest["embedding.weight"] == rest["head.weight"] == rest["conv.weight"] == (1e-3, 0.2)
    assert rest["mlp.0.weight"] == rest["lstm.bias_ih_l0"] == rest["head.bias"] == (1e-3, 0.0)


def test_convolutions_go_to_muon_where_that_is_asked() -> None:
    sets = param_groups(Small(), IDS, scheme="muon", convolutions=True)
    assert {n for g in sets["muon"] for n in g["param_names"]} == HIDDEN | {"conv.weight"}
    vgg, x = get_model("vgg11", weights=None, num_classes=3), torch.randn(1, 3, 32, 32)
    sets = param_groups(vgg, x, scheme="muon", convolutions=True)
    chosen = {n for g in sets["muon"] for n in g["param_names"]}
    assert "features.0.weight" not in chosen  # the first layer
    assert {"features.3.weight", "classifier.0.weight", "classifier.3.weight"} <= chosen
    assert "classifier.6.weight" not in chosen  # the head


def test_a_model_without_hidden_matrices_has_an_empty_set() -> None:
    sets = param_groups(nn.Sequential(nn.Linear(4, 2)), torch.randn(1, 4), scheme="muon")
    assert sets["muon"] == []


def test_torch_s_muon_and_adamw_take_the_sets_and_learn() -> None:
    torch.manual_seed(0)
    model = Small()
    sets = param_groups(model, IDS, scheme="muon", adamw_lr=0.01)
    optimizers = torch.optim.Muon(sets["muon"]), torch.optim.AdamW(sets["adamw"])
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(IDS).flatten(0, 1), IDS.flatten())
        losses.append(float(loss.detach()))
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert losses[-1] < losses[0] / 4


def test_a_rate_that_is_given_is_multiplied_by_the_factors() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    config = Config(rules={"2.weight": {"lr_factor": 10.0}})
    groups = param_groups(
        model, torch.randn(1, 4), config=config, scheme="layer-decay", layer_decay=0.5, lr=0.8
    )
    rates = {name: rate for name, (rate,) in options(groups, "lr").items()}
    # Three layers: 0.8 · 0.5², 0.8 · 0.5 (and · 10), 0.8.
    assert rates == pytest.approx(
        {"0.weight": 0.2, "0.bias": 0.2, "2.weight": 4.0, "2.bias": 0.4, "4.weight": 0.8, "4.bias": 0.8}
    )
    assert len({id(p) for g in torch.optim.SGD(groups).param_groups for p in g["params"]}) == 6


def test_factors_reach_the_groups_of_sgd_ph() -> None:
    config = Config(rules={"0": {"lr_factor": 0.1}})
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    groups = param_groups(model, config=config, lr=0.5)
    rates = {name: g.get("lr") for g in groups for name in g["param_names"]}
    assert rates == pytest.approx({"0.weight": 0.05, "0.bias": 0.05, "2.weight": 0.5, "2.bias": 0.5})
    assert all("lr" not in g for g in param_groups(model, config=config))


def test_groups_of_a_prepared_model() -> None:
    prepared = prepare(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)))
    found = options(param_groups(prepared, scheme="no-decay", weight_decay=0.1), "weight_decay")
    assert found == {
        "0.direction": (0.1,), "0.gain": (0.0,), "0.bias": (0.0,), "3.weight": (0.1,), "3.bias": (0.0,),
    }  # fmt: skip


def test_every_assignment_has_a_reason() -> None:
    found = {a.name: a.reason for a in assign(analyze(Small(), IDS), "muon")}
    assert found["mlp.1.weight"] == "linear: hidden"
    assert found["head.bias"] == "bias, last layer: not decayed"
    assert found["embedding.weight"] == "embedding, first layer: no hidden matrix"


def test_a_scheme_of_one_s_own() -> None:
    twice = Scheme(
        "twice",
        (SchemeRow(("bias", "norm-*"), {"lr": lambda c: 2 * c.hyper["lr"]}), SchemeRow(("*",), {"lr": 0.5})),
        {"lr": 0.1},
    )
    register_scheme(twice)
    try:
        groups = param_groups(nn.Sequential(nn.Linear(2, 2)), scheme="twice", lr=0.3)
    finally:
        del SCHEMES["twice"]
    assert options(groups, "lr") == {"0.weight": (0.5,), "0.bias": (0.6,)}
    assert param_groups(nn.Sequential(nn.Linear(2, 2)), scheme=twice)[1]["lr"] == 0.2  # type: ignore[index]


def test_a_rate_without_factors_goes_to_the_groups_as_it_is_and_a_list_as_a_tuple() -> None:
    rate = torch.tensor(0.1)
    scheme = Scheme("listed", (SchemeRow(("*",), {"betas": [0.9, 0.99]}),))  # type: ignore[dict-item]
    (group,) = param_groups(nn.Linear(2, 2), scheme=scheme, lr=rate)
    assert group["lr"] is rate  # type: ignore[index]
    assert group["betas"] == (0.9, 0.99)  # type: ignore[index]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda m: param_groups(m, scheme="adam"),
            "There is no scheme 'adam'; choose one of 'sgd-ph', 'no-decay'",
        ),
        (
            lambda m: param_groups(m, scheme="muon", momentum=1),
            "'muon' takes no 'momentum'; it takes 'muon_lr'",
        ),
        (lambda m: param_groups(m, weight_decay=1), "'sgd-ph' takes no 'weight_decay'; SGDPH takes"),
        (
            lambda m: param_groups(m, scheme=Scheme("x", (SchemeRow(("bias",)),))),
            "No row of the scheme 'x' fits 0.weight",
        ),
        (
            lambda m: param_groups(m, scheme="layer-decay", lr=torch.tensor(0.1)),
            "lr=tensor(0.1000) is no number",
        ),
        (lambda m: param_groups(m, scheme="layer-decay", lr="0.1"), "lr='0.1' is no number"),
        (lambda m: register_scheme(Scheme("x", ())), "A Scheme with rows is registered"),
        (lambda m: assign(analyze(m), "adam"), "There is no scheme 'adam'"),
    ],
)
def test_schemes_that_are_none(ask: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        ask(nn.Sequential(nn.Linear(2, 2)))
    assert message in str(error.value)
