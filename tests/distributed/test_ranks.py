"""Several processes take the steps that one takes on the whole batch, and all hold the same parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from sgdph_fx import SGDPH
from sgdph_fx.errors import OptimizerError
from tests.distributed.jobs import JOBS, fsdp, run_alone
from tests.distributed.network import Net, batches
from tests.distributed.worker import Task

BY_FOUR = ("ddp", "ddp, unused on one rank", "fsdp", "fsdp, by halves", "fsdp, part of the batch")


def same_everywhere_and_as_alone(found: Any, name: str) -> None:
    first, *others = found
    expected = run_alone(name, imitated=len(found))
    started = dict(Net().named_parameters())
    for key, p in first.items():
        assert all(torch.equal(p, other[key]) for other in others), key
        moved = (expected[key] - started[key]).norm()
        assert moved > 1e-4
        assert (p - expected[key]).norm() <= (0.05 * moved if JOBS[name].rounded else 1e-10)


@pytest.mark.parametrize("name", [name for name, job in JOBS.items() if not job.apart])
@pytest.mark.filterwarnings("ignore:The loss is not finite:RuntimeWarning")
def test_two_processes_do_what_one_does(two: Any, name: str) -> None:
    same_everywhere_and_as_alone(two[name], name)


def test_four_processes_do_what_one_does(launch: Any) -> None:
    found = launch(4, Task(BY_FOUR))
    for name in BY_FOUR:
        same_everywhere_and_as_alone(found[name], name)


def test_in_a_group_of_its_own_a_process_trains_by_itself(two: Any) -> None:
    for rank, found in enumerate(two["each by itself"]):
        torch.testing.assert_close(found, run_alone("each by itself", rank, world=2), rtol=0, atol=0)


@pytest.fixture
def _one_process() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("_one_process")
def test_sharded_parameters_need_their_module_and_their_names() -> None:
    model = fsdp(Net())
    ((x, y),) = batches(1)
    named = [(n, p) for n, p in model.named_parameters() if p.dim() == 1]
    optimizer = SGDPH([{"params": named, "order": 2}], 0.05)
    with pytest.raises(OptimizerError, match=r"'extra' is due, which `fully_shard` .* module=model"):
        optimizer.backward(nn.functional.cross_entropy(model(x), y))
    unnamed = SGDPH([{"params": [p for _, p in named], "order": 2}], 0.05)
    with pytest.raises(OptimizerError, match=r"no parameter of that name.*named_parameters"):
        unnamed.backward(nn.functional.cross_entropy(model(x), y), module=model)
    optimizer.backward(nn.functional.cross_entropy(model(x), y), module=model)
    optimizer.step()
    assert isinstance(optimizer.state[named[0][1]]["hessian_average"], DTensor)


@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("more", [{"refresh": "all"}, {"blocks": "affine"}])
def test_several_sharded_parameters_need_their_module_too(more: Any) -> None:
    model = fsdp(Net())
    ((x, y),) = batches(1)
    named = [(n, p) for n, p in model.named_parameters() if n.startswith("blocks.0.norm")]
    optimizer = SGDPH(
        [{"params": named, "order": 2}], 0.05, variant="paper", curvature="gauss-newton", **more
    )
    with pytest.raises(OptimizerError, match=r"'blocks.0.norm.weight' is due, which `fully_shard` .* module"):
        optimizer.backward(nn.functional.cross_entropy(model(x), y))
    assert all(p.grad is None for p in model.parameters())
    optimizer.backward(nn.functional.cross_entropy(model(x), y), module=model)
    optimizer.step()
    average, last = (optimizer.state[p] for _, p in named)
    assert isinstance(average["hessian_average"], DTensor)
    assert isinstance(last.get("hessian_coupling", average["hessian_average"]), DTensor)
