"""What is saved beside a training comes back as it was, and a file that does not fit leaves the model alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sgdph_fx import SGDPH, load, param_groups, prepare, save
from sgdph_fx.errors import CheckpointError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 2))


def step(model: nn.Module, optimizer: SGDPH) -> None:
    optimizer.backward(model(torch.ones(2, 3, 8, 8)).square().mean())
    optimizer.step()


def test_a_scheduler_goes_on_to_its_milestones(tmp_path: Path) -> None:
    prepared = prepare(network())
    optimizer = SGDPH(prepared.param_groups, 0.8)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 3], gamma=0.5)
    step(prepared.model, optimizer)
    scheduler.step()
    save(tmp_path / "run.safetensors", prepared, optimizer, extra={"scheduler": scheduler.state_dict()})
    model, resumed, _, extra = load(tmp_path / "run.safetensors", network())
    assert resumed is not None
    other = torch.optim.lr_scheduler.MultiStepLR(resumed, [1, 3], gamma=0.5)
    other.load_state_dict(extra["scheduler"])
    rates = []
    for _ in range(3):
        step(model, resumed)
        other.step()
        rates.append(resumed.param_groups[0]["lr"])
    assert rates == [0.4, 0.2, 0.2]  # 0.8 halved by 1 step before saving, and by the 3rd


@pytest.mark.parametrize(
    "value",
    [{3: {None: [1, {2.5: "a"}]}, "b": 1}, {True: 1}, {"__pairs__": 1}, {"__pairs__": {4: []}}, [{}, {"": {0: 0}}]],
)  # fmt: skip
def test_what_is_saved_beside_comes_back_with_its_keys(tmp_path: Path, value: Any) -> None:
    prepared = prepare(network())
    save(tmp_path / "run.safetensors", prepared, extra={"value": value})
    found = load(tmp_path / "run.safetensors", network()).extra["value"]
    assert repr(found) == repr(value)


def test_what_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    prepared = prepare(network())
    endless: list[Any] = []
    endless.append(endless)
    for value in ({(1, 2): 3}, {1, 2}, endless, torch.zeros(2)):
        with pytest.raises(CheckpointError, match="JSON cannot hold extra"):
            save(tmp_path / "run.safetensors", prepared, extra={"value": value})
    assert not list(tmp_path.iterdir())


def test_a_file_that_does_not_fit_leaves_the_model_plain(tmp_path: Path) -> None:
    prepared = prepare(network())
    save(tmp_path / "run.safetensors", prepared, SGDPH(prepared.param_groups, 0.1))
    other = network()
    other.register_buffer(
        "seen", torch.zeros(3)
    )  # the plan speaks of parameters alone, so this fails after it
    before, classes = dict(other.state_dict()), [type(module) for module in other.modules()]
    for optimizer in (None, SGDPH(param_groups(other), 0.1)):
        with pytest.raises(CheckpointError, match="seen is missing"):
            load(tmp_path / "run.safetensors", other, optimizer, inplace=True)
        assert [type(module) for module in other.modules()] == classes
        assert other.state_dict().keys() == before.keys()
        assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())
