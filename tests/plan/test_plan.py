"""Plans as data: JSON, rules, application to a fresh model, and refusal of another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from sgdph_fx import Config, Plan, analyze, param_groups, prepare
from sgdph_fx.errors import ConfigError, PlanFormatError, PlanMismatchError


def net(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3), nn.BatchNorm2d(width))


def test_round_trip_through_json() -> None:
    plan = analyze(net())
    assert Plan.from_json(plan.to_json()) == plan
    assert json.loads(plan.to_json())["convolutions"][0]["name"] == "0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "not valid JSON"),
        ("[]", "no plan of version"),
        ('{"version": 99}', "no plan of version"),
        ('{"version": 1, "model": "x"}', "damaged"),
    ],
)
def test_damaged_plans_are_refused(text: str, message: str) -> None:
    with pytest.raises(PlanFormatError, match=message):
        Plan.from_json(text)


def test_unknown_role_is_refused() -> None:
    text = analyze(net()).to_json().replace('"role": "gain"', '"role": "gian"')
    with pytest.raises(PlanFormatError, match=r"role of 0\.gain is 'gian'"):
        Plan.from_json(text)


def test_applies_to_a_fresh_model_without_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan.from_json(analyze(net()).to_json())
    monkeypatch.setattr(torch.fx.Tracer, "trace", lambda *_: pytest.fail("traced again"))
    model = net()
    prepared = plan.apply(model)
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(prepared(x), model(x))
    assert [n for n, _ in prepared.named_parameters()] == [row.name for row in plan.parameters]


def _freeze(model: nn.Module) -> nn.Module:
    model[2].weight.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("build", "difference"),
    [
        (lambda: net(5), r"0\.weight has shape \(5, 3, 3, 3\), planned \(4, 3, 3, 3\)"),
        (lambda: net()[:2], r"2\.weight is missing"),
        (lambda: nn.Sequential(*net(), nn.Linear(2, 2)), r"4\.weight is not in the plan"),
        (lambda: prepare(net()).model, r"0\.weight is missing \(is the model prepared already\?\)"),
        (lambda: _freeze(net()), r"2\.weight is frozen, but was trainable"),
    ],
)
def test_refuses_a_model_that_it_does_not_fit(build: Callable[[], nn.Module], difference: str) -> None:
    plan, model = analyze(net()), build()
    before = list(model.state_dict())
    with pytest.raises(PlanMismatchError, match=difference):
        plan.apply(model, inplace=True)
    assert list(model.state_dict()) == before


def test_rules() -> None:
    rules = {"*": "keep", "0": "decouple", "2": "decouple", "3": "first-order", "3.bias": "second-order"}
    plan = analyze(net(), config=Config(rules=rules))  # type: ignore[arg-type]
    assert [row.decouple for row in plan.convolutions] == [True, True]
    orders = {row.name: row.order for row in plan.parameters}
    assert (orders["3.weight"], orders["3.bias"]) == (1, 2)
    assert orders["2.gain"] == 2
    assert "by the rule '2'" in plan.convolutions[1].reason
    assert [row.decouple for row in analyze(net(), config=Config(rules={"0": "keep"})).convolutions] == [
        False,
        False,
    ]


def test_rules_for_a_shared_weight_hold_for_all_its_owners() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    model[1].weight = model[0].weight
    assert [row.decouple for row in analyze(model, config=Config(rules={"1": "keep"})).convolutions] == [
        False,
        False,
    ]


def test_a_key_that_a_merge_has_left_twice_is_refused() -> None:
    text = (
        analyze(net())
        .to_json()
        .replace('"policy": "see-through"', '"policy": "direct", "policy": "see-through"')
    )
    with pytest.raises(PlanFormatError, match="the key 'policy' stands twice in one object"):
        Plan.from_json(text)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            {"fature.0": "keep"},
            "'fature.0': 'keep' matches no convolution of the model; the nearest name is 'feature.0'",
        ),
        ({"feature.1.wieght": "first-order"}, "the nearest name is 'feature.1.weight'"),
        ({"nonsense*": "decouple"}, "matches no convolution"),
    ],
)
def test_rule_that_matches_nothing_names_the_nearest(rules: dict[str, str], message: str) -> None:
    model = nn.ModuleDict({"feature": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))})
    model.forward = lambda x: model["feature"](x)  # type: ignore[method-assign]
    with pytest.raises(ConfigError) as error:
        analyze(model, config=Config(rules=rules))  # type: ignore[arg-type]
    assert message in str(error.value)


def test_configuration_that_means_nothing() -> None:
    with pytest.raises(ConfigError, match="policy='strict' is not known"):
        Config(policy="strict")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'forget' is not known"):
        Config(rules={"0": "forget"})  # type: ignore[dict-item]


def test_groups_are_ordinary_and_complete() -> None:
    model, groups, _ = prepare(net())
    members = [p for g in groups for p in g["params"]]
    assert {id(p) for p in members} == {id(p) for p in model.parameters()}
    assert len(members) == len(list(model.parameters()))
    named = dict(model.named_parameters())
    for group in groups:
        assert all(named[n] is p for n, p in zip(group["param_names"], group["params"], strict=True))
        assert group["name"] == f"{['', 'first', 'second'][group['order']]}-order {group['role']}"
    places = {n: place for g in groups for n, place in zip(g["param_names"], g["index"], strict=True)}
    assert sorted(places, key=places.__getitem__) == list(named)
    optimizer = torch.optim.SGD(groups, lr=0.1)
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    assert optimizer.param_groups[0]["param_names"] == groups[0]["param_names"]


def test_groups_of_a_model_as_it_stands() -> None:
    model = net()
    names = {n for g in param_groups(model) for n in g["param_names"]}
    assert names == {n for n, _ in model.named_parameters()}
    prepared = prepare(model)
    assert [g["param_names"] for g in param_groups(prepared)] == [
        g["param_names"] for g in prepared.param_groups
    ]
    again = param_groups(prepared.model)
    assert {(g["order"], g["role"], *g["param_names"]) for g in again} == {
        (g["order"], g["role"], *g["param_names"]) for g in prepared.param_groups
    }


def test_a_plan_that_an_earlier_release_wrote_is_read_and_applied() -> None:
    """The file was written before entries had options; the model is the one that it was made for."""
    text = (Path(__file__).parent / "saved" / "plan-0.1.0.json").read_text()
    plan = Plan.from_json(text)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 6, 3, groups=2),
        nn.BatchNorm2d(6),
        nn.Conv2d(6, 2, 1),
        nn.Flatten(),
        nn.Linear(98, 2),
    )
    model[4].weight.requires_grad_(False)
    x = torch.rand(2, 3, 7, 7)
    prepared = plan.apply(model)
    assert torch.equal(prepared.train()(x), model.train()(x))
    assert [n for n, p in prepared.named_parameters() if p.requires_grad] == [e.name for e in plan.parameters]
    assert [entry.name for entry in plan.decoupled] == ["0"]
    assert json.loads(plan.to_json()) == json.loads(text)
