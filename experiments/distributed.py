"""The processes that train together under ``torchrun``, each on its own device and its own part of each batch."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["SINGLE_PROCESS", "World"]


@dataclass(frozen=True, slots=True)
class World:
    """This process among the processes that train together.

    Args:
        rank: Its number, from 0.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: torch.device) -> tuple[World, torch.device]:
        """Join the process group if ``torchrun`` started this process.

        Args:
            device: The device that you asked for.

        Returns:
            The world, and the device of this process: with several GPUs the one that ``torchrun`` assigns.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return SINGLE_PROCESS, device
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(dist.get_rank(), size), device

    @property
    def is_main(self) -> bool:
        """Whether this process evaluates, writes files and prints."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Wrap the model, so that gradients and SGD-PH's Hessian are means over all processes."""
        return model if self.size == 1 else DistributedDataParallel(model)

    def all_reduce(self, numbers: Tensor) -> Tensor:
        """Sum ``numbers`` over all processes, in place, and return it."""
        if self.size > 1:
            dist.all_reduce(numbers)
        return numbers

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()

    def shut_down(self) -> None:
        """Leave the process group."""
        if self.size > 1:
            dist.destroy_process_group()


SINGLE_PROCESS = World()
