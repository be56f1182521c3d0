"""Scalers of every kind: a subclass with a step of its own, `unscale_` and then a plain step, none that unscaled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from sgdph_fx.errors import OptimizerError
from sgdph_fx.optim import SGDPH

pytestmark = pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True:UserWarning")


class OwnStep(GradScaler):
    """Calls the optimizer from a method of its own."""

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        self.unscale_(optimizer)
        return optimizer.step(*args, **kwargs)


class OwnDivision(GradScaler):
    """Divides the gradients itself, without `unscale_` and what that notes down."""

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad.div_(self._scale)
        return optimizer.step(*args, **kwargs)

    def update(self, new_scale: Any = None) -> None:
        pass


class UnrecordedDivision(OwnDivision):
    """As that, out of sight of autograd, where a kept graph still gives the scaled Hessian."""

    @torch.no_grad()
    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        return super().step(optimizer, *args, **kwargs)


def by_method(scaler: GradScaler, optimizer: SGDPH) -> None:
    scaler.step(optimizer)


def by_hand(scaler: GradScaler, optimizer: SGDPH) -> None:
    scaler.unscale_(optimizer)
    optimizer.step()


WAYS: dict[str, tuple[type[GradScaler], Callable[[GradScaler, SGDPH], None]]] = {
    "torch's": (GradScaler, by_method),
    "own step": (OwnStep, by_method),
    "own division": (OwnDivision, by_method),
    "own division, unrecorded": (UnrecordedDivision, by_method),
    "unscale_, then optimizer.step": (GradScaler, by_hand),
}


@pytest.mark.parametrize("own_graph", [False, True])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_the_steps_are_those_without_a_scaler(
    small: Any, make_batches: Any, make_groups: Any, way: str, parts: int, own_graph: bool
) -> None:
    kind, step = WAYS[way]
    nets, data = [small("group"), small("group")], make_batches(9)
    plain, scaled = (SGDPH(make_groups(net), 0.05) for net in nets)
    scaler = kind("cpu", init_scale=2.0**12)
    for x, y in data:
        plain.zero_grad()
        plain.backward(nets[0].loss((x, y)))
        plain.step()
        scaled.zero_grad()
        for i in range(0, 6, 6 // parts):
            loss = nets[1].loss((x[i : i + 6 // parts], y[i : i + 6 // parts]))
            loss = scaler.scale(loss) / parts
            loss.backward(create_graph=True) if own_graph else scaled.backward(loss)
        step(scaler, scaled)
        scaler.update()
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-12)


def test_a_sum_of_scaled_losses_is_seen_through() -> None:
    """L = p² + 3 p²: H = 8 at the first step, M^H = 0.1 · 8."""
    p, last = nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.zeros(1))
    optimizer = SGDPH([{"params": [p, last], "order": 2}], 0.0)
    scaler = GradScaler("cpu", init_scale=256.0)
    optimizer.backward(scaler.scale((p**2).sum()) + scaler.scale((3 * p**2).sum()))
    scaler.unscale_(optimizer)
    optimizer.step()
    assert optimizer.state[p]["hessian_average"].item() == pytest.approx(0.8)


def test_gradients_that_are_still_scaled_are_refused() -> None:
    p, last = nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.zeros(1))
    optimizer = SGDPH([{"params": [p, last], "order": 2}], 0.1)
    scaler = GradScaler("cpu", init_scale=256.0)
    optimizer.backward(scaler.scale((p**2).sum()))
    with pytest.raises(OptimizerError, match=r"scaled by a GradScaler, and the gradients still are"):
        optimizer.step()
    assert p.item() == 1
    assert not optimizer.state
    scaler.step(optimizer)
    assert optimizer.state[p]["hessian_average"].item() == pytest.approx(0.2)


@pytest.mark.parametrize("weight", [torch.tensor(3.0), torch.tensor(3.0, dtype=torch.float64), 3.0])
def test_a_weight_of_ones_own_is_no_scale(weight: Tensor | float) -> None:
    p, last = nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.zeros(1))
    optimizer = SGDPH([{"params": [p, last], "order": 2}], 0.0)
    other = GradScaler("cpu")
    other.scale(torch.ones(1))
    optimizer.backward((p**2).sum() * weight)
    optimizer.step()
    assert optimizer.state[p]["hessian_average"].item() == pytest.approx(0.6)
