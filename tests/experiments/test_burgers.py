"""Burgers' equation: the exact solution against the equation itself, and the residual against derivatives by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from experiments.datasets.burgers import VISCOSITY, BurgersObjective, BurgersSource, exact_solution, residual
from experiments.distributed import World
from experiments.networks import build
from experiments.training.methods import METHODS

CPU = torch.device("cpu")


def _u(t: float, x: float) -> float:
    return exact_solution(torch.tensor([[t, x]], dtype=torch.float64)).item()


@pytest.mark.parametrize(("t", "x"), [(0.1, 0.3), (0.3, -0.6), (0.6, 0.5), (0.9, -0.25)])
def test_the_exact_solution_solves_the_equation(t: float, x: float) -> None:
    h = 1e-3
    u_t = (_u(t + h, x) - _u(t - h, x)) / (2 * h)
    u_x = (_u(t, x + h) - _u(t, x - h)) / (2 * h)
    u_xx = (_u(t, x + h) - 2 * _u(t, x) + _u(t, x - h)) / h**2
    assert u_t + _u(t, x) * u_x - VISCOSITY * u_xx == pytest.approx(0, abs=2e-4)


def test_the_exact_solution_has_the_given_values() -> None:
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)
    start = exact_solution(torch.stack([torch.zeros(9, dtype=torch.float64), x], 1))
    torch.testing.assert_close(start, -torch.sin(math.pi * x))
    for t in (0.2, 0.7):
        assert _u(t, 1.0) == pytest.approx(0, abs=1e-9)
        assert _u(t, -0.4) == pytest.approx(-_u(t, 0.4))


def test_the_residual_of_a_known_function() -> None:
    """For u = t x³: u_t = x³, u_x = 3 t x², u_xx = 6 t x."""

    class Cubic(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            return (points[:, 0] * points[:, 1] ** 3)[:, None]

    points = torch.tensor([[0.5, 0.2], [1.0, -0.7]], dtype=torch.float64)
    t, x = points.T
    expected = x**3 + t * x**3 * 3 * t * x**2 - VISCOSITY * 6 * t * x
    torch.testing.assert_close(residual(Cubic(), points).detach(), expected)


def test_the_score_counts_correct_digits() -> None:
    class Constant(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            return torch.full((len(points), 1), 1.01)

    objective = BurgersObjective()
    sums = objective.eval_sums(Constant(), torch.zeros(4, 2), torch.ones(4))
    score = objective.eval_score(sums)
    # Every value is off by a hundredth of its size.
    assert score.loss == pytest.approx(0.01, rel=1e-4)
    assert score.score == pytest.approx(2, abs=1e-4)


def test_batches_are_points_of_the_domain_with_the_given_values() -> None:
    source = BurgersSource(64, None, False, CPU)
    first, again, later = (list(source.train_batches(16, 3, epoch)) for epoch in (1, 1, 2))
    assert [points.shape for points, _ in first] == [(16, 2)] * 4
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], later[0][0])
    points = torch.cat([points for points, _ in first])
    assert points.min(0).values.tolist() >= [0, -1]
    assert points.max(0).values.tolist() <= [1, 1]
    t, x, u = first[0][1].T
    assert torch.equal(u[t == 0], -torch.sin(math.pi * x[t == 0]))
    assert set(x[t != 0].tolist()) == {-1.0, 1.0}
    assert not u[t != 0].any()
    halves = [next(source.train_batches(16, 3, 1, World(rank, 2)))[0] for rank in range(2)]
    assert torch.equal(torch.stack(halves, 1).flatten(0, 1), first[0][0])


def test_held_out_points_are_not_those_of_the_grid() -> None:
    grid, random = (BurgersSource(16, 50, held_out, CPU) for held_out in (False, True))
    (points, solution), (others, _) = (next(source.eval_batches()) for source in (grid, random))
    assert points.shape == others.shape == (50, 2)
    torch.testing.assert_close(solution, exact_solution(points))
    assert not {tuple(p) for p in points.tolist()} & {tuple(p) for p in others.tolist()}


def test_sgd_ph_takes_the_hessian_of_the_residual() -> None:
    """The loss itself has second derivatives in it; the product is torch's double backward."""
    net = build("mlp-tanh", width=6, channels=2, classes=1).double()
    source = BurgersSource(16, 10, False, CPU)
    inputs, known = (each.double() for each in next(source.train_batches(16, 0, 1)))
    setup = METHODS["sgd-ph"](net, inputs, 0.01, 0.0)
    loss, _ = source.objective.loss(setup.model, inputs, known)
    bias = setup.model.get_parameter("0.bias")
    (gradient,) = torch.autograd.grad(loss, bias, create_graph=True)
    (product,) = torch.autograd.grad(gradient.sum(), bias, retain_graph=True)
    assert getattr(setup.optimizer, "due") is bias  # noqa: B009
    setup.backward(loss)
    setup.optimizer.step()
    state = setup.optimizer.state_dict()["state"]
    averages = [s["hessian_average"] for s in state.values() if "hessian_average" in s]
    # The authors' code: the first average is 0.1 |Hv|.
    torch.testing.assert_close(averages[0], 0.1 * product.abs())
