"""Training on a GPU: the CPU's numbers, no waiting, no leak, in halves and compiled."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel

from sgdph_fx import SGDPH, compile_between_refreshes
from tests.gpu.networks import batches, loss_of, prepared

pytestmark = pytest.mark.gpu

STEPS = 12


def trainer(device: Any, dtype: torch.dtype = torch.float64, **options: Any) -> tuple[Any, SGDPH]:
    """ResNet-18, narrow, and its optimizer."""
    model, groups = prepared("resnet18")
    model.to(device, dtype)
    return model, SGDPH(groups, 0.01, weight_decay=1e-3, **options)


def train(model: Any, optimizer: SGDPH, data: list[Any], through: Any = None) -> None:
    for batch in data:
        optimizer.zero_grad()
        optimizer.backward(loss_of(model, batch, through))
        optimizer.step()


def numbers(model: nn.Module) -> list[Tensor]:
    return [p.detach().cpu() for p in model.parameters()]


PAIRS = {"blocks": "affine"}
PAIRS_OF_ALL = {"curvature": "gauss-newton", "refresh": "all", "blocks": "affine"}


@pytest.mark.parametrize(
    "options",
    [*({"probe": probe} for probe in ("ones", "rademacher", "rademacher-4", "exact")), PAIRS, PAIRS_OF_ALL],
)
def test_training_is_that_of_the_cpu(device: torch.device, options: dict[str, Any]) -> None:
    found = []
    for place in ("cpu", device):
        model, optimizer = trainer(place, **options)
        train(model, optimizer, batches(STEPS))
        found.append(numbers(model))
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-10)


def test_multi_tensor_calls_have_the_bits_of_the_plain_loop(device: torch.device) -> None:
    found = []
    with torch.backends.cudnn.flags(enabled=True, deterministic=True):
        for foreach in (False, True):
            model, optimizer = trainer(device, torch.float32, foreach=foreach)
            train(model, optimizer, batches(STEPS))
            found.append(numbers(model))
    torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize("options", [{}, {"probe": "rademacher"}, PAIRS, PAIRS_OF_ALL])
def test_no_step_waits_for_the_gpu(device: torch.device, options: dict[str, Any]) -> None:
    model, optimizer = trainer(device, torch.float32, **options)
    data = [(x.to(device, torch.float32), y.to(device)) for x, y in batches(3)]
    train(model, optimizer, data)
    torch.cuda.set_sync_debug_mode("error")
    try:
        train(model, optimizer, data)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True:UserWarning")
@pytest.mark.parametrize("own_graph", [False, True])
def test_five_hundred_steps_allocate_no_more(device: torch.device, own_graph: bool) -> None:
    model, optimizer = trainer(device, torch.float32)
    (batch,) = batches(1)
    held = []
    for _ in range(500):
        loss = loss_of(model, batch)
        loss.backward(create_graph=True) if own_graph else optimizer.backward(loss)  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        del loss
        held.append(torch.cuda.memory_allocated(device))
    # Every parameter has its state after one cycle of 41.
    assert len(set(held[50:])) == 1


def test_half_precision_under_a_scaler(device: torch.device) -> None:
    """The first Hessian is the one of single precision, as far as halves can tell; and the loss falls."""
    (batch,) = batches(1, size=64)
    model, optimizer = trainer(device, torch.float32)
    due = optimizer.due
    train(model, optimizer, [batch])
    first = optimizer.state[due]["hessian_average"].clone()
    model, optimizer = trainer(device, torch.float32)
    due = optimizer.due
    scaler, losses = GradScaler("cuda", init_scale=2.0**10), []
    for step in range(100):
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.float16):
            loss = loss_of(model, batch)
        optimizer.backward(scaler.scale(loss))
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.detach())
        if step == 0:
            found = optimizer.state[due]["hessian_average"].clone()
    torch.testing.assert_close(found, first, rtol=0, atol=0.05 * first.abs().max().item())
    assert optimizer.steps_skipped == 0
    assert losses[-1] < 0.8 * losses[0]


def test_compiled_between_refreshes(device: torch.device) -> None:
    found = []
    for compiled in (False, True):
        model, optimizer = trainer(device, hessian_interval=3)
        train(model, optimizer, batches(7), compile_between_refreshes(model, optimizer) if compiled else None)
        found.append(numbers(model))
    torch.testing.assert_close(*found, rtol=1e-7, atol=1e-9)


def test_a_run_goes_on_elsewhere(device: torch.device) -> None:
    data = batches(STEPS)
    model, optimizer = trainer(device)
    train(model, optimizer, data[:5])
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    train(model, optimizer, data[5:])
    here, moved = trainer("cpu")
    states = torch.load(file, map_location="cpu", weights_only=True)
    here.load_state_dict(states[0])
    moved.load_state_dict(states[1])
    train(here, moved, data[5:])
    torch.testing.assert_close(numbers(here), numbers(model), rtol=1e-8, atol=1e-10)


def test_with_nccl(device: torch.device) -> None:
    """One process, as one GPU has room for no more: the all-reduce and the wrapper's hooks are the real ones."""
    alone = trainer(device)
    train(*alone, batches(STEPS))
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model, optimizer = trainer(device)
        train(model, optimizer, batches(STEPS), DistributedDataParallel(model))
    finally:
        dist.destroy_process_group()
    torch.testing.assert_close(numbers(model), numbers(alone[0]), rtol=1e-8, atol=1e-10)


def test_a_graph_of_ones_own_counts_and_corrects_on_the_device(device: torch.device) -> None:
    """Replayed three times, it takes the steps that the loop takes whose due parameter stays the first."""
    found = []
    for captured in (False, True):
        p = nn.Parameter(torch.tensor([1.0, 2.0], device=device))
        optimizer = SGDPH([{"params": [p], "order": 2}], 0.1, variant="paper", capturable=True)

        def run(p: nn.Parameter = p, optimizer: SGDPH = optimizer) -> None:
            p.grad = None
            optimizer.backward((p**4).sum())
            optimizer.step()

        run()
        if not captured:
            for _ in range(3):
                run()
        else:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                run()
            for _ in range(3):
                graph.replay()
        found.append(p.detach().clone())
        assert optimizer.state_dict()["param_groups"][0]["step"] == 4
    torch.testing.assert_close(*found)
