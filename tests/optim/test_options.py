"""Probes, the interval and the bound on the preconditioner, on losses whose Hessians are known."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgdph_fx import SGDPH
from sgdph_fx.curvature.probes import PROBES, generator_at
from sgdph_fx.errors import NoCurvatureError, OptimizerError

A = torch.tensor([[2.0, 0.5, -0.3], [0.5, -1.0, 0.7], [-0.3, 0.7, 3.0]], dtype=torch.float64)


def quadratic(p: Tensor, matrix: Tensor = A) -> Tensor:
    """½ pᵀ A p, with Hessian A."""
    return p @ matrix @ p / 2


def parameter() -> nn.Parameter:
    return nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))


def optimizer(p: nn.Parameter, *more: nn.Parameter, **options: Any) -> SGDPH:
    # The paper's variant: the authors' treats the last second-order parameter as first-order.
    return SGDPH([{"params": [p, *more], "order": 2}], lr=0.1, variant="paper", **options)


def found(p: nn.Parameter, matrix: Tensor, **options: Any) -> Tensor:
    """The average after one step with α = 1, which is what the step's probe found."""
    opt = optimizer(p, hessian_momentum=1.0, eps=1e-12, **options)
    opt.backward(quadratic(p, matrix))
    opt.step()
    average: Tensor = opt.state[p]["hessian_average"]
    return average


def test_ones_gives_row_sums_and_exact_the_diagonal() -> None:
    assert torch.allclose(found(parameter(), A).abs(), A.sum(1).abs(), atol=1e-5)
    assert torch.allclose(found(parameter(), A, probe="exact").abs(), A.diagonal().abs(), atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_rademacher_is_exact_where_the_block_is_diagonal(seed: int) -> None:
    diagonal = torch.diag(A.diagonal())
    average = found(parameter(), diagonal, probe="rademacher", seed=seed)
    assert torch.allclose(average, A.diagonal(), atol=1e-5), "averaged with its sign"


def test_rademacher_is_unbiased_over_all_signs() -> None:
    estimates = [
        z * (A @ z) for z in map(torch.tensor, itertools.product([-1.0, 1.0], repeat=3)) for z in [z.double()]
    ]
    assert torch.allclose(torch.stack(estimates).mean(0), A.diagonal())
    z = next(PROBES["rademacher"].vectors(parameter(), generator_at(0, 1)))
    assert set(z.tolist()) <= {-1.0, 1.0}
    own = PROBES["rademacher"].estimate(lambda v: A @ v, parameter(), generator_at(0, 1))
    assert any(torch.allclose(own, e) for e in estimates)


def test_signs_differ_between_steps_and_are_both_drawn() -> None:
    """A probe that always draws the same sign would be the ones-probe under another name."""
    big = torch.zeros(64)
    draws = torch.stack(
        [next(PROBES["rademacher"].vectors(big, generator_at(3, step))) for step in range(1, 200)]
    )
    assert draws.mean().abs() < 0.05
    assert len({tuple(row.tolist()) for row in draws}) == len(draws)


def test_rademacher_resumes_to_the_bit() -> None:
    def train(p: nn.Parameter, opt: SGDPH, steps: int) -> None:
        for _ in range(steps):
            opt.zero_grad()
            opt.backward(quadratic(p))
            opt.step()

    p = parameter()
    opt = optimizer(p, probe="rademacher", seed=5)
    train(p, opt, 3)
    q = copy.deepcopy(p)
    other = optimizer(q, probe="rademacher", seed=5)
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    train(p, opt, 4)
    train(q, other, 4)
    assert torch.equal(p, q)


def test_interval_refreshes_every_kth_step_and_goes_round_all() -> None:
    p, q = parameter(), parameter()
    opt = optimizer(p, q, hessian_interval=3)
    refreshed = []
    for _ in range(12):
        before = {id(w): opt.state[w].get("hessian_average", torch.zeros(3)).clone() for w in (p, q)}
        opt.zero_grad()
        opt.backward(quadratic(p) + quadratic(q))
        opt.step()
        refreshed.append(
            [
                n
                for n, w in (("p", p), ("q", q))
                if not torch.equal(opt.state[w]["hessian_average"], before[id(w)])
            ]
        )
    assert [names for names in refreshed[1:] if names] == [["q"], ["p"], ["q"]]
    assert [bool(names) for names in refreshed[1:]] == [False, False, True] * 3 + [False, False]


def test_between_refreshes_plain_gradients_do() -> None:
    """On a step that is not due, the model may run compiled: nothing is differentiated twice."""
    p = parameter()
    opt = optimizer(p, hessian_interval=2)
    opt.backward(quadratic(p))
    opt.step()
    opt.zero_grad()
    quadratic(p).backward()
    opt.step()
    opt.zero_grad()
    quadratic(p).backward()
    with pytest.raises(NoCurvatureError):
        opt.step()


def test_bound_on_the_preconditioner() -> None:
    """Without curvature the factor is τ_SO/√ε; a bound of 1 makes the step SGD's."""
    p = parameter()
    opt = optimizer(p, momentum=1.0, second_order_lr=1e-3, eps=1e-12, max_preconditioner=1.0)
    direction = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    before = p.detach().clone()
    opt.backward((direction * p).sum())
    opt.step()
    assert torch.allclose(before - p.detach(), 0.1 * direction, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{"probe": "normal"}, {"hessian_interval": 0}, {"max_preconditioner": -1.0}], ids=str
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(OptimizerError):
        optimizer(parameter(), **options)
