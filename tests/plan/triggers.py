"""The smallest thing that raises each error of plans and configurations; see tests/triggers.py."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sgdph_fx import Config, Plan, Scheme, SchemeRow, analyze, assign, param_groups, register_scheme

__all__ = ["PLAN_TRIGGERS"]


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())


def of_file(text: str) -> Config:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sgdph.toml"
        file.write_text(text)
        return Config.from_file(file)


def decoupling_what_is_frozen() -> None:
    model = net()
    model[0].weight.requires_grad_(False)  # type: ignore[index, union-attr, operator]
    analyze(model, config=Config(rules={"0": "decouple"}))


def restored(**changes: torch.Tensor) -> None:
    plan = analyze(net())
    plan.restore_state_dict({**plan.apply(net()).state_dict(), **changes})


PLAN_TRIGGERS: tuple[Callable[[], Any], ...] = (
    lambda: Config(rules={"": "keep"}),
    lambda: Config(rules={"re:(": "keep"}),
    lambda: Config(rules={"role:gian": "first-order"}),
    lambda: Config(rules=["0"]),  # type: ignore[arg-type]
    lambda: Config(rules={"0": {}}),
    lambda: Config(rules={"0": {"order": 2}}),
    lambda: Config(rules={"0": {"lr": object()}}),
    lambda: Config(silence="absorbed-bias"),
    lambda: Config.from_file("nowhere.toml"),
    lambda: of_file("policy ="),
    lambda: of_file("policy = 3"),
    decoupling_what_is_frozen,
    lambda: Plan.from_json(b"{}"),  # type: ignore[arg-type]
    lambda: Plan.from_json('{"plan": {}, "headline": ""}'),
    lambda: replace(analyze(net()), parameters=()).apply(net()),
    lambda: analyze(net()).apply(3),  # type: ignore[arg-type]
    lambda: analyze(net()).restore_state_dict({}),
    lambda: analyze(net()).restore_state_dict([torch.ones(1)]),  # type: ignore[arg-type]
    lambda: analyze(net()).restore_state_dict({0: torch.ones(1)}),  # type: ignore[dict-item]
    lambda: restored(**{"0.gain": torch.ones(2).long()}),
    lambda: restored(**{"0.gain": torch.ones(3)}),
    lambda: register_scheme(Scheme("none", ())),
    lambda: assign(analyze(net()), "none"),
    lambda: assign(analyze(net()), "muon", momentum=1),
    lambda: assign(analyze(net()), Scheme("some", (SchemeRow(("head",)),))),
    lambda: param_groups(net(), weight_decay=1),
    lambda: param_groups(net(), scheme="layer-decay", lr="0.1"),
    lambda: param_groups(net(), scheme="none"),
)
