"""Compiled between refreshes, eager where a Hessian is due."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from sgdph_fx import CapturedStep, compile_between_refreshes
from sgdph_fx.errors import NoCurvatureError
from sgdph_fx.optim import SGDPH
from tests.optim.captured_loops import Noisy, made, pieces, state_of


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_between_refreshes_compiled_code_runs_and_the_run_is_the_eager_one(
    small: Any, make_batches: Any, make_groups: Any
) -> None:
    nets = [small(), small()]
    plain, mixed = (SGDPH(make_groups(net), 0.05, hessian_interval=3) for net in nets)
    ran: list[int] = []
    # In Python, so that it is called by the eager model and traced, not called, by the compiler.
    nets[1].norm1.register_forward_hook(
        lambda *_: None if torch.compiler.is_compiling() else ran.append(mixed.param_groups[0]["step"])
    )
    forward = compile_between_refreshes(nets[1], mixed, backend="aot_eager")
    for x, y in make_batches(10):
        plain.zero_grad()
        plain.backward(nets[0].loss((x, y)))
        plain.step()
        mixed.zero_grad()
        mixed.backward(nn.functional.cross_entropy(forward(x), y))
        mixed.step()
    assert ran == [0, 3, 6, 9]
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


def test_without_gradients_there_is_nothing_to_wait_for(
    small: Any, make_batches: Any, make_groups: Any
) -> None:
    net, ran = small(), []
    net.norm1.register_forward_hook(lambda *_: None if torch.compiler.is_compiling() else ran.append(1))
    forward = compile_between_refreshes(net, SGDPH(make_groups(net), 0.05), backend="aot_eager")
    ((x, _),) = make_batches(1)
    with torch.no_grad():
        found = forward(x)
    assert ran == []
    torch.testing.assert_close(found, net(x).detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("whole", [True, False])
def test_a_model_that_is_compiled_already_runs_uncompiled_where_a_hessian_is_due(
    small: Any, make_batches: Any, make_groups: Any, whole: bool
) -> None:
    nets = [small(), small()]
    optimizers = [
        SGDPH(make_groups(net), 0.05, hessian_interval=3, without_curvature="raise") for net in nets
    ]
    given = torch.compile(nets[1], backend="aot_eager") if whole else nets[1]
    forward: Any = compile_between_refreshes(given, optimizers[1], backend="aot_eager")  # type: ignore[arg-type]
    if not whole:
        nets[1].compile(backend="aot_eager")
    for x, y in make_batches(5):
        for net, optimizer in zip((nets[0], forward), optimizers, strict=True):
            optimizer.zero_grad()
            optimizer.backward(nn.functional.cross_entropy(net(x), y))
            optimizer.step()
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("capturable", [False, True])
def test_compiled_loops_and_steps_are_those_without_a_compiler(
    small: Any, make_batches: Any, make_groups: Any, capturable: bool
) -> None:
    """The compiler took what the optimizer keeps for constants, and refreshed the averages of other parameters."""

    def train(kind: str) -> list[torch.Tensor]:
        torch.compiler.reset()
        net = small()
        optimizer = SGDPH(make_groups(net), 0.05, capturable=capturable)
        step = torch.compile(optimizer.step, backend="eager") if kind == "step" else optimizer.step

        def iterate(x: Any, y: Any) -> None:
            optimizer.zero_grad()
            optimizer.backward(2 * net.loss((x, y)))
            optimizer.scale_gradients(0.5)
            step()

        loop = torch.compile(iterate, backend="eager") if kind == "loop" else iterate
        for x, y in make_batches(6):
            loop(x, y)
        averages = [own["hessian_average"] for own in optimizer.state.values() if "hessian_average" in own]
        return [*(p.detach() for p in net.parameters()), *averages]

    expected = train("plain")
    for kind in ("step", "loop"):
        torch.testing.assert_close(train(kind), expected, rtol=1e-10, atol=1e-12)


def test_a_captured_step_that_is_compiled_is_the_one_without_a_compiler() -> None:
    found = []
    for compiles in (False, True):
        net, optimizer, step = made(CapturedStep, net=Noisy().eval())
        call = torch.compile(step, backend="eager") if compiles else step
        for x, y in pieces(8):
            call(x, y)
        found.append(state_of(net, optimizer))
    torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize("own_part", [False, True])
def test_a_compiled_model_at_a_due_step_is_refused_with_the_remedy_unless_the_hessian_has_its_own_loss(
    small: Any, make_batches: Any, make_groups: Any, own_part: bool
) -> None:
    nets, ((x, y),) = [small(), small()], make_batches(1)
    optimizers = [SGDPH(make_groups(net), 0.05, without_curvature="raise") for net in nets]
    loss = nn.functional.cross_entropy(torch.compile(nets[0], backend="aot_eager")(x), y)
    if not own_part:
        with pytest.raises(NoCurvatureError, match=r"double backward\).*compile_between_refreshes"):
            optimizers[0].backward(loss)
        assert all(p.grad is None for p in nets[0].parameters())
        return
    optimizers[0].backward(loss, hessian_loss=lambda: nets[0].loss((x, y)))
    optimizers[1].backward(nets[1].loss((x, y)))
    for net, optimizer in zip(nets, optimizers, strict=True):
        optimizer.step()
        assert optimizer.state[net.conv1.bias]["hessian_average"].shape == (4,)
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)
