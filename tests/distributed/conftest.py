"""Jobs of several processes, started as torchrun starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

from tests.distributed.jobs import JOBS
from tests.distributed.worker import Task

ROOT = Path(__file__).parents[2]

Found: TypeAlias = "list[dict[str, Tensor]]"
"""The parameters of each rank."""

Launch: TypeAlias = Callable[[int, Task], "dict[str, Any]"]


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """For every test here."""


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """``torchrun`` with a number of processes; returns, for each job, what each rank found."""

    def start(world: int, task: Task) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("ranks")
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"),
            *("-m", "tests.distributed.worker", str(folder), json.dumps(asdict(task))),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        # Not by the exit code: now and then torch aborts a process that has done all its work, as it ends
        # ("terminate called without an active exception").
        return {
            name: [_read(folder / f"{name}-{rank}.pt", done.stderr) for rank in range(world)]
            for name in task.names
        }

    return start


def _read(file: Path, errors: str) -> dict[str, Tensor]:
    assert file.exists(), errors
    found = torch.load(file, weights_only=True)
    assert isinstance(found, dict), found
    return found


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``two`` saves."""
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="session")
def two(launch: Launch, checkpoints: Path) -> dict[str, Any]:
    """Every job, by two processes; the states of the plainest are saved on the way."""
    return launch(
        2, Task(tuple(JOBS), checkpoints=str(checkpoints), saved=("ddp", "ddp, pairs", "fsdp", "fsdp, pairs"))
    )
