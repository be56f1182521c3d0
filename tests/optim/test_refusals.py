"""What a backward pass or a step cannot work with is refused, and nothing has changed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgdph_fx.errors import NoCurvatureError, OptimizerError, StaleOptimizerError
from sgdph_fx.optim import SGDPH
from tests.once import Cut

pytestmark = pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True:UserWarning")


def params_of(net: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in net.parameters()]


@pytest.mark.parametrize("wrong", ["number", "vector", "detached", "complex"])
def test_a_loss_that_is_none_is_refused(small: Any, make_batches: Any, make_groups: Any, wrong: str) -> None:
    net = small()
    optimizer = SGDPH(make_groups(net), 0.05)
    loss = net.loss(make_batches(1)[0])
    given, says = {
        "number": (loss.item(), "got float"),
        "vector": (loss.expand(3), r"shape \(3,\)"),
        "detached": (loss.detach(), "requires no gradient"),
        "complex": (loss.to(torch.complex128), "real loss"),
    }[wrong]
    with pytest.raises(OptimizerError, match=says):
        optimizer.backward(given)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("order", [1, 2])
def test_an_optimizer_of_another_model_is_stale(small: Any, make_batches: Any, order: int) -> None:
    old, new = small(), small()
    optimizer = SGDPH([{"params": list(old.parameters()), "order": order}], 0.05)
    with pytest.raises(StaleOptimizerError, match="none of the 10 parameters"):
        optimizer.backward(new.loss(make_batches(1)[0]))
    assert all(p.grad is None for p in new.parameters())


def test_a_plain_backward_is_told_both_remedies(small: Any, make_batches: Any, make_groups: Any) -> None:
    net = small()
    optimizer = SGDPH(make_groups(net), 0.05)
    before = params_of(net)
    net.loss(make_batches(1)[0]).backward()
    with pytest.raises(NoCurvatureError) as caught:
        optimizer.step()
    assert "'conv1.bias'" in str(caught.value)
    assert "optimizer.backward(loss)" in str(caught.value)
    assert "loss.backward(create_graph=True)" in str(caught.value)
    assert all(torch.equal(p, q) for p, q in zip(before, net.parameters(), strict=True))
    assert not optimizer.state
    assert {g["step"] for g in optimizer.param_groups} == {0}


def test_an_operation_differentiable_once_leaves_everything_as_it_was() -> None:
    p, q = (nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(2))
    optimizer = SGDPH([{"params": [p, q], "order": 2}], 0.1, without_curvature="raise")
    with pytest.raises(NoCurvatureError, match="no second derivative"):
        optimizer.backward(Cut.apply(p * q).exp().sum())
    assert p.grad is None
    assert q.grad is None


def test_a_sparse_gradient_is_refused_by_name_before_anything_moves() -> None:
    table = nn.Embedding(4, 2, sparse=True)
    gain = nn.Parameter(torch.ones(2))
    optimizer = SGDPH([("gain", gain), ("table.weight", table.weight)], 0.1)
    optimizer.backward((table(torch.tensor([1])) * gain).sum())
    with pytest.raises(OptimizerError, match=r"'table\.weight' is sparse"):
        optimizer.step()
    assert gain.tolist() == [1.0, 1.0]


def test_two_losses_on_one_graph(small: Any, make_batches: Any, make_groups: Any) -> None:
    """One after the other with the graph kept, or as their sum: the same gradients and the same Hessian."""
    nets, ((x, y),) = [small(), small()], make_batches(1)
    apart, summed = (SGDPH(make_groups(net), 0.05) for net in nets)
    out = nets[0](x)
    apart.backward(nn.functional.cross_entropy(out, y), retain_graph=True)
    apart.backward(out.square().mean())
    out = nets[1](x)
    summed.backward(nn.functional.cross_entropy(out, y) + out.square().mean())
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-12, atol=1e-14)
    for optimizer in (apart, summed):
        optimizer.step()
    averages = [
        o.state[net.conv1.bias]["hessian_average"] for o, net in zip((apart, summed), nets, strict=True)
    ]
    torch.testing.assert_close(averages[0], averages[1], rtol=1e-9, atol=1e-16)


@pytest.mark.parametrize("interval", [1, 2])
def test_a_graph_that_was_used_is_explained(
    small: Any, make_batches: Any, make_groups: Any, interval: int
) -> None:
    net, ((x, y),) = small(), make_batches(1)
    optimizer = SGDPH(make_groups(net), 0.05, hessian_interval=interval)
    if interval == 2:  # at the step in between, no Hessian is due
        optimizer.backward(net.loss((x, y)))
        optimizer.step()
        optimizer.zero_grad()
    loss = net.loss((x, y))
    optimizer.backward(loss)
    with pytest.raises(OptimizerError, match=r"has been used before.*retain_graph=True"):
        optimizer.backward(loss)


@pytest.mark.parametrize("restore", ["in place", "by data"])
def test_sam_with_a_kept_graph_is_told_what_to_call(
    small: Any, make_batches: Any, make_groups: Any, restore: str
) -> None:
    """The published forms of SAM: climb, take gradients there, put the parameters back, step."""
    net, data = small(), make_batches(2)
    optimizer = SGDPH(make_groups(net), 0.05)
    params = list(net.parameters())
    optimizer.zero_grad()
    net.loss(data[0]).backward(create_graph=True)
    optimizer.step()
    before = params_of(net), copy.deepcopy(optimizer.state_dict())
    optimizer.zero_grad()
    net.loss(data[1]).backward()
    kept = [p.detach().clone() for p in params]
    with torch.no_grad():
        for p in params:
            p.add_(0.1 * p.grad)
    optimizer.zero_grad()
    net.loss(data[1]).backward(create_graph=True)
    for p, value in zip(params, kept, strict=True):
        if restore == "by data":
            p.data = value
        else:
            p.detach().copy_(value)
    with pytest.raises(OptimizerError, match=r"as SAM does|SAM\s+moves"):
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(before[0], net.parameters(), strict=True))
    torch.testing.assert_close(optimizer.state_dict()["state"], before[1]["state"], rtol=0, atol=0)
    assert optimizer.param_groups[0]["step"] == 1


def test_sam_with_the_optimizers_own_backward_takes_the_hessian_at_the_climbed_point() -> None:
    """L = p⁴: at 1 the climb by 0.1 · 4 leads to 1.4, where H = 12 · 1.96; M^H = 0.1 of that."""
    p, last = nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.zeros(1))
    optimizer = SGDPH([{"params": [p, last], "order": 2}], 0.1)
    optimizer.backward((p**4).sum())
    with torch.no_grad():
        p.add_(0.1 * p.grad)
    optimizer.zero_grad()
    optimizer.backward((p**4).sum())
    p.data = torch.tensor([1.0])
    optimizer.step()
    assert optimizer.state[p]["hessian_average"].item() == pytest.approx(0.1 * 12 * 1.4**2, rel=1e-6)


def test_inference_mode_is_refused_wherever_it_would_spoil_something(
    small: Any, make_batches: Any, make_groups: Any
) -> None:
    net, (batch,) = small(), make_batches(1)
    optimizer, before = SGDPH(make_groups(net), 0.05), params_of(net)
    loss = net.loss(batch)
    with torch.inference_mode(), pytest.raises(OptimizerError, match=r"backward\(\) was called under"):
        optimizer.backward(loss)
    optimizer.backward(loss)
    with torch.inference_mode(), pytest.raises(OptimizerError, match=r"step\(\) was called under"):
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(before, net.parameters(), strict=True))
    assert not optimizer.state
    optimizer.step()
    assert optimizer.param_groups[0]["step"] == 1
    with torch.inference_mode():
        made_there = nn.Parameter(torch.ones(2))
    with pytest.raises(OptimizerError, match=r"made under `torch\.inference_mode"):
        SGDPH([made_there], 0.1)


def test_a_step_without_gradients_takes_nobodys_turn(small: Any, make_batches: Any, make_groups: Any) -> None:
    nets, data = [small(), small()], make_batches(5)
    with_idle, plain = (SGDPH(make_groups(net), 0.05) for net in nets)
    for batch in data:
        for net, optimizer in zip(nets, (with_idle, plain), strict=True):
            if optimizer is with_idle:
                optimizer.zero_grad()
                optimizer.step()
            optimizer.zero_grad()
            optimizer.backward(net.loss(batch))
            optimizer.step()
    assert with_idle.param_groups[0]["step"] == 5
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True))
