"""torch.distributed.checkpoint: saved by two processes, resumed by two, four, and one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.jobs import run_alone
from tests.distributed.worker import Task, train

NAMES = ["ddp", "fsdp"]


@pytest.fixture(scope="module")
def saved(launch: Any, tmp_path_factory: pytest.TempPathFactory) -> Task:
    """The task that goes on where two processes stopped, in the middle of a cycle."""
    folder = tmp_path_factory.mktemp("checkpoints")
    launch(2, Task(NAMES, stop=7, checkpoints=str(folder)))
    return Task(NAMES, start=6, checkpoints=str(folder))


def test_as_many_processes_go_on_with_the_same_bits(launch: Any, saved: Task, two: Any) -> None:
    found = launch(2, saved)
    for name in NAMES:
        torch.testing.assert_close(found[name], two[name], rtol=0, atol=0)


def test_twice_as_many_go_on_too(launch: Any, saved: Task) -> None:
    found = launch(4, saved)
    for name in NAMES:
        for parameters in found[name]:
            torch.testing.assert_close(parameters, run_alone(name), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:.*torch.distributed is disabled:UserWarning")
def test_and_so_does_one_alone(saved: Task, name: str, tmp_path: Path) -> None:
    # It saves nothing that the others would load.
    trainer = train(name, replace(saved, save=False))
    torch.testing.assert_close(trainer.parameters(), run_alone(name), rtol=1e-10, atol=1e-10)
    assert trainer.optimizer.param_groups[0]["step"] == 14
