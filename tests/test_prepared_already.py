"""Models that come prepared: they are recognised, stay as they are, and their plan fits them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgdph_fx import SGDPH, Config, analyze, audit, param_groups, prepare, restore
from sgdph_fx.errors import ModelError, PlanMismatchError
from tests.trace.states import state_of

X = torch.rand(2, 3, 9, 9)


class Owner(nn.Module):
    """A convolution of its own, on a parameter that is not called ``weight``."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.rand(4, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.ReLU(), Owner()
    )


def trained(model: nn.Module) -> nn.Module:
    """As after a training: directions have lengths of their own."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.rand_like(p))
    return model


@pytest.mark.parametrize("inputs", [None, X], ids=["symbolic", "recorded"])
@pytest.mark.parametrize("inplace", [False, True])
def test_nothing_is_rewritten_and_the_plan_restores(inputs: Tensor | None, inplace: bool) -> None:
    first = prepare(net(), inputs)
    trained(first.model)
    before = state_of(first.model)
    second = prepare(first.model, inputs, inplace=inplace)
    assert (second.model is first.model) is inplace
    assert state_of(first.model) == before
    for name, parameter in first.model.named_parameters():
        assert torch.equal(second.model.get_parameter(name), parameter)
    assert [g["param_names"] for g in second.param_groups] == [g["param_names"] for g in first.param_groups]
    assert [g["order"] for g in second.param_groups] == [g["order"] for g in first.param_groups]
    assert [row.decouple for row in second.report.plan.convolutions] == [False, True, True]
    plain = net()
    plain.load_state_dict(second.report.plan.restore_state_dict(second.model.state_dict()))
    assert torch.equal(plain(X), restore(first.model)(X))


def test_it_is_said() -> None:
    (hint,) = [h for h in analyze(prepare(net()).model).hints if h.code == "already-prepared"]
    assert hint.message.startswith("2 weights came decoupled and stay as it was made")
    silent = Config(silence=["already-prepared"])
    assert "already-prepared" not in [h.code for h in analyze(prepare(net()).model, config=silent).hints]


def test_choices_that_would_decouple_others_are_told() -> None:
    model = prepare(net(), config=Config(rules={"3": "keep"})).model
    plan = analyze(model)
    rows = {row.name: row for row in plan.convolutions}
    assert [rows[name].decouple for name in ("0", "3", "5.kernel")] == [False, False, True]
    assert rows["3"].reason.endswith("; left as it came")
    (hint,) = [h for h in plan.hints if h.code == "already-prepared"]
    assert "would treat 3.weight otherwise" in hint.message
    assert {p.name for p in plan.parameters} == {name for name, _ in model.named_parameters()}
    # And the other way round: what this policy would leave alone stays decoupled.
    forced = prepare(net(), config=Config(rules={"0": "decouple"})).model
    assert [row.decouple for row in analyze(forced).convolutions] == [True, True, True]


def test_rules_on_a_weight_hold_where_the_weight_stays_decoupled() -> None:
    model = prepare(net(), config=Config(rules={"0": "decouple"})).model
    rules: dict[str, Any] = {"0.weight": {"lr": 0.5}, "3.weight": "first-order"}
    prepared = prepare(model, config=Config(rules=rules))
    entries = {entry.name: entry for entry in prepared.report.plan.parameters}
    assert [entries[name].options for name in ("0.direction", "0.gain")] == [{"lr": 0.5}, {"lr": 0.5}]
    assert (entries["3.gain"].order, entries["5.kernel_gain"].order) == (1, 2)
    assert "rule 're:" not in repr(prepared.report.plan.convolutions)


@pytest.mark.parametrize("look", [param_groups, lambda m: param_groups(m, X)], ids=["symbolic", "recorded"])
def test_groups_of_a_prepared_model_as_it_stands(look: Callable[[nn.Module], list[dict[str, Any]]]) -> None:
    first = prepare(net())
    groups = look(first.model)
    assert [g["param_names"] for g in groups] == [g["param_names"] for g in first.param_groups]
    for mine, theirs in zip(groups, first.param_groups, strict=True):
        assert all(p is q for p, q in zip(mine["params"], theirs["params"], strict=True))


def test_an_audit_of_a_prepared_model_that_comes_without_its_plan() -> None:
    def loss(y: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(y.mean((2, 3)), target)

    prepared, batch = prepare(net()), (X, torch.tensor([0, 1]))
    kinds = {"channels": 1, "draws": 1}
    alone, together = audit(prepared.model, loss, batch, **kinds), audit(prepared, loss, batch, **kinds)
    assert [row.name for row in alone.rows] == [row.name for row in together.rows]
    assert "3.gain" in [row.name for row in alone.rows]


def test_a_convolution_that_these_inputs_do_not_reach_is_named() -> None:
    class Either(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = Owner(), Owner()

        def forward(self, x: Tensor, other: bool = False) -> Tensor:
            return self.other(x) if other else self.one(x)

    x = torch.rand(1, 4, 2, 2)
    model = prepare(Either(), {"x": x, "other": True}).model
    before = state_of(model)
    with pytest.raises(ModelError, match=r"other\.kernel came decoupled.*prepare `restore\(model\)`"):
        prepare(model, x)
    assert state_of(model) == before


def test_a_plan_is_not_applied_twice() -> None:
    first = prepare(net())
    with pytest.raises(PlanMismatchError, match="is the model prepared already"):
        first.report.plan.apply(copy.deepcopy(first.model))


def test_its_repr_is_a_few_lines() -> None:
    text = repr(prepare(net()))
    assert text.count("\n") == 4
    assert "Sequential: 2 of 3 convolutions decoupled" in text
    assert "6 groups: 6 of 9 parameters second-order" in text


@pytest.mark.parametrize("inputs", [None, torch.rand(2, 12)], ids=["symbolic", "recorded"])
def test_a_layer_that_was_frozen_after_it_was_decoupled_stays_so_and_may_thaw(inputs: Tensor | None) -> None:
    """As where a prepared network is fine-tuned: first its head alone, then all of it."""
    torch.manual_seed(0)
    layers = (
        nn.Unflatten(1, (3, 2, 2)),
        nn.Conv2d(3, 4, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 4),
        nn.Linear(4, 2),
    )
    plain = nn.Sequential(*layers)
    model = prepare(plain, inputs, config=Config(rules={"4": "decouple"})).model
    for module in (model[1], model[4]):
        module.requires_grad_(False)
    before = state_of(model)
    plan = analyze(model, inputs)
    assert state_of(model) == before
    assert [(row.name, row.decouple) for row in plan.convolutions] == [("1", True), ("4", True)]
    assert plan.frozen == ("1.weight", "1.bias", "4.weight", "4.bias")
    assert plan.restore_state_dict(model.state_dict()).keys() == plain.state_dict().keys()
    groups = param_groups(model, inputs)
    assert {name for group in groups for name in group["param_names"]} == {"5.weight", "5.bias"}
    for name in plan.frozen:
        plain.get_parameter(name).requires_grad_(False)
    assert plan.apply(plain).state_dict().keys() == model.state_dict().keys()
    optimizer = SGDPH(groups, lr=0.1)
    model.requires_grad_(True)
    joined = optimizer.thaw(param_groups(model, inputs))
    assert sorted(joined) == sorted(f"{n}.{part}" for n in (1, 4) for part in ("direction", "gain", "bias"))


def test_a_gain_that_trains_alone_is_in_no_plan() -> None:
    model = prepare(net()).model
    model[3].direction.requires_grad_(False)
    with pytest.raises(ModelError, match=r"3\.gain trains, but 3\.direction is frozen"):
        param_groups(model)
