"""torch.distributed.checkpoint: saved by two processes in the middle of a cycle, resumed by four, and by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.jobs import run_alone
from tests.distributed.worker import Task, train

NAMES = ("ddp", "ddp, pairs", "fsdp", "fsdp, pairs")


@pytest.fixture
def rest(two: Any, checkpoints: Path) -> Task:
    """What was left to do when two processes saved their states."""
    return Task(NAMES, start=6, checkpoints=str(checkpoints))


def test_twice_as_many_go_on(launch: Any, rest: Task) -> None:
    found = launch(4, rest)
    for name in NAMES:
        for parameters in found[name]:
            torch.testing.assert_close(parameters, run_alone(name), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:.*torch.distributed is disabled:UserWarning")
def test_one_alone_goes_on(rest: Task, name: str) -> None:
    trainer = train(name, rest)
    torch.testing.assert_close(trainer.parameters(), run_alone(name), rtol=1e-10, atol=1e-10)
    assert trainer.optimizer.param_groups[0]["step"] == 14
