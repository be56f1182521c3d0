"""All JSON that is written is what the published schema says, by an independent validator."""

import json
from importlib.resources import files
from typing import Any, get_args

import jsonschema
import pytest
import torch
from torch import nn

from sgdph_fx import Config, analyze, prepare
from sgdph_fx.plan.diff import plan_changes
from sgdph_fx.plan.entries import Policy, Role, Verdict, Way
from sgdph_fx.report.plan_diff import as_json

SCHEMA = json.loads(files("sgdph_fx.report").joinpath("schema/sgdph-fx-1.schema.json").read_text())


def validate(text: str, definition: str) -> None:
    schema = {**SCHEMA, "$ref": f"#/$defs/{definition}"}
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))


def net() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.ConvTranspose2d(4, 2, 3))
    net[3].bias.requires_grad_(False)
    return net


@pytest.mark.parametrize("inputs", [None, torch.zeros(2, 3, 8, 8)])
def test_reports_and_plans_are_valid(inputs: Any) -> None:
    report = prepare(net(), inputs).report
    validate(report.to_json(), "report")
    validate(report.plan.to_json(), "plan")


def test_changes_are_valid() -> None:
    plans = analyze(net()), analyze(net(), config=Config(rules={"3": "keep"}))
    assert json.loads(as_json(plan_changes(*plans)))["changes"] != []
    validate(as_json(plan_changes(*plans)), "changes")


def test_what_is_not_in_the_schema_is_refused() -> None:
    data = json.loads(analyze(net()).to_json())
    for wrong in ({**data, "version": 2}, {**data, "more": 1}, {**data, "policy": "loose"}):
        with pytest.raises(jsonschema.ValidationError):
            validate(json.dumps(wrong), "plan")


def test_the_words_that_it_allows_are_those_of_the_types() -> None:
    define = SCHEMA["$defs"]
    assert define["parameter"]["properties"]["role"]["enum"] == [*get_args(Role)]
    assert define["convolution"]["properties"]["verdict"]["enum"] == [*get_args(Verdict)]
    assert define["plan"]["properties"]["policy"]["enum"] == [*get_args(Policy)]
    assert define["plan"]["properties"]["way"]["enum"] == [*get_args(Way)]
