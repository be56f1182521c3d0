"""One file holds a whole training, and gives it back with the same bits, or is refused and changes nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DataParallel

from sgdph_fx import SGDPH, load, param_groups, prepare, restore, save
from sgdph_fx.errors import CheckpointError, OptimizerError, PlanMismatchError, SgdphError

EXAMPLE = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network(seed: int = 0, bare: bool = True) -> nn.Sequential:
    torch.manual_seed(seed)
    last = [nn.Conv2d(4, 4, 3), nn.Tanh()] if bare else [nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4), nn.Tanh()]
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), *last), nn.Flatten(), nn.Linear(64, 2)
    )


def data(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [
        (torch.randn(6, 3, 8, 8, generator=generator), torch.randint(2, (6,), generator=generator))
        for _ in range(count)
    ]


def train(model: nn.Module, optimizer: SGDPH | None, batches: list[Any]) -> None:
    assert optimizer is not None
    for x, y in batches:
        optimizer.zero_grad()
        optimizer.backward(nn.functional.cross_entropy(model(x), y))
        optimizer.step()


def same_bits(a: nn.Module, b: nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("way", ["fresh model", "prepared model", "own optimizer", "in place"])
@pytest.mark.parametrize("stop", [2, 7])
def test_a_training_goes_on_with_the_same_bits(tmp_path: Path, way: str, stop: int, bare: bool) -> None:
    options: dict[str, Any] = {"weight_decay": 0.01, "probe": "rademacher", "seed": 3, "hessian_interval": 2}
    prepared = prepare(network(bare=bare), EXAMPLE)
    optimizer = SGDPH(prepared.param_groups, 0.05, **options)
    train(prepared.model, optimizer, data(16)[:stop])
    file = tmp_path / "run.safetensors"
    save(file, prepared, optimizer, extra={"epoch": stop})
    train(prepared.model, optimizer, data(16)[stop:])

    fresh = network(seed=5, bare=bare)
    before = copy.deepcopy(fresh.state_dict())
    other = prepare(fresh, EXAMPLE)
    if way == "fresh model":
        found = load(file, fresh)
        assert all(torch.equal(before[key], value) for key, value in fresh.state_dict().items())
    elif way == "in place":
        found = load(file, fresh, inplace=True)
        assert found.model is fresh
    elif way == "prepared model":
        found = load(file, other.model)
        assert found.model is not other.model
    else:
        mine = SGDPH(other.param_groups, 0.9, probe="rademacher", hessian_interval=2)
        found = load(file, other.model, mine)
        assert found.optimizer is mine
        assert found.model is other.model
    assert found.extra == {"epoch": stop}
    assert found.plan == prepared.report.plan
    train(found.model, found.optimizer, data(16)[stop:])
    assert same_bits(prepared.model, found.model)


def test_without_an_optimizer_it_is_the_model_and_plain_weights_beside_it_are_plain(tmp_path: Path) -> None:
    prepared = prepare(network(), EXAMPLE)
    train(prepared.model, SGDPH(prepared.param_groups, 0.05), data(3))
    save(tmp_path / "a.safetensors", prepared, plain=tmp_path / "plain.safetensors")
    found = load(tmp_path / "a.safetensors", network(seed=7))
    assert found.optimizer is None
    assert same_bits(found.model, prepared.model)
    plain = network(seed=9)
    plain.load_state_dict(load_file(tmp_path / "plain.safetensors"))
    torch.testing.assert_close(plain.eval()(EXAMPLE), restore(prepared.model).eval()(EXAMPLE))
    with pytest.raises(CheckpointError, match="saved without an optimizer"):
        load(tmp_path / "a.safetensors", prepared.model, SGDPH(prepared.param_groups, 0.1))


def test_a_model_alone_needs_its_plan_and_may_be_wrapped(tmp_path: Path) -> None:
    model, groups, report = prepare(network(), EXAMPLE)
    optimizer = SGDPH(groups, 0.05)
    with pytest.raises(CheckpointError, match=r"needs the plan.*plan=report\.plan"):
        save(tmp_path / "a.safetensors", model, optimizer)
    save(tmp_path / "a.safetensors", DataParallel(model), optimizer, plan=report.plan)
    assert same_bits(load(tmp_path / "a.safetensors", network()).model, model)


def test_a_run_with_thawed_parameters_needs_no_thawing_to_go_on(tmp_path: Path) -> None:
    def frozen(seed: int) -> nn.Module:
        net = network(seed)
        net[:2].requires_grad_(False)
        return net

    prepared = prepare(frozen(0), EXAMPLE)
    optimizer = SGDPH(prepared.param_groups, 0.05)
    train(prepared.model, optimizer, data(12)[:3])
    prepared.model.requires_grad_(True)
    optimizer.thaw(param_groups(prepared.model, EXAMPLE))
    train(prepared.model, optimizer, data(12)[3:6])
    save(tmp_path / "run.safetensors", prepared, optimizer)
    train(prepared.model, optimizer, data(12)[6:])
    model, resumed, _, _ = load(tmp_path / "run.safetensors", frozen(4))
    assert all(p.requires_grad for p in model.parameters())
    train(model, resumed, data(12)[6:])
    assert same_bits(prepared.model, model)


def test_weights_that_are_tied_and_a_rate_that_is_a_tensor_are_kept(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.norm, self.two = nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.two(self.norm(self.one(x)))
            return out

    x = torch.randn(3, 4)
    prepared = prepare(Tied(), x)
    optimizer = SGDPH(prepared.param_groups, torch.tensor(0.25))
    optimizer.backward(prepared.model(x).square().mean())
    optimizer.step()
    save(tmp_path / "run.safetensors", prepared, optimizer)
    found = load(tmp_path / "run.safetensors", Tied())
    assert found.model.one.weight is found.model.two.weight
    assert found.optimizer is not None
    assert float(found.optimizer.param_groups[0]["lr"]) == 0.25
    assert same_bits(found.model, prepared.model)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    prepared = prepare(network(), EXAMPLE)
    file = tmp_path / "run.safetensors"
    save(file, prepared, extra={"epoch": 1})
    before = file.read_bytes()
    prepared.model.register_buffer("odd", torch.eye(2).to_sparse())
    with pytest.raises(CheckpointError, match="could not be written"):
        save(file, prepared, extra={"epoch": 2})
    with pytest.raises(CheckpointError, match="JSON cannot hold extra"):
        save(file, prepared, extra={"epoch": torch.ones(1)})
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]


def rewrite(file: Path, change: Callable[[dict[str, Tensor], dict[str, str]], Any]) -> None:
    import safetensors

    with safetensors.safe_open(str(file), "pt") as opened:
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        metadata = dict(opened.metadata())
    change(tensors, metadata)
    save_file(tensors, file, metadata)


def edit_group(metadata: dict[str, str], **values: Any) -> None:
    optimizer = json.loads(metadata["optimizer"])
    optimizer["param_groups"][0].update(values)
    metadata["optimizer"] = json.dumps(optimizer)


DAMAGES: dict[str, Callable[[dict[str, Tensor], dict[str, str]], Any]] = {
    "another format": lambda t, m: m.update(format="pt"),
    "another version": lambda t, m: m.update(version="0"),
    "no plan": lambda t, m: m.pop("plan"),
    "plan is no plan": lambda t, m: m.update(plan="{}"),
    "optimizer is no JSON": lambda t, m: m.update(optimizer="{"),
    "optimizer is a list": lambda t, m: m.update(optimizer="[]"),
    "groups are a number": lambda t, m: m.update(optimizer='{"state": {}, "param_groups": 3}'),
    "deeply nested": lambda t, m: m.update(extra="[" * 100000),
    "a weight is missing": lambda t, m: t.pop("model.0.weight"),
    "a weight has another shape": lambda t, m: t.update({"model.0.weight": torch.ones(1)}),
    "a weight is too many": lambda t, m: t.update({"model.9.weight": torch.ones(1)}),
    "a momentum has another shape": lambda t, m: t.update({"optimizer.0.momentum_buffer": torch.ones(1)}),
    "a tensor of no parameter": lambda t, m: t.update({"optimizer.x.momentum_buffer": torch.ones(1)}),
    "a negative rate": lambda t, m: edit_group(m, lr=-1.0),
    "a step that is text": lambda t, m: edit_group(m, step="two"),
}


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_and_nothing_changes(tmp_path: Path, damage: str, own: bool) -> None:
    prepared = prepare(network(), EXAMPLE)
    optimizer = SGDPH(prepared.param_groups, 0.05)
    train(prepared.model, optimizer, data(2))
    file = tmp_path / "run.safetensors"
    save(file, prepared, optimizer)
    rewrite(file, DAMAGES[damage])
    other = prepare(network(seed=3), EXAMPLE)
    mine = SGDPH(other.param_groups, 0.3) if own else None
    train(other.model, mine or SGDPH(other.param_groups, 0.3), data(1))
    before = copy.deepcopy((other.model.state_dict(), mine.state_dict() if mine else None))
    with pytest.raises(SgdphError):
        load(file, other.model, mine)
    after = (other.model.state_dict(), mine.state_dict() if mine else None)
    assert all(torch.equal(before[0][key], value) for key, value in after[0].items())
    assert repr(after[1]) == repr(before[1])


def test_other_files_and_other_models_are_refused_by_name(tmp_path: Path) -> None:
    text = tmp_path / "text.safetensors"
    text.write_text("not a checkpoint")
    for file in (text, tmp_path / "nowhere.safetensors"):
        with pytest.raises(CheckpointError, match=f"{file.name} could not be read"):
            load(file, network())
    weights = tmp_path / "weights.safetensors"
    save_file(dict(network().state_dict()), weights)
    with pytest.raises(CheckpointError, match=r"no checkpoint of version 1.*load_state_dict"):
        load(weights, network())
    prepared = prepare(network(), EXAMPLE)
    optimizer = SGDPH(prepared.param_groups, 0.05)
    file = tmp_path / "run.safetensors"
    save(file, prepared, optimizer)
    with pytest.raises(PlanMismatchError):
        load(file, nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(CheckpointError, match="holds parameters that are not this model's"):
        load(file, prepare(network(), EXAMPLE).model, optimizer)
    other = prepare(network(), EXAMPLE)
    with pytest.raises(OptimizerError, match="saved with variant='authors'"):
        load(file, other.model, SGDPH(other.param_groups, 0.1, variant="paper"))
    unnamed = [{k: v for k, v in g.items() if k != "param_names"} for g in prepared.param_groups]
    save(file, prepared, SGDPH(unnamed, 0.1))
    with pytest.raises(CheckpointError, match="do not name the model's parameters"):
        load(file, network())
