"""The Hessian of part of the batch, by a forward pass of its own that leaves no trace."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgdph_fx.errors import OptimizerError
from sgdph_fx.optim import SGDPH
from tests.once import Cut


class Noisy(nn.Module):
    """What a forward pass changes: batch norm's buffers, one of its own, the random numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Softplus(), nn.Dropout(0.5), nn.Linear(8, 2)
        ).double()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.shift = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        out: Tensor = self.body(x) + self.shift
        return out

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])


def rows(count: int, size: int = 12) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(3)
    return [
        (torch.randn(size, 3, dtype=torch.float64, generator=g), torch.randint(2, (size,), generator=g))
        for _ in range(count)
    ]


@pytest.mark.parametrize("probe", ["ones", "exact"])
def test_it_is_the_hessian_of_that_part(small: Any, make_batches: Any, make_groups: Any, probe: Any) -> None:
    """Checked by torch.func on the first third, parameter by parameter of the first cycle."""
    net = small()
    optimizer = SGDPH(make_groups(net), 0.0, probe=probe)
    names = {p: n for n, p in net.named_parameters()}
    for x, y in make_batches(6, size=12):
        due = optimizer.due
        assert due is not None

        def loss_of(value: Tensor, x: Tensor = x, y: Tensor = y, due: Tensor = due) -> Tensor:
            weights = {n: value if n == names[due] else p.detach() for n, p in net.named_parameters()}
            out = torch.func.functional_call(net, weights, (x[:4],))
            return nn.functional.cross_entropy(out, y[:4])

        hessian = torch.func.hessian(loss_of)(due.detach())
        expected = hessian.diagonal() if probe == "exact" else hessian.sum(1)
        optimizer.zero_grad()
        optimizer.backward(net.loss((x, y)), hessian_loss=lambda x=x, y=y: net.loss((x[:4], y[:4])))  # type: ignore[misc]
        optimizer.step()
        found = optimizer.state[due]["hessian_average"]
        torch.testing.assert_close(found, 0.1 * expected.abs(), rtol=1e-9, atol=1e-12)


def test_gradients_buffers_and_random_numbers_are_those_of_the_loss_alone() -> None:
    nets = [Noisy(), Noisy()]
    optimizers = [
        SGDPH([{"params": [*n.body[1].parameters(), n.shift], "order": 2}], 0.05, hessian_interval=2)
        for n in nets
    ]
    buffers = dict(nets[0].named_buffers())
    torch.manual_seed(7)
    for batch in rows(6):
        before = torch.get_rng_state()
        nets[1].zero_grad()
        nets[1].loss(batch).backward()
        after = torch.get_rng_state()

        torch.set_rng_state(before)
        nets[0].zero_grad()
        x, y = batch
        optimizers[0].backward(
            nets[0].loss(batch), hessian_loss=lambda x=x, y=y: nets[0].loss((x[:6], y[:6]))  # type: ignore[misc]
        )  # fmt: skip
        assert torch.equal(torch.get_rng_state(), after)
        for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
            assert torch.equal(p.grad, q.grad)
        for name, buffer in nets[1].named_buffers():
            assert torch.equal(buffers[name], buffer)
        optimizers[0].step()
        nets[1].load_state_dict(nets[0].state_dict())
    # The same tensors all along, not equal ones.
    assert all(buffers[name] is b for name, b in nets[0].named_buffers())


def test_a_generator_that_is_a_modules_own_draws_as_without_it() -> None:
    class Shaken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.linear, self.norm = nn.Linear(4, 3), nn.LayerNorm(3)
            self.generator = torch.Generator().manual_seed(7)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.norm(self.linear(x + torch.randn(x.shape, generator=self.generator)))
            return out

    net, other = Shaken(), torch.Generator().manual_seed(7)
    optimizer = SGDPH([{"params": list(net.parameters()), "order": 2}], 0.05)
    for _ in range(3):
        x = torch.randn(6, 4)
        optimizer.zero_grad()
        optimizer.backward(net(x).square().mean(), hessian_loss=lambda x=x: net(x).square().mean())
        optimizer.step()
        torch.randn(x.shape, generator=other)
    assert torch.equal(net.generator.get_state(), other.get_state())


def test_it_is_called_where_a_hessian_is_due_and_only_there(
    small: Any, make_batches: Any, make_groups: Any
) -> None:
    net, called = small(), []
    optimizer = SGDPH(make_groups(net), 0.05, hessian_interval=3)
    for t, batch in enumerate(make_batches(7)):

        def part(t: int = t, batch: Any = batch) -> Tensor:
            called.append(t)
            loss: Tensor = net.loss(batch)
            return loss

        optimizer.zero_grad()
        optimizer.backward(net.loss(batch), hessian_loss=part)
        optimizer.step()
    assert called == [0, 3, 6]


def test_the_parts_of_micro_batches_add_up(small: Any, make_batches: Any, make_groups: Any) -> None:
    nets = [small("group"), small("group")]
    whole, parts = (SGDPH(make_groups(n), 0.05) for n in nets)
    for x, y in make_batches(9, size=8):
        keep = [0, 1, 4, 5]
        whole.zero_grad()
        whole.backward(
            nets[0].loss((x, y)), hessian_loss=lambda x=x, y=y, k=keep: nets[0].loss((x[k], y[k]))  # type: ignore[misc]
        )  # fmt: skip
        whole.step()
        parts.zero_grad()
        for i in (0, 4):
            batch = (x[i : i + 4], y[i : i + 4])
            part = (x[i : i + 2], y[i : i + 2])
            parts.backward(nets[1].loss(batch) / 2, hessian_loss=lambda part=part: nets[1].loss(part) / 2)  # type: ignore[misc]
        parts.step()
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-12)


def test_the_loss_itself_may_then_be_differentiable_only_once(small: Any, make_batches: Any) -> None:
    p, q = (nn.Parameter(torch.tensor([0.5, 2.0])) for _ in range(2))
    optimizer = SGDPH([{"params": [p, q], "order": 2}], 0.1)
    optimizer.backward(Cut.apply(p + q).sum(), hessian_loss=lambda: (p + q).sin().sum())
    optimizer.step()
    torch.testing.assert_close(
        optimizer.state[p]["hessian_average"], 0.1 * torch.tensor([1.0, 4.0]).sin().abs()
    )


def test_what_another_thread_runs_meanwhile_keeps_its_buffers() -> None:
    net, other, (batch,) = Noisy(), nn.BatchNorm1d(3, momentum=1.0).double(), rows(1)
    optimizer = SGDPH([{"params": [*net.body[1].parameters(), net.shift], "order": 2}], 0.05)
    seen = torch.arange(12.0, dtype=torch.float64).view(4, 3)

    def loss() -> Tensor:
        thread = threading.Thread(target=other, args=(seen,))
        thread.start()
        thread.join()
        return net.loss(batch)

    optimizer.backward(net.loss(batch), hessian_loss=loss)
    assert other.num_batches_tracked.item() == 1
    torch.testing.assert_close(other.running_mean, seen.mean(0))


def test_what_is_no_loss_is_refused_and_buffers_are_back() -> None:
    net, (batch,) = Noisy(), rows(1)
    optimizer = SGDPH([{"params": [*net.body[1].parameters(), net.shift], "order": 2}], 0.05)
    loss = net.loss(batch)
    before = copy.deepcopy(dict(net.named_buffers()))

    def vector() -> Tensor:
        out: Tensor = net(batch[0])
        return out

    with pytest.raises(OptimizerError, match=r"shape \(12, 2\)"):
        optimizer.backward(loss, hessian_loss=vector)
    assert all(torch.equal(before[name], b) for name, b in net.named_buffers())
