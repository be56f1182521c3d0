"""An error at every line of the program's own code, one after the other, and what it leaves behind.

Each scenario makes something, does one thing with it, and looks at what is left when that was broken off. A test tries
a sample of the lines; all of them::

    python -m tests.faults --every 1
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sgdph_fx import SGDPH, analyze, prepare, restore, save
from tests.injected import damage_to_torch, run
from tests.trace.states import state_of

__all__ = ["SCENARIOS", "Scenario", "lines_of", "tried"]

X = torch.rand(4, 3, 8, 8)


@dataclass(frozen=True)
class Scenario:
    """What is broken off: ``make`` what it works on, ``act``, and ``damage``, which is empty if all is whole."""

    make: Callable[[], Any]
    act: Callable[[Any], Any]
    damage: Callable[[Any], str]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    convolutions = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1)
    model = nn.Sequential(*convolutions, nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))
    model(X).sum().backward()
    return model


def trained(steps: int = 2) -> tuple[nn.Module, SGDPH]:
    model, groups, _ = prepare(net(), X)
    optimizer = SGDPH(groups, lr=0.01)
    for _ in range(steps):
        train(model, optimizer)
    return model, optimizer


def train(model: nn.Module, optimizer: SGDPH) -> None:
    backward(model, optimizer)
    optimizer.step()


def backward(model: nn.Module, optimizer: SGDPH) -> None:
    def loss() -> torch.Tensor:
        return model(X).square().mean()

    optimizer.zero_grad()
    optimizer.backward(loss(), hessian_loss=loss)


def as_before(made: tuple[nn.Module, Any]) -> str:
    return "" if state_of(made[0]) == made[1] else "the model is another"


def as_before_or_restored(made: tuple[nn.Module, Any]) -> str:
    plain = not any(hasattr(module, "gain") for module in made[0].modules())
    return "" if plain else as_before(made)


def trains_on(made: tuple[nn.Module, SGDPH, Any]) -> str:
    model, optimizer, parameters = made
    if parameters is not None and not same(parameters[0], list(model.parameters())):
        return "a parameter changed without a step"
    if parameters is not None and any(
        a is not b for a, b in zip(parameters[1], model.buffers(), strict=True)
    ):
        return "a buffer is another one"
    train(model, optimizer)
    optimizer.load_state_dict(optimizer.state_dict())
    return "" if all(bool(p.isfinite().all()) for p in model.parameters()) else "a parameter is not finite"


def one_of_two(made: tuple[SGDPH, Any, Any]) -> str:
    optimizer, old, new = made
    now = optimizer.state_dict()
    return "" if same(now, old) or same(now, new) else "half of a state is loaded"


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def pictured(inplace: bool = False) -> tuple[nn.Module, Any]:
    model = prepare(net(), X).model if inplace else net()
    return model, state_of(model)


def beside_a_step() -> tuple[nn.Module, SGDPH, Any]:
    model, optimizer = trained()
    backward(model, optimizer)
    return model, optimizer, None


def beside_a_backward() -> tuple[nn.Module, SGDPH, Any]:
    model, optimizer = trained()
    return model, optimizer, (copy.deepcopy(list(model.parameters())), list(model.buffers()))


def two_states() -> tuple[SGDPH, Any, Any]:
    model, optimizer = trained()
    earlier = copy.deepcopy(optimizer.state_dict())
    train(model, optimizer)
    return optimizer, copy.deepcopy(optimizer.state_dict()), earlier


def contents(file: Path) -> tuple[Any, bytes]:
    """Header and numbers of a safetensors file, whose metadata come in any order."""
    whole = file.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    return json.loads(whole[8:end]), whole[end:]


def a_file() -> tuple[Any, SGDPH, Path, Any]:
    result = prepare(net(), X)
    optimizer = SGDPH(result.param_groups, lr=0.01)
    file = Path(tempfile.mkdtemp()) / "training.safetensors"
    save(file, result, optimizer)
    old = contents(file)
    train(result.model, optimizer)
    return result, optimizer, file, old


def whole_file(made: tuple[Any, SGDPH, Path, Any]) -> str:
    result, optimizer, file, old = made
    now = contents(file)
    save(file, result, optimizer)
    if [left.name for left in file.parent.iterdir()] != [file.name]:
        return "the next writer left something beside the file"
    return "" if now in (old, contents(file)) else "the file is neither the old one nor the new one"


SCENARIOS: dict[str, Scenario] = {
    "analyze": Scenario(pictured, lambda made: analyze(made[0], X), as_before),
    "prepare": Scenario(pictured, lambda made: prepare(made[0], X), as_before),
    "prepare in place": Scenario(pictured, lambda made: prepare(made[0], X, inplace=True), as_before),
    "restore in place": Scenario(
        lambda: pictured(inplace=True), lambda made: restore(made[0], inplace=True), as_before_or_restored
    ),
    "backward": Scenario(beside_a_backward, lambda made: backward(*made[:2]), trains_on),
    "step": Scenario(beside_a_step, lambda made: made[1].step(), trains_on),
    "load_state_dict": Scenario(two_states, lambda made: made[0].load_state_dict(made[2]), one_of_two),
    "save": Scenario(a_file, lambda made: save(made[2], made[0], made[1]), whole_file),
}


def lines_of(scenario: Scenario) -> int:
    """How many lines of the program's own code an undisturbed run passes."""
    made = scenario.make()
    return run(lambda: scenario.act(made)).lines


def tried(scenario: Scenario, at: int, error: BaseException) -> str:
    """What an error at line number ``at`` leaves damaged; empty if nothing."""
    made = scenario.make()
    if not run(lambda: scenario.act(made), at, error).is_broken_off:
        return ""
    return damage_to_torch() or scenario.damage(made)


def main() -> None:
    """Count the faults that were tried, and print each that left damage."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--every", type=int, default=1, help="try each line whose number this divides")
    every = parser.parse_args().every
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name, scenario in SCENARIOS.items():
        places = range(every, lines_of(scenario) + 1, every)
        found = [(at, damage) for at in places if (damage := tried(scenario, at, MemoryError("injected")))]
        print(f"{name}: {len(places)} faults, {len(found)} left damage {found[:9] or ''}", flush=True)


if __name__ == "__main__":
    main()
