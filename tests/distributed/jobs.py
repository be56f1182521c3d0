"""Trainings that one process can do on the whole batch, or several on a part each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from sgdph_fx import SGDPH
from tests.distributed.network import Net, batches, build_param_groups

MICRO = 2


def ddp(net: Net, **options: Any) -> nn.Module:
    return DistributedDataParallel(net, **options)


def fsdp(net: Net, **options: Any) -> nn.Module:
    for block in net.blocks:
        fully_shard(block, **options)
    return fully_shard(net, **options)


def half_sharded(net: Net) -> nn.Module:
    """Each half of the ranks has all pieces."""
    shape, names = (dist.get_world_size() // 2, 2), ("replicate", "shard")
    return fsdp(net, mesh=init_device_mesh("cpu", shape, mesh_dim_names=names))


def in_bfloat16(net: Net) -> nn.Module:
    """Whole parameters have 8 bits, their pieces all 53."""
    return fsdp(net, mp_policy=MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32))


@dataclass(frozen=True)
class Job:
    """One way to train; ``wrap`` is what makes it one of several processes."""

    wrap: Callable[[Net], nn.Module]
    options: Mapping[str, Any] = field(default_factory=dict)
    checkpointed: bool = False
    micro: bool = False
    part: bool = False
    scaled: bool = False
    bad_at: int | None = None
    extra_on_first: bool = False
    apart: bool = False
    rounded: bool = False
    drawn_apart: bool = False
    steps: int = 14


EXACT = {"curvature": "gauss-newton", "probe": "exact"}
SIGNS = {"curvature": "gauss-newton", "refresh": "all", "blocks": "affine", "seed": 4}

JOBS: Mapping[str, Job] = {
    "ddp": Job(ddp),
    "ddp, looking for unused": Job(lambda net: ddp(net, find_unused_parameters=True)),
    "ddp, static graph": Job(lambda net: ddp(net, static_graph=True)),
    "ddp, bucket views": Job(lambda net: ddp(net, gradient_as_bucket_view=True)),
    "ddp, four signs": Job(ddp, {"probe": "rademacher-4"}),
    "ddp, signs": Job(ddp, {"probe": "rademacher", "variant": "paper"}),
    "ddp, exact": Job(ddp, {"probe": "exact"}),
    "ddp, exact, looking for unused": Job(
        lambda net: ddp(net, find_unused_parameters=True), {"probe": "exact"}
    ),
    "ddp, exact, static graph": Job(lambda net: ddp(net, static_graph=True), {"probe": "exact"}),
    "ddp, gauss-newton": Job(ddp, EXACT, steps=8),
    "ddp, gauss-newton, micro-batches": Job(ddp, EXACT, micro=True, steps=8),
    "ddp, gauss-newton, static graph": Job(lambda net: ddp(net, static_graph=True), EXACT, steps=8),
    "ddp, gauss-newton, scaled": Job(ddp, EXACT, scaled=True, steps=8),
    "ddp, gauss-newton, all": Job(ddp, {**EXACT, "refresh": "all", "hessian_interval": 2}, steps=8),
    "ddp, gauss-newton, all, unused on one rank": Job(
        lambda net: ddp(net, find_unused_parameters=True),
        {**EXACT, "refresh": "all"},
        extra_on_first=True,
        steps=8,
    ),
    "ddp, pairs": Job(ddp, {"blocks": "affine"}),
    "ddp, pairs, micro-batches, scaled": Job(ddp, {"blocks": "affine"}, micro=True, scaled=True),
    "ddp, gauss-newton, pairs of all": Job(
        lambda net: ddp(net, find_unused_parameters=True),
        {**EXACT, "refresh": "all", "blocks": "affine"},
        extra_on_first=True,
        steps=8,
    ),
    "ddp, gauss-newton, signs": Job(ddp, SIGNS, drawn_apart=True, steps=8),
    "ddp, gauss-newton, signs, micro-batches": Job(ddp, SIGNS, micro=True, drawn_apart=True, steps=8),
    "ddp, gradients of all": Job(ddp, {"probe": "gradient", "refresh": "all"}, steps=8),
    "ddp, interval": Job(ddp, {"hessian_interval": 2}),
    "ddp, micro-batches": Job(ddp, micro=True),
    "ddp, part of the batch": Job(ddp, part=True),
    "ddp, checkpointed": Job(ddp, checkpointed=True),
    "ddp, scaled": Job(ddp, scaled=True),
    "ddp, one bad loss": Job(ddp, bad_at=3),
    "ddp, unused on one rank": Job(lambda net: ddp(net, find_unused_parameters=True), extra_on_first=True),
    "each by itself": Job(lambda net: net, apart=True),
    "fsdp": Job(fsdp),
    "fsdp, kept whole": Job(lambda net: fsdp(net, reshard_after_forward=False)),
    "fsdp, by halves": Job(half_sharded),
    "fsdp, in bfloat16": Job(in_bfloat16, rounded=True),
    "fsdp, signs, loop": Job(fsdp, {"probe": "rademacher", "foreach": False}),
    "fsdp, exact, multi-tensor": Job(fsdp, {"probe": "exact", "foreach": True}),
    "fsdp, gauss-newton": Job(fsdp, EXACT, steps=8),
    "fsdp, gauss-newton, part of the batch": Job(fsdp, EXACT, part=True, steps=8),
    "fsdp, gauss-newton, all": Job(fsdp, {**EXACT, "refresh": "all", "hessian_interval": 2}, steps=8),
    "fsdp, gauss-newton, pairs of all, by halves": Job(
        half_sharded, {**EXACT, "refresh": "all", "blocks": "affine"}, micro=True, steps=8
    ),
    "fsdp, gauss-newton, signs, micro-batches": Job(fsdp, SIGNS, micro=True, drawn_apart=True, steps=8),
    "fsdp, pairs": Job(fsdp, {"blocks": "affine"}),
    "fsdp, pairs, signs, part of the batch": Job(
        fsdp, {"blocks": "affine", "probe": "rademacher", "variant": "paper"}, part=True
    ),
    "fsdp, gradients of all": Job(fsdp, {"probe": "gradient", "refresh": "all"}, steps=8),
    "fsdp, micro-batches": Job(fsdp, micro=True),
    "fsdp, micro-batches, exact": Job(fsdp, {"probe": "exact"}, micro=True, steps=8),
    "fsdp, micro-batches, checkpointed": Job(fsdp, micro=True, checkpointed=True, steps=8),
    "fsdp, checkpointed": Job(fsdp, checkpointed=True),
    "fsdp, part of the batch": Job(fsdp, part=True),
    "fsdp, one bad loss": Job(fsdp, bad_at=3),
}


class DrawnForAll(SGDPH):
    """Draws, one after another, the signs that each of several processes draws for each of its micro-batches.

    Args:
        micro: The number of micro-batches of each.
    """

    micro = 1

    def _draw(self) -> tuple[int, int]:
        return divmod(super()._draw()[1], self.micro)


class Trainer:
    """A job under way: its model, its optimizer, and how one step is done.

    Args:
        job: What to do.
        rank: Which part of each batch is this process's.
        world: Of how many parts.
        imitated: How many processes one alone stands for.
    """

    def __init__(self, job: Job, rank: int = 0, world: int = 1, imitated: int = 1) -> None:
        self.job, self.rank, self.world, self.imitated = job, rank, world, imitated
        net = Net(job.checkpointed)
        self.model = job.wrap(net) if world > 1 else net
        self.net = net
        options = dict(job.options)
        if job.apart and dist.is_initialized():
            options["process_group"] = dist.new_group([rank], use_local_synchronization=True)
        kind = DrawnForAll if job.drawn_apart and world == 1 else SGDPH
        self.optimizer = kind(build_param_groups(net), 0.05, weight_decay=0.01, **options)
        if isinstance(self.optimizer, DrawnForAll):
            self.optimizer.micro = MICRO if job.micro else 1
        self.scaler = GradScaler("cpu", init_scale=2.0**10, enabled=job.scaled)

    def step(self, t: int, batch: tuple[Tensor, Tensor]) -> None:
        self.optimizer.zero_grad()
        x, y = (whole.chunk(self.world)[self.rank] for whole in batch)
        parts = (self.imitated if self.job.drawn_apart else 1) * (MICRO if self.job.micro else 1)
        pieces = list(zip(x.chunk(parts), y.chunk(parts), strict=True))
        for number, piece in enumerate(pieces):
            with self._last(number == len(pieces) - 1):
                self._backward(t, piece, len(pieces))
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _last(self, last: bool) -> Any:
        if isinstance(self.model, FSDPModule):
            self.model.set_requires_gradient_sync(last)
        waits = isinstance(self.model, DistributedDataParallel) and not last
        return self.model.no_sync() if waits else nullcontext()  # type: ignore[operator]

    def _backward(self, t: int, piece: tuple[Tensor, Tensor], pieces: int) -> None:
        loss = self.scaler.scale(self._loss(*piece) / pieces)
        if self.job.bad_at == t and self.rank == 0:
            loss = loss * float("nan")
        how: dict[str, Any] = {"module": self.model} if isinstance(self.model, FSDPModule) else {}
        if self.job.part:
            x, y = piece
            # Of every pair of samples the first, whoever has it.
            how["hessian_loss"] = lambda: self._loss(x[::2], y[::2])
        self.optimizer.backward(loss, **how)

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        if not self.job.extra_on_first:
            return nn.functional.cross_entropy(self.model(x), y)
        # The first rank uses the extra parameter, the others do not; one process does all their parts.
        ranks = range(self.imitated) if self.world == 1 else [self.rank]
        parts = zip(ranks, x.chunk(len(ranks)), y.chunk(len(ranks)), strict=True)
        losses = [nn.functional.cross_entropy(self.model(x, rank == 0), y) for rank, x, y in parts]
        return torch.stack(losses).mean()

    def parameters(self) -> dict[str, Tensor]:
        """Whole, wherever they lie."""
        return {
            name: (p.full_tensor() if hasattr(p, "full_tensor") else p).detach().clone()
            for name, p in self.net.named_parameters()
        }


def run_alone(name: str, rank: int = 0, world: int = 1, imitated: int = 1) -> dict[str, Tensor]:
    """The parameters at the end of a job that one process does."""
    job = JOBS[name]
    trainer = Trainer(job, rank, world, imitated)
    for t, batch in enumerate(batches(job.steps)):
        trainer.step(t, batch)
    return trainer.parameters()
