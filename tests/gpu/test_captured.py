"""Steps as CUDA graphs: the numbers of steps without, whatever belongs to a training, and no waiting."""

from __future__ import annotations

import copy
import io
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sgdph_fx import SGDPH, CapturedStep
from sgdph_fx.errors import CaptureError
from tests.gpu.networks import batches, prepared
from tests.gpu.test_captured_changes import Eager

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("deterministic")]

STEPS = 100  # two cycles of 41 and more: every graph has been recorded and replayed


def trainer(device: Any, kind: type[CapturedStep], dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    model, groups = prepared(options.pop("network", "resnet18"))
    model.to(device, dtype)
    how = {key: options.pop(key) for key in ("autocast", "scaler", "before_step") if key in options}
    optimizer = SGDPH(groups, 0.01, weight_decay=1e-3, **options)
    return model, optimizer, kind(model, cross_entropy, optimizer, **how)


def data(device: Any, count: int = STEPS, dtype: torch.dtype = torch.float32) -> list[tuple[Tensor, Tensor]]:
    return [(x.to(device, dtype), y.to(device)) for x, y in batches(count)]


def numbers(model: nn.Module, optimizer: SGDPH) -> list[Tensor]:
    averages = [own[k] for own in optimizer.state.values() for k in sorted(own) if isinstance(own[k], Tensor)]
    return [t.detach().clone() for t in (*model.parameters(), *model.buffers(), *averages)]


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "paper": {"variant": "paper"},
    "interval": {"hessian_interval": 2},
    "signs": {"probe": "rademacher", "seed": 3},
    "gradient": {"probe": "gradient"},
    "gauss-newton": {"curvature": "gauss-newton"},
    "pairs": {"blocks": "affine", "probe": "rademacher", "seed": 3},
    "all, pairs": {"curvature": "gauss-newton", "refresh": "all", "blocks": "affine", "hessian_interval": 2},
    "bounded": {"max_preconditioner": 1.0},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_graphs_have_the_bits_of_the_same_kernels_without(device: torch.device, name: str) -> None:
    found = []
    for kind in (Eager, CapturedStep):
        model, optimizer, step = trainer(device, kind, **OPTIONS[name])
        losses = [step(x, y) for x, y in data(device)]
        found.append([*numbers(model, optimizer), *losses])
    assert step.graphs > (1 if "refresh" in OPTIONS[name] else 5)
    torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize("network", ["resnet50", "vgg11", "convnext", "vit"])
def test_networks_of_each_kind(device: torch.device, network: str) -> None:
    found = []
    for kind in (Eager, CapturedStep):
        model, optimizer, step = trainer(device, kind, network=network)
        for x, y in data(device, 2 * optimizer.statistics()["cycle_length"] + 5):
            step(x, y)
        found.append(numbers(model, optimizer))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_training_is_that_of_the_cpu(device: torch.device) -> None:
    found = []
    for place in ("cpu", device):
        model, _, step = trainer(place, CapturedStep, torch.float64)
        for x, y in data(place, 90, torch.float64):
            step(x, y)
        found.append([p.detach().cpu() for p in model.parameters()])
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-8)


def loop_with_everything(device: Any, kind: type[CapturedStep]) -> list[Tensor]:
    model, groups = prepared("resnet18")
    model.to(device, torch.float32, memory_format=torch.channels_last)
    optimizer = SGDPH(groups, 0.01, hessian_interval=2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    clip: Callable[[], object] = lambda: nn.utils.clip_grad_norm_(model.parameters(), 0.5)  # noqa: E731
    step = kind(model, cross_entropy, optimizer, autocast=torch.bfloat16, before_step=clip)
    for number, (x, y) in enumerate(data(device)):
        optimizer.zero_grad()
        rows = 5 if number % 10 == 9 else 8
        step(x[:rows].contiguous(memory_format=torch.channels_last), y[:rows])
        average.update_parameters(model)
        scheduler.step()
    return [*numbers(model, optimizer), *(p.detach() for p in average.parameters())]


def test_a_whole_loop(device: torch.device) -> None:
    found = [loop_with_everything(device, kind) for kind in (Eager, CapturedStep)]
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


def test_halves_under_a_scaler(device: torch.device) -> None:
    found = []
    for kind in (Eager, CapturedStep):
        scaler = GradScaler("cuda", init_scale=2.0**10, growth_interval=20)
        model, optimizer, step = trainer(device, kind, autocast=torch.float16, scaler=scaler)
        for number, (x, y) in enumerate(data(device)):
            step(x * float("inf") if number in (7, 77) else x, y)
            if number in (7, 77):
                for module in model.modules():
                    if isinstance(module, nn.BatchNorm2d):
                        module.reset_running_stats()
        found.append(numbers(model, optimizer))
        assert optimizer.steps_skipped >= 2
        assert all(p.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(*found, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("kind", [Eager, CapturedStep])
@pytest.mark.parametrize("name", ["plain", "signs", "gauss-newton"])
def test_no_step_waits_for_the_gpu(device: torch.device, kind: type[CapturedStep], name: str) -> None:
    _, optimizer, step = trainer(device, kind, **OPTIONS[name])
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.999)
    everything = data(device)
    for x, y in everything:
        step(x, y)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for x, y in everything:
            step(x, y)
            scheduler.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("stop", [10, 60])
def test_a_run_resumed_in_the_middle_of_a_cycle_has_the_same_bits(device: torch.device, stop: int) -> None:
    everything = data(device)
    whole, _, step = trainer(device, CapturedStep)
    for x, y in everything:
        step(x, y)
    model, optimizer, step = trainer(device, CapturedStep)
    for x, y in everything[:stop]:
        step(x, y)
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    other, resumed, step = trainer(device, CapturedStep)
    states = torch.load(file, weights_only=True)
    other.load_state_dict(states[0])
    resumed.load_state_dict(states[1])
    for x, y in everything[stop:]:
        step(x, y)
    torch.testing.assert_close(list(other.parameters()), list(whole.parameters()), rtol=0, atol=0)


def test_what_is_not_finite_is_skipped_on_the_device(device: torch.device) -> None:
    model, optimizer, step = trainer(device, CapturedStep)
    everything = data(device)
    for x, y in everything[:90]:
        step(x, y)
    before = copy.deepcopy([p.detach() for p in model.parameters()])
    for x, y in everything[90:93]:
        step(x * float("nan"), y)
    torch.testing.assert_close([p.detach() for p in model.parameters()], before, rtol=0, atol=0)
    with pytest.warns(RuntimeWarning, match="this step has been skipped"):
        assert optimizer.steps_skipped == 3


@pytest.mark.parametrize("own_graph", [False, True])
@pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True:UserWarning")
def test_a_bad_gradient_does_not_poison_an_eager_step_either(device: torch.device, own_graph: bool) -> None:
    model, groups = prepared("resnet18")
    model.to(device, torch.float32)
    optimizer = SGDPH(groups, 0.01)
    ((x, y),) = data(device, 1)
    before = copy.deepcopy([p.detach() for p in model.parameters()])
    loss = cross_entropy(model(x), y)
    loss.backward(create_graph=True) if own_graph else optimizer.backward(loss)  # type: ignore[no-untyped-call]
    next(model.parameters()).grad.detach().view(-1)[0] = float("nan")
    optimizer.step()
    torch.testing.assert_close([p.detach() for p in model.parameters()], before, rtol=0, atol=0)
    with pytest.warns(RuntimeWarning, match="A gradient is not finite"):
        assert optimizer.steps_skipped == 1


def test_replays_allocate_nothing_and_take_less_time(device: torch.device) -> None:
    seconds = {}
    for kind in (Eager, CapturedStep):
        _, _, step = trainer(device, kind)
        everything = data(device)
        for x, y in everything:
            step(x, y)
        torch.cuda.synchronize()
        held, start = [], time.perf_counter()
        for x, y in everything:
            step(x, y)
            held.append(torch.cuda.memory_allocated(device))
        torch.cuda.synchronize()
        seconds[kind] = time.perf_counter() - start
    assert len(set(held)) == 1
    assert seconds[CapturedStep] < 0.8 * seconds[Eager]


def test_a_model_that_branches_on_data_is_refused_and_unchanged(device: torch.device) -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.linear = nn.BatchNorm1d(4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(x)
            out: Tensor = self.linear(x if x.sum() > 0 else -x)
            return out

    model = Branches().to(device)
    optimizer = SGDPH([{"params": list(model.parameters()), "order": 2}], 0.1)
    before = copy.deepcopy(model.state_dict())
    step = CapturedStep(model, cross_entropy, optimizer)
    with pytest.raises(CaptureError, match=r"host reads.*test_captured\.py"):
        step(torch.randn(8, 4, device=device), torch.zeros(8, dtype=torch.int64, device=device))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
