"""A loss whose backward pass is the optimizer's, whatever a trainer makes of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from sgdph_fx import attach
from sgdph_fx.errors import OptimizerError
from sgdph_fx.optim import SGDPH

DERIVED = {
    "itself": lambda loss: loss,
    "halved twice": lambda loss: (loss / 2) * 2,
    "mean over devices": lambda loss: torch.stack([loss, loss]).mean(),
    "with a penalty": lambda loss: loss + 0.0,
    "sum of a list": lambda loss: sum([loss / 3, loss / 3, loss / 3]),
}


def steps(net: Any, optimizer: SGDPH, data: list[Any], way: Any) -> list[Tensor]:
    for batch in data:
        optimizer.zero_grad()
        way(net.loss(batch))
        optimizer.step()
    return [p.detach() for p in net.parameters()]


@pytest.mark.parametrize("name", DERIVED)
def test_a_trainers_backward_takes_the_optimizers_steps(
    small: Any, make_batches: Any, make_groups: Any, name: str
) -> None:
    nets, data = [small(), small()], make_batches(9)
    plain, attached = (SGDPH(make_groups(net), 0.05) for net in nets)
    expected = steps(nets[0], plain, data, plain.backward)
    wrapper = SimpleNamespace(optimizer=SimpleNamespace(optimizer=attached))
    found = steps(nets[1], attached, data, lambda loss: DERIVED[name](attach(loss, wrapper)).backward())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("create_graph", [False, True])
def test_under_a_scaler_with_clipping_and_a_loop_that_would_keep_the_graph(
    small: Any, make_batches: Any, make_groups: Any, create_graph: bool
) -> None:
    nets, data = [small(), small()], make_batches(9)
    plain, attached = (SGDPH(make_groups(net), 0.05) for net in nets)
    for batch in data:
        plain.zero_grad()
        plain.backward(nets[0].loss(batch))
        nn.utils.clip_grad_norm_(nets[0].parameters(), 0.1)
        plain.step()
    scaler = GradScaler("cpu", init_scale=2.0**10)
    for batch in data:
        attached.zero_grad()
        loss = scaler.scale(attach(nets[1].loss(batch), attached))
        loss.backward(create_graph=create_graph)
        assert not any(p.grad is not None and p.grad.requires_grad for p in nets[1].parameters())
        scaler.unscale_(attached)
        nn.utils.clip_grad_norm_(nets[1].parameters(), 0.1)
        scaler.step(attached)
        scaler.update()
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-12)


def test_what_is_no_longer_to_be_differentiated_is_a_plain_tensor(
    small: Any, make_batches: Any, make_groups: Any
) -> None:
    net, (batch,) = small(), make_batches(1)
    optimizer = SGDPH(make_groups(net), 0.05)
    loss = attach(net.loss(batch), optimizer)
    assert type(loss.detach()) is Tensor
    assert type(loss.detach() + 1) is Tensor
    assert type(loss.isnan()) is Tensor
    assert loss.item() == net.loss(batch).item()
    with torch.no_grad():
        evaluated = net.loss(batch)
        assert attach(evaluated, optimizer) is evaluated


@pytest.mark.parametrize(
    "operation",
    [
        lambda loss: torch.mul(input=loss, other=1.0),
        lambda loss: torch.stack(tensors=[loss, loss]).mean(),
        lambda loss: loss.reshape(1).unbind()[0],
        lambda loss: loss.reshape(1).max(0).values,
    ],
)
def test_whatever_operation_it_passes_its_backward_is_the_optimizers(
    operation: Any, small: Any, make_batches: Any, make_groups: Any
) -> None:
    nets, (batch,) = [small(), small()], make_batches(1)
    plain, attached = (SGDPH(make_groups(net), 0.05) for net in nets)
    plain.backward(nets[0].loss(batch))
    plain.step()
    operation(attach(nets[1].loss(batch), attached)).backward()
    attached.step()
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-12)


def test_arguments_of_backward_are_heeded(small: Any, make_batches: Any, make_groups: Any) -> None:
    """Twice with the graph kept, times a factor, and for some inputs alone."""
    net, (batch,) = small(), make_batches(1)
    optimizer = SGDPH(make_groups(net), 0.05)
    reference = torch.autograd.grad(net.loss(batch), net.linear.weight)[0]
    loss = attach(net.loss(batch), optimizer)
    loss.backward(retain_graph=True)
    loss.backward(torch.tensor(2.0))  # type: ignore[no-untyped-call]
    torch.testing.assert_close(net.linear.weight.grad, 3 * reference, rtol=1e-12, atol=1e-15)
    optimizer.zero_grad()
    attach(net.loss(batch), optimizer).backward(inputs=[net.linear.weight])  # type: ignore[no-untyped-call]
    torch.testing.assert_close(net.linear.weight.grad, reference, rtol=1e-12, atol=1e-15)
    assert net.conv1.weight.grad is None


def test_another_optimizer_is_refused() -> None:
    p = nn.Parameter(torch.ones(1))
    with pytest.raises(OptimizerError, match=r"attach\(\) needs SGDPH.*got SGD\."):
        attach(p.sum(), torch.optim.SGD([p], 0.1))
