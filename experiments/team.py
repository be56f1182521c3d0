"""The processes that train together under ``torchrun``, each on its own device and its own part of each batch."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["ALONE", "Team"]


@dataclass(frozen=True, slots=True)
class Team:
    """This process among those that train together.

    Args:
        rank: Its number, from 0.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: torch.device) -> tuple[Team, torch.device]:
        """Meet the others that ``torchrun`` started, if it did.

        Returns:
            The team, and the device of this process: of several GPUs the one that ``torchrun`` gives it.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return ALONE, device
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(dist.get_rank(), size), device

    @property
    def leads(self) -> bool:
        """Whether this is the process that judges, writes and speaks."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model to call in training: gradients, and SGD-PH's Hessian, are means over all processes."""
        return model if self.size == 1 else DistributedDataParallel(model)

    def sum(self, numbers: Tensor) -> Tensor:
        """The sum over all processes, in place of each one's ``numbers``."""
        if self.size > 1:
            dist.all_reduce(numbers)
        return numbers

    def wait(self) -> None:
        """Until all have come here."""
        if self.size > 1:
            dist.barrier()

    def leave(self) -> None:
        """Part from the others at the end."""
        if self.size > 1:
            dist.destroy_process_group()


ALONE = Team()
