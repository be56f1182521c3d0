"""Calls that cannot be captured whatever the model: each is refused by one error, and nothing has changed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.optimizer import register_optimizer_step_pre_hook

from sgdph_fx import CapturedStep, compile_between_refreshes
from sgdph_fx.errors import CaptureError, OptimizerError
from sgdph_fx.optim import SGDPH
from sgdph_fx.optim.capture.seen_values import seen
from sgdph_fx.optim.capture.watched_reads import ReadsRefused
from tests.optim.captured_loops import Noisy, made, noisy_groups, pieces


class Opaque:
    """A batch that torch cannot take apart."""

    def __init__(self, x: Tensor) -> None:
        self.x = x


def through(layer: nn.Module) -> Callable[[Tensor], Any]:
    return lambda x: layer(x)


WRONG: dict[str, tuple[Callable[[Tensor], Any], Any, str]] = {
    "an object": (Opaque, nullcontext, "The batch holds a Opaque"),
    "an array": (lambda x: x.numpy(), nullcontext, "The batch holds a ndarray"),
    "a parameter": (nn.Parameter, nullcontext, r"The batch holds a parameter of shape \(8, 2, 5, 5\)"),
    "a graph": (through(nn.Conv2d(2, 2, 1)), nullcontext, r"has a graph \(ConvolutionBackward0\)"),
    "autocast": (
        lambda x: x,
        lambda: torch.autocast("cpu", torch.bfloat16),
        r"under `torch.autocast` in torch.bfloat16.*`autocast=torch.bfloat16`",
    ),
    "inference": (lambda x: x, torch.inference_mode, "CapturedStep was called under `torch.inference_mode"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("steps", [0, 3])
def test_calls_are_refused_at_any_time(name: str, steps: int) -> None:
    wrap, surroundings, says = WRONG[name]
    net, optimizer, step = made(CapturedStep)
    (x, y), *data = pieces(steps + 1)
    for batch in data:
        step(*batch)
    before = copy.deepcopy((net.state_dict(), optimizer.state_dict()["param_groups"], torch.get_rng_state()))
    with surroundings(), pytest.raises(OptimizerError, match=says):
        step(wrap(x), y)
    torch.testing.assert_close(dict(net.state_dict()), dict(before[0]), rtol=0, atol=0)
    assert optimizer.state_dict()["param_groups"] == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_autocast_of_ones_own_is_no_matter_where_the_step_has_its_own() -> None:
    found = []
    for around in (nullcontext, lambda: torch.autocast("cpu", torch.bfloat16)):
        net, _, step = made(CapturedStep, autocast=torch.bfloat16)
        with around():
            for x, y in pieces(4):
                step(x, y)
        found.append([p.detach() for p in net.parameters()])
    torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize("everywhere", [False, True])
def test_hooks_before_the_step_are_refused_while_they_are_there(everywhere: bool) -> None:
    _, optimizer, step = made(CapturedStep)
    data = pieces(3)
    step(*data[0])
    add = register_optimizer_step_pre_hook if everywhere else optimizer.register_step_pre_hook
    handle = add(lambda *_: None)
    try:
        with pytest.raises(CaptureError, match="Pass what it does as `before_step`"):
            step(*data[1])
    finally:
        handle.remove()
    step(*data[2])
    assert optimizer.statistics()["step"] == 2


def test_compiled_models_and_parts_are_refused() -> None:
    whole, part = Noisy(), Noisy()
    part.norm.compile(backend="eager")
    ((x, y),) = pieces(1)
    for model, where in ((torch.compile(whole, backend="eager"), "'whole'"), (part, "'norm'")):
        optimizer = SGDPH(noisy_groups(model), 0.05)
        with pytest.raises(CaptureError, match=f"compiled, in {where}"):
            CapturedStep(model, cross_entropy, optimizer)(x, y)


def test_other_optimizers_and_wrapped_ones_are_refused() -> None:
    net: Any = Noisy()
    with pytest.raises(CaptureError, match="takes an SGDPH, but got a SGD"):
        CapturedStep(net, cross_entropy, torch.optim.SGD(net.parameters(), 0.1))  # type: ignore[arg-type]


def test_a_tensor_that_the_optimizer_trains_is_refused_in_a_batch() -> None:
    """It was copied, so that it got no gradient and no step, without a word."""
    net, shift = Noisy(), torch.zeros(3, requires_grad=True)
    optimizer = SGDPH([*noisy_groups(net), {"params": [shift]}], 0.05)
    step = CapturedStep(net, lambda out, targets: cross_entropy(out + targets[1], targets[0]), optimizer)
    ((x, y),) = pieces(1)
    with pytest.raises(CaptureError, match=r"The batch holds a parameter of shape \(3,\)"):
        step(x, (y, shift))
    step(x, (y, shift.detach()))


def test_what_is_no_model_is_refused() -> None:
    net: Any = Noisy()
    optimizer = SGDPH(noisy_groups(net), 0.05)
    for wrong in (compile_between_refreshes(net, optimizer), net.parameters()):
        with pytest.raises(CaptureError, match="takes the model, a module, but got a"):
            CapturedStep(wrong, cross_entropy, optimizer)


def test_parameters_on_several_devices_are_refused() -> None:
    net, far = Noisy(), nn.Parameter(torch.ones(1, device="meta"))
    optimizer = SGDPH([*noisy_groups(net), {"params": [far], "order": 1}], 0.05)
    ((x, y),) = pieces(1)
    with pytest.raises(CaptureError, match="parameters of model and optimizer are on cpu and meta"):
        CapturedStep(net, cross_entropy, optimizer)(x, y)


def test_a_number_that_lies_with_the_host_is_another_when_it_is_written() -> None:
    """Kernels of a GPU have taken it; those of a CPU read it again."""
    number = torch.ones(())
    for on_gpu in (True, False):
        before = seen(number, on_gpu=on_gpu)
        assert seen(number, on_gpu=on_gpu) == before
        number.fill_(2.0)
        assert (seen(number, on_gpu=on_gpu) == before) is not on_gpu


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_what_lies_with_the_host_is_not_written_on_a_gpu(kind: str) -> None:
    """A kernel of a GPU takes the number of a tensor on the CPU once, so that a replay would not see it change."""
    count, x = torch.zeros(()), torch.ones(3)
    with ReadsRefused([x], torch.device(kind)):
        inside = torch.zeros(2)
        inside[0] = 1.0  # made in the step, and so the same at each
        if kind == "cuda":
            with pytest.raises(
                CaptureError, match="writes into a tensor that lies with the host, by aten::add_"
            ):
                count += 1
        else:
            count += 1
        torch.add(x, x, out=torch.empty(3))


@pytest.fixture
def _two_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    monkeypatch.setattr(dist, "get_world_size", lambda group=None: 2)
    yield
    monkeypatch.undo()
    dist.destroy_process_group()


@pytest.mark.parametrize("later", [False, True])
def test_several_processes_are_refused_whenever_they_come(
    request: pytest.FixtureRequest, later: bool
) -> None:
    net = Noisy()
    optimizer, data = SGDPH(noisy_groups(net), 0.05), pieces(2)
    if later:
        step = CapturedStep(net, cross_entropy, optimizer)
        step(*data[0])
    request.getfixturevalue("_two_processes")
    with pytest.raises(CaptureError, match="trained by several processes"):
        step(*data[1]) if later else CapturedStep(net, cross_entropy, optimizer)
