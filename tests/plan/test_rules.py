"""Rules: what each kind of pattern matches, what a rule does, and what is said where it matches nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.convnext import LayerNorm2d

from sgdph_fx import Config, Plan, analyze, param_groups, prepare
from sgdph_fx.errors import ConfigError
from sgdph_fx.plan.diff import plan_changes


class Net(nn.Module):
    """Two stages of convolutions, of which the second has a norm, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.layer4 = nn.Sequential(nn.Conv2d(4, 4, 3), nn.GELU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
        self.norm, self.fc = LayerNorm2d(4), nn.Linear(4, 2)
        self.old = nn.Linear(4, 4).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.old(self.norm(self.layer4(self.stem(x))).mean((2, 3))))


def decoupled(rules: dict[str, Any]) -> set[str]:
    return {entry.name for entry in analyze(Net(), config=Config(rules=rules)).decoupled}


def second(rules: dict[str, Any]) -> set[str]:
    return {entry.name for entry in analyze(Net(), config=Config(rules=rules)).second_order}


ALL = {"stem.0", "layer4.0"}


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ("layer4", {"layer4.0"}),
        ("layer4.0", {"layer4.0"}),
        ("layer4.*", {"layer4.0"}),
        ("layer4.0.weight", {"layer4.0"}),
        ("*", ALL),
        ("s*", {"stem.0"}),
        ("re:layer[0-9]", {"layer4.0"}),
        (r"re:(stem|layer4)\.0", ALL),
        ("type:Conv2d", ALL),
        ("type:_ConvNd", ALL),
        ("type:Sequential", ALL),
        ("type:Net", ALL),
    ],
)
def test_what_a_pattern_matches_among_convolutions(pattern: str, kept: set[str]) -> None:
    assert decoupled({}) == ALL
    assert decoupled({pattern: "keep"}) == ALL - kept


@pytest.mark.parametrize(
    ("pattern", "changed"),
    [
        ("layer4", {"layer4.0.gain", "layer4.0.bias", "layer4.2.bias", "layer4.3.weight", "layer4.3.bias"}),
        ("layer4.0.weight", {"layer4.0.gain"}),  # the weight that direction and gain stand for
        ("*.gain", {"stem.0.gain", "layer4.0.gain"}),
        (r"re:.*3\.bias", {"layer4.3.bias"}),
        ("type:LayerNorm", {"norm.weight", "norm.bias"}),  # torchvision's LayerNorm2d derives from it
        ("type:Batch*", {"layer4.3.weight", "layer4.3.bias"}),
        ("role:gain", {"stem.0.gain", "layer4.0.gain"}),
        ("role:norm.bias", {"layer4.3.bias", "norm.bias"}),
    ],
)
def test_what_a_pattern_matches_among_parameters(pattern: str, changed: set[str]) -> None:
    assert second({}) - second({pattern: "first-order"}) == changed


def test_a_module_means_the_same_to_every_action() -> None:
    plan = analyze(Net(), config=Config(rules={"layer4": "keep", "stem": "first-order"}))
    assert {entry.name for entry in plan.decoupled} == {"stem.0"}
    assert {e.order for e in plan.parameters if e.name.startswith("stem")} == {1}


def test_a_name_that_reads_as_a_glob_is_a_name_too() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleDict({name: nn.Conv2d(3, 3, 1) for name in ("at[1]", "at1", "at[2]")})

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks.values():
                x = block(x)
            return x

    plan = analyze(Named(), config=Config(rules={"blocks.at[1]": "keep", "blocks.at[2].bias": "first-order"}))
    # As a glob the first one is at1, which it goes on to match, and the second matches nothing.
    assert [entry.name for entry in plan.decoupled] == ["blocks.at[2]"]
    assert [entry.name for entry in plan.parameters if entry.role == "bias" and entry.order == 1] == [
        "blocks.at[2].bias"
    ]


def test_options_make_groups_of_their_own() -> None:
    rules: dict[str, Any] = {
        "role:bias": {"weight_decay": 0.0},
        "fc": {"lr": 0.5, "action": "first-order"},
        "fc.bias": {"weight_decay": 0.1, "betas": [0.9, 0.99]},
    }
    model, groups, report = prepare(Net(), config=Config(rules=rules))
    plan = report.plan
    options = {e.name: dict(e.options) for e in plan.parameters if e.options}
    assert options == {
        "stem.0.bias": {"weight_decay": 0.0},
        "layer4.0.bias": {"weight_decay": 0.0},
        "layer4.2.bias": {"weight_decay": 0.0},
        "fc.weight": {"lr": 0.5},
        "fc.bias": {"weight_decay": 0.1, "lr": 0.5, "betas": (0.9, 0.99)},
    }
    assert {e.name: e.order for e in plan.parameters if e.name.startswith("fc")} == {
        "fc.weight": 1,
        "fc.bias": 1,
    }
    by_name = {name: group for group in groups for name in group["param_names"]}
    assert by_name["fc.bias"]["betas"] == (0.9, 0.99)
    assert by_name["fc.bias"] is not by_name["stem.0.bias"]
    assert by_name["stem.0.bias"]["name"] == "second-order bias (weight_decay=0.0)"
    assert "weight_decay" not in by_name["stem.0.gain"]
    members = [id(p) for group in groups for p in group["params"]]
    assert sorted(members) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.01)
    rates = {n: g["lr"] for g in optimizer.param_groups for n in g["param_names"]}
    assert (rates["fc.weight"], rates["stem.0.gain"]) == (0.5, 0.1)


def test_options_are_kept_in_the_plan_and_show_in_its_differences() -> None:
    plan = analyze(
        Net(), config=Config(rules={"fc.bias": {"lr_factor": 0.1, "betas": [0.9, 0.99], "steps": 5}})
    )
    assert Plan.from_json(plan.to_json()) == plan
    (change,) = plan_changes(analyze(Net()), plan)
    assert (change.name, change.before) == ("fc.bias", "second-order bias of shape 2")
    assert change.after == "second-order bias of shape 2, betas=(0.9, 0.99), lr_factor=0.1, steps=5"
    assert '"options"' not in analyze(Net()).to_json()  # as releases before options wrote it


@pytest.mark.parametrize("value", [-3, 1e30, -0.5, (0, 1), [0.0, -1], True, None, "a", 2**63 - 1, ()])
def test_an_option_comes_back_from_a_plan_as_it_was(value: Any) -> None:
    plan = analyze(Net(), config=Config(rules={"fc.bias": {"option": value}}))
    read = Plan.from_json(plan.to_json())
    assert plan_changes(plan, read) == ()
    (there,) = (entry.options["option"] for entry in read.parameters if entry.options)
    assert repr(there) == repr(tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("value", [math.inf, [1.0, math.nan], 10**400, -(2**63), [2**63], [True], [[1]], {}])
def test_an_option_that_no_plan_can_hold_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="an option is a finite number"):
        Config(rules={"fc.bias": {"option": value}})


def test_options_reach_the_groups_of_a_model_as_it_stands() -> None:
    groups = param_groups(Net(), config=Config(rules={"fc": {"lr": 0.5}}))
    assert {n for g in groups if g.get("lr") == 0.5 for n in g["param_names"]} == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            {"fc": "keep"},
            "matches no convolution of the model; fc is a Linear, and no convolution lies in it.",
        ),
        ({"type:GELU": "decouple"}, "layer4.1 is a GELU, and no convolution lies in it."),
        ({"old.weight": "second-order"}, "what it matches is frozen, and in no group."),
        ({"layer": "keep"}, "the nearest name is 'layer4'."),
        ({"layer4.1": "first-order"}, "layer4.1 is a GELU, and no trainable parameter lies in it."),
        (
            {"backbone": "keep"},
            "no name is like it; those that begin the names of each convolution are stem, layer4.",
        ),
        ({"role:gain": "keep"}, "matches no convolution"),
        ({"xyz": {"lr": 0.1}}, "The rule 'xyz': {'lr': 0.1} matches no trainable parameter"),
    ],
)
def test_a_rule_that_matches_nothing_says_what_is_there(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        analyze(Net(), config=Config(rules=rules))
    assert message in str(error.value)


def test_a_rule_cannot_decouple_what_cannot_be() -> None:
    model = Net()
    model.stem[0].weight.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"stem\.0 \(Conv2d\) cannot be decoupled: its weight is frozen"):
        analyze(model, config=Config(rules={"stem.0": "decouple"}))
    # A glob passes over it.
    plan = analyze(model, config=Config(rules={"*": "decouple"}))
    assert {entry.name for entry in plan.decoupled} == {"layer4.0", "layer4.2"}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"re:[": "keep"}, "is no regular expression"),
        ({"role:gian": "first-order"}, "names no role; choose one of 'norm.weight'"),
        ({"": "keep"}, "names nothing"),
        ({"fc": {}}, "is empty"),
        ({"fc": {"params": 1}}, "sets 'params', which a parameter group says about itself"),
        ({"fc": {"lr": float("nan")}}, "an option is a finite number"),
        ({"fc": {"lr": object()}}, "an option is a finite number"),
        ({"fc": {"action": "drop"}}, "'drop' is not known"),
        (["keep"], "rules is a list; pass a mapping"),
    ],
)
def test_rules_that_mean_nothing(rules: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Config(rules=rules)
    assert message in str(error.value)
