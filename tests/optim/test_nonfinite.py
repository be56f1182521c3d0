"""What is not finite is not written, but counted and told once."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sgdph_fx.optim import SGDPH, nonfinite
from tests.torch_versions import fake_gpus_compute

pytestmark = pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True:UserWarning")


def train(net: Any, optimizer: SGDPH, data: list[Any], own_graph: bool = False) -> None:
    for batch in data:
        optimizer.zero_grad()
        loss = net.loss(batch)
        loss.backward(create_graph=True) if own_graph else optimizer.backward(loss)
        optimizer.step()


def poisoned(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    x = batch[0].clone()
    x[0, 0, 0, 0] = float("nan")
    return x, batch[1]


@pytest.mark.parametrize("own_graph", [False, True])
@pytest.mark.parametrize("variant", ["authors", "paper"])
def test_a_step_of_a_bad_batch_is_as_if_it_had_not_been(
    small: Any, make_batches: Any, make_groups: Any, variant: Any, own_graph: bool
) -> None:
    nets, data = [small(), small()], make_batches(12)
    seen, spared = (SGDPH(make_groups(n), 0.05, variant=variant, weight_decay=0.01) for n in nets)
    train(nets[0], seen, data[:3], own_graph)
    culprit = "A gradient" if own_graph else "The loss"
    with pytest.warns(RuntimeWarning, match=f"{culprit} is not finite, so this step has been skipped"):
        train(nets[0], seen, [poisoned(data[3])], own_graph)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        train(nets[0], seen, [poisoned(data[3]), *data[3:]], own_graph)
    train(nets[1], spared, data, own_graph)
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True))
    assert (seen.steps_skipped, spared.steps_skipped) == (2, 0)
    assert seen.refreshes_skipped == 0


@pytest.mark.parametrize("bad", [0, 1])
def test_one_bad_micro_batch_spoils_the_sum_but_not_the_next_one(
    small: Any, make_batches: Any, make_groups: Any, bad: int
) -> None:
    net, data = small(), make_batches(2)
    optimizer = SGDPH(make_groups(net), 0.05)
    before = copy.deepcopy(net.state_dict())
    for number, batch in enumerate(data):
        optimizer.backward(net.loss(poisoned(batch) if number == bad else batch))
    with pytest.warns(RuntimeWarning, match="skipped"):
        optimizer.step()
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert not optimizer.state
    net.zero_grad()
    train(net, optimizer, data)
    assert optimizer.steps_skipped == 1


@pytest.mark.parametrize("own_graph", [False, True])
@pytest.mark.parametrize("where", ["due", "first-order"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_skips_the_step_though_the_loss_is(
    small: Any, make_batches: Any, make_groups: Any, where: str, value: float, own_graph: bool
) -> None:
    """As if the batch had not been, in both ways to call."""
    nets, data = [small(), small()], make_batches(10)
    seen, spared = (SGDPH(make_groups(n), 0.05) for n in nets)
    train(nets[0], seen, data[:2], own_graph)
    seen.zero_grad()
    loss = nets[0].loss(data[2])
    loss.backward(create_graph=True) if own_graph else seen.backward(loss)
    due = seen.due
    assert due is not None
    spoiled = due if where == "due" else nets[0].linear.weight
    assert spoiled.grad is not None
    spoiled.grad.detach().view(-1)[-1] = value
    with pytest.warns(RuntimeWarning, match="A gradient is not finite, so this step has been skipped"):
        seen.step()
    assert (seen.steps_skipped, seen.refreshes_skipped, seen.due is due) == (1, 0, True)
    train(nets[0], seen, data[3:], own_graph)
    train(nets[1], spared, data[:2] + data[3:], own_graph)
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_a_finite_loss_whose_gradient_is_not_does_not_poison_anything() -> None:
    """The square root at 0 has an infinite slope, times 0 is NaN; the loss is 1."""
    p, last = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.ones(1))
    optimizer = SGDPH([{"params": [p, last], "order": 2}], 0.1)
    loss = (0 * p).sqrt().sum() + last.sum()
    assert loss.isfinite()
    optimizer.backward(loss)
    with pytest.warns(RuntimeWarning, match="A gradient is not finite"):
        optimizer.step()
    assert p.tolist() == [0.0, 0.0]
    assert last.item() == 1.0
    assert optimizer.steps_skipped == 1


def test_gradients_whose_sum_overflows_are_finite_all_the_same() -> None:
    p = nn.Parameter(torch.zeros(3))
    optimizer = SGDPH([{"params": [p], "order": 1}], 1e-38, momentum=0.0)
    optimizer.backward((3e38 * p).sum())
    optimizer.step()
    torch.testing.assert_close(p.detach(), torch.full((3,), -3.0), rtol=1e-5, atol=0)
    assert optimizer.steps_skipped == 0


def test_a_plain_sgd_step_is_skipped_too(small: Any, make_batches: Any) -> None:
    net, (batch,) = small(), make_batches(1)
    optimizer = SGDPH(net.parameters(), 0.05)
    before = copy.deepcopy(net.state_dict())
    with pytest.warns(RuntimeWarning, match="skipped"):
        train(net, optimizer, [poisoned(batch)])
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize("own_graph", [False, True])
def test_a_hessian_that_is_not_finite_is_left_out_and_the_step_taken(own_graph: bool) -> None:
    """|p|^(3/2) has the gradient 0 at 0, and no second derivative there; q² is as it should be."""
    p, last = nn.Parameter(torch.tensor([4.0, 0.0])), nn.Parameter(torch.tensor([1.0]))
    optimizer = SGDPH([{"params": [p, last], "order": 2}], 0.5, momentum=0.0)
    loss = p.abs().pow(1.5).sum() + (last**2).sum()
    torch.autograd.backward(loss, create_graph=True) if own_graph else optimizer.backward(loss)
    with pytest.warns(RuntimeWarning, match="Hessian that was due is not finite"):
        optimizer.step()
    assert optimizer.state[p]["hessian_average"].tolist() == [0.0, 0.0]
    assert (optimizer.refreshes_skipped, optimizer.steps_skipped) == (1, 0)
    # The spared last parameter is SGD's: 1 - 0.5 · 2.
    assert last.item() == 0.0
    # M^H is still 0: τ τ_SO (1 - α) / ε = 0.5 · 1e-3 · 0.1 / 1e-4 = 0.5 of g = 1.5 · 4^½ = 3.
    torch.testing.assert_close(p.detach(), torch.tensor([4 - 0.5 * 3, 0.0]), rtol=1e-5, atol=0)
    assert optimizer.param_groups[0]["step"] == 1


def test_the_counts_are_state(small: Any, make_batches: Any, make_groups: Any) -> None:
    net, (batch,) = small(), make_batches(1)
    optimizer = SGDPH(make_groups(net), 0.05)
    with pytest.warns(RuntimeWarning):
        train(net, optimizer, [poisoned(batch)])
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = SGDPH(make_groups(net), 0.05)
    resumed.load_state_dict(saved)
    assert resumed.steps_skipped == 1
    resumed.add_param_group({"params": [("extra", nn.Parameter(torch.ones(1)))]})
    assert [group["steps_skipped"] for group in resumed.param_groups] == [1, 1, 1]
    older = copy.deepcopy(saved)
    for group in older["param_groups"]:
        del group["steps_skipped"], group["refreshes_skipped"]
    resumed = SGDPH(make_groups(net), 0.05)
    resumed.load_state_dict(older)
    assert resumed.steps_skipped == 0


def test_parameters_without_numbers_step_as_if_they_were_not_there() -> None:
    def trained(*empty: nn.Parameter) -> Any:
        p = nn.Parameter(torch.tensor([1.0, 2.0]))
        optimizer = SGDPH([p, *empty], 0.1, capturable=True)
        for _ in range(3):
            optimizer.zero_grad()
            optimizer.backward(sum((t.square().sum() for t in (p, *empty)), torch.zeros(())))
            optimizer.step()
        return p, optimizer.statistics()["step"]

    alone, _ = trained()
    beside, steps = trained(nn.Parameter(torch.empty(0)), nn.Parameter(torch.empty(2, 0)))
    assert steps == 3
    assert torch.equal(alone, beside)


@pytest.mark.skipif(not fake_gpus_compute(), reason="this torch asks for a driver of the fake GPU")
def test_devices_that_take_turns_are_each_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the two networks of a GAN are on two GPUs: no operation takes numbers of both."""
    looked_at: list[str] = []

    class Look:
        is_known = False

        def __init__(self, value: Tensor) -> None:
            looked_at.append(str(value.device))

    monkeypatch.setattr(nonfinite, "Flag", Look)
    skipped = nonfinite.Skipped()
    with FakeTensorMode():
        for step in range(20):
            skipped.add_on_device(torch.zeros((), device=f"cuda:{step % 2}"), None)
            skipped.settle([], wait=False)
    assert looked_at == ["cuda:0", "cuda:1"]
