"""One process of several: ``python -m tests.distributed.worker FOLDER TASK``, the task as JSON."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
import warnings
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from tests.distributed.jobs import JOBS, Trainer
from tests.distributed.network import batches


@dataclass(frozen=True)
class Task:
    """What to train, from where on, and what happens on the way.

    Args:
        names: Jobs, one after the other.
        start: The first step; its state is loaded unless it is 0.
        checkpoints: Where states are.
        saved: The jobs whose states are saved there at every third step.
        fails: ``"dies"`` or ``"hangs"``: what becomes of rank 1 at step 8.
        timeout: Seconds that a rank waits for another.
    """

    names: tuple[str, ...]
    start: int = 0
    checkpoints: str = ""
    saved: tuple[str, ...] = ()
    fails: str | None = None
    timeout: int = 60


def train(name: str, task: Task, rank: int = 0, world: int = 1) -> Trainer:
    """Do one job of the task."""
    trainer = Trainer(JOBS[name], rank, world)
    data = batches(JOBS[name].steps)
    if task.start:
        load(trainer, checkpoint(task, name, task.start))
    for t in range(task.start, len(data)):
        if name in task.saved and t % 3 == 0 and t > task.start:
            save(trainer, checkpoint(task, name, t))
        if task.fails and rank == 1 and t == 8:
            os._exit(3) if task.fails == "dies" else time.sleep(600)
        trainer.step(t, data[t])
    return trainer


def checkpoint(task: Task, name: str, step: int) -> Path:
    """Where the state before a step is."""
    return Path(task.checkpoints) / f"{name}-{step}"


def save(trainer: Trainer, folder: Path) -> None:
    """As torch's documentation has it."""
    model, optimizer = get_state_dict(trainer.model, trainer.optimizer)
    dcp.save({"model": model, "optimizer": optimizer}, checkpoint_id=folder)


def load(trainer: Trainer, folder: Path) -> None:
    """As torch's documentation has it."""
    model, optimizer = get_state_dict(trainer.model, trainer.optimizer)
    dcp.load({"model": model, "optimizer": optimizer}, checkpoint_id=folder)
    set_state_dict(trainer.model, trainer.optimizer, model_state_dict=model, optim_state_dict=optimizer)


def main(folder: Path, task: Task) -> None:
    """Leave each job's parameters, or its traceback, in a file of this rank's."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", timeout=timedelta(seconds=task.timeout))
    rank, world = dist.get_rank(), dist.get_world_size()
    for name in task.names:
        try:
            trainer = train(name, task, rank, world)
            assert trainer.optimizer.steps_skipped == (JOBS[name].bad_at is not None)
            found: object = trainer.parameters()
        except Exception:
            if task.fails:
                raise
            found = traceback.format_exc()
        torch.save(found, folder / f"{name}-{rank}.pt")
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Task(**json.loads(sys.argv[2])))
