"""Linear layers get gain and direction by a rule, step as torch's own weight normalization does, and are restored."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from sgdph_fx import Config, Plan, analyze, param_groups, prepare, restore
from sgdph_fx.errors import ConfigError


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3, bias=False)
    return nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), *layers).double()


X = torch.randn(6, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("rule", ["type:Linear", "re:[35]"])
def test_a_rule_decouples_them(rule: str) -> None:
    model = net()
    prepared, groups, report = prepare(model, X, config=Config(rules={rule: "decouple"}))
    plan = report.plan
    assert [(e.name, e.kind, e.decouple) for e in plan.convolutions] == [
        ("0", "Conv2d", False), ("3", "Linear", True), ("5", "Linear", True),
    ]  # fmt: skip
    found = {e.name: (e.role, e.order, e.shape) for e in plan.parameters if e.name[0] in "35"}
    assert found == {
        "3.direction": ("direction", 1, (8, 12)),
        "3.gain": ("gain", 2, (8,)),
        "3.bias": ("bias", 2, (8,)),
        "5.direction": ("direction", 1, (3, 8)),
        "5.gain": ("gain", 2, (3,)),
    }
    assert isinstance(prepared[3], nn.Linear)
    assert torch.equal(prepared.eval()(X), model.eval()(X))
    assert Plan.from_json(plan.to_json()) == plan
    assert {g["role"] for g in groups} >= {"direction", "gain"}
    assert list(restore(prepared).state_dict()) == list(model.state_dict())


def test_they_step_as_torch_s_weight_normalization() -> None:
    ours = prepare(net(), X, config=Config(rules={"type:Linear": "decouple"})).model
    theirs = net()
    for place in (3, 5):
        weight_norm(theirs[place])  # type: ignore[index]
    for model in (ours, theirs):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        for _ in range(4):
            model.zero_grad()
            model.train()(X).pow(2).mean().backward()
            optimizer.step()
    torch.testing.assert_close(ours(X), theirs(X), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(restore(ours)[3].weight, theirs[3].weight, rtol=1e-12, atol=1e-14)  # type: ignore[index, union-attr]


def test_without_a_rule_they_stay_and_a_glob_is_for_convolutions() -> None:
    for rules in ({}, {"*": "decouple"}):
        config = Config(rules=rules)  # type: ignore[arg-type]
        assert [e.name for e in analyze(net(), config=config).convolutions] == ["0"]


def test_groups_of_the_model_as_it_stands_hold_its_weights() -> None:
    model = net()
    groups = param_groups(model, config=Config(rules={"3": "decouple"}))
    assert {n for g in groups for n in g["param_names"]} == {n for n, _ in model.named_parameters()}


def share(model: Any) -> None:
    model.append(copy.deepcopy(model[3]))
    model[6].weight = model[3].weight


def make_sparse(model: Any) -> None:
    model[3].weight = nn.Parameter(model[3].weight.detach().to_sparse())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: m[3].weight.requires_grad_(False), "its weight is frozen"),
        (lambda m: weight_norm(m[3]), "computed by a reparameterization"),
        (lambda m: m[3].to(torch.complex64), "its weight is complex"),
        (make_sparse, "its weight is sparse"),
        (share, "another module has the same weight"),
    ],
    ids=["frozen", "reparametrized", "complex", "sparse", "shared"],
)
def test_those_that_cannot_be_decoupled_say_why(change: Any, why: str) -> None:
    model = net()
    change(model)
    model.forward = lambda x: nn.Sequential(*model[:6])(x)  # type: ignore[method-assign, index, assignment]
    with pytest.raises(ConfigError, match=why):
        analyze(model, config=Config(rules={"3": "decouple"}))
