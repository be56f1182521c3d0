"""Probes, the interval of refreshes, and the bound on the preconditioner."""

from __future__ import annotations

import copy
import io
import itertools
import math
from statistics import fmean
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgdph_fx.curvature import PROBES, ProbeName, generator_at
from sgdph_fx.errors import OptimizerError
from sgdph_fx.optim import SGDPH
from sgdph_fx.optim.variants import VariantName
from tests.optim.training import train

pytestmark = pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True:UserWarning")


def matrix(n: int) -> Tensor:
    a = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return a + a.T


@pytest.mark.parametrize("seed", range(5))
def test_random_signs_are_exact_on_a_diagonal_whatever_is_drawn(seed: int) -> None:
    diagonal = torch.tensor([3.0, -1.0, 0.0, 7.0])
    found = PROBES["rademacher"].estimate(lambda v: diagonal * v, diagonal, generator_at(seed, seed))
    assert torch.equal(found, diagonal)


def test_random_signs_are_unbiased_over_all_of_them() -> None:
    h = matrix(6)
    read = PROBES["rademacher"].read
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=6)), dtype=torch.float64)
    mean = torch.stack([read(z, h @ z) for z in signs]).mean(0)
    torch.testing.assert_close(mean, h.diagonal(), rtol=0, atol=1e-14)


def test_signs_are_signs_evenly_drawn_and_new_at_every_step_and_seed() -> None:
    p = torch.zeros(50, 20, dtype=torch.float64)
    draws = [
        next(PROBES["rademacher"].vectors(p, generator_at(seed, t))) for seed in (0, 1) for t in range(20)
    ]
    for z in draws:
        assert z.dtype is p.dtype
        assert torch.equal(z.abs(), torch.ones_like(p))
        assert abs(z.mean().item()) < 5 / math.sqrt(p.numel())
    products = [(a * b).mean().item() for a, b in itertools.combinations(draws, 2)]
    assert max(map(abs, products)) < 5 / math.sqrt(p.numel())
    again = next(PROBES["rademacher"].vectors(p, generator_at(0, 0)))
    assert torch.equal(again, draws[0])


def test_the_mean_of_four_draws_is_exact_on_a_diagonal_and_has_a_quarter_of_the_squared_error() -> None:
    diagonal = torch.tensor([3.0, -1.0, 0.0, 7.0])
    four = PROBES["rademacher-4"]
    assert torch.equal(four.estimate(lambda v: diagonal * v, diagonal, generator_at(0, 1)), diagonal)
    h = matrix(6)
    drawn = list(four.vectors(h[0], generator_at(3, 2)))
    assert len({tuple(z.tolist()) for z in drawn}) > 1
    mean = sum(z * (h @ z) for z in drawn) / 4
    torch.testing.assert_close(four.estimate(lambda v: h @ v, h[0], generator_at(3, 2)), mean)
    draws = 4000
    estimates = torch.stack([four.estimate(lambda v: h @ v, h[0], generator_at(t, 1)) for t in range(draws)])
    error = ((estimates - h.diagonal()) ** 2).mean(0)
    expected = ((h**2).sum(1) - h.diagonal() ** 2) / 4
    # The mean of squares of something near a normal number has a relative deviation of sqrt(2 / draws).
    torch.testing.assert_close(error, expected, rtol=6 * math.sqrt(2 / draws), atol=0)


@pytest.mark.parametrize("own_graph", [False, True])
def test_exact_is_the_diagonal_of_the_hessian(
    small: Any, make_batches: Any, make_groups: Any, own_graph: bool
) -> None:
    net, data = small(), make_batches(2)
    optimizer = SGDPH(make_groups(net), 0.0, probe="exact")
    for batch in data:
        optimizer.zero_grad()
        loss = net.loss(batch)
        loss.backward(create_graph=True) if own_graph else optimizer.backward(loss)
        optimizer.step()
    fixed = {name: p.detach() for name, p in net.named_parameters()}

    def loss_of(gain: Tensor) -> Tensor:
        out = torch.func.functional_call(net, {**fixed, "norm1.weight": gain}, (data[1][0],))
        return nn.functional.cross_entropy(out, data[1][1])

    expected = torch.func.hessian(loss_of)(fixed["norm1.weight"]).diagonal().abs() * 0.1
    torch.testing.assert_close(
        optimizer.state[net.norm1.weight]["hessian_average"], expected, rtol=1e-10, atol=0
    )


@pytest.mark.parametrize("probe", ["rademacher", "rademacher-4"])
def test_random_signs_are_averaged_before_their_absolute_value_is_taken(probe: ProbeName) -> None:
    """On L = p₀² - p₁² + 6 p₀ p₁ the estimates are 2 ± 6 and -2 ± 6: of both signs, where the ones give 8 and 4."""
    variants: tuple[tuple[VariantName, float, float], ...] = (("authors", 0.7, 0.3), ("paper", 0.3, 0.7))
    for variant, old, new in variants:
        p = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        rest = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        groups = [{"params": [p], "order": 2}, {"params": [rest], "order": 2}]
        optimizer = SGDPH(
            groups, 0.0, probe=probe, variant=variant, hessian_momentum=0.7, max_preconditioner=None
        )
        average = torch.zeros(2, dtype=torch.float64)
        for t in range(1, 41):
            optimizer.zero_grad()
            optimizer.backward(p[0] ** 2 - p[1] ** 2 + 6 * p[0] * p[1] + rest.sum())
            optimizer.step()
            if t % 2:
                cross = 6 * fmean(z.prod().item() for z in PROBES[probe].vectors(p, generator_at(0, t)))
                average = old * average + new * torch.tensor([2 + cross, -2 + cross], dtype=torch.float64)
        assert (average < 0).any()
        torch.testing.assert_close(optimizer.state[p]["hessian_average"], average, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", ["authors", "paper"])
def test_the_step_takes_the_rectified_average_of_signed_estimates(variant: Any) -> None:
    p = nn.Parameter(torch.tensor([1.0, 1.0], dtype=torch.float64))
    last = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    curvature = torch.tensor([4.0, -9.0], dtype=torch.float64)
    optimizer = SGDPH(
        [{"params": [p, last], "order": 2}], 1.0, probe="rademacher", variant=variant, eps=0.5, momentum=0.5,
        hessian_momentum=0.5, second_order_lr=0.1,
    )  # fmt: skip
    optimizer.backward((curvature * p**2 / 2).sum())
    optimizer.step()
    average = curvature / 2
    factor = 0.1 * 0.5 / (average.abs() + 0.5) if variant == "authors" else 0.1 / (average**2 + 0.5).sqrt()
    momentum = curvature if variant == "authors" else curvature / 2
    torch.testing.assert_close(p.detach(), 1 - factor * momentum, rtol=1e-14, atol=0)


@pytest.mark.parametrize("stop", [1, 4, 9])
def test_a_run_with_random_signs_resumes_with_the_same_bits(
    small: Any, make_batches: Any, make_groups: Any, stop: int
) -> None:
    data = make_batches(20)
    whole, before, after = small(), small(), small(seed=5)
    how: dict[str, Any] = {
        "probe": "rademacher",
        "seed": 11,
        "hessian_interval": 2,
        "max_preconditioner": 5.0,
    }
    train(whole, SGDPH(make_groups(whole), 0.05, **how), data)
    optimizer = SGDPH(make_groups(before), 0.05, **how)
    train(before, optimizer, data[:stop])
    file = io.BytesIO()
    torch.save({"model": before.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    after.load_state_dict(saved["model"])
    resumed = SGDPH(make_groups(after), 9.9, probe="rademacher")
    resumed.load_state_dict(saved["optimizer"])
    train(after, resumed, data[stop:])
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), after.parameters(), strict=True))
    other = small()
    train(other, SGDPH(make_groups(other), 0.05, **{**how, "seed": 12}), data)
    assert not all(torch.equal(p, q) for p, q in zip(whole.parameters(), other.parameters(), strict=True))


def test_a_state_of_another_probe_is_refused(small: Any, make_groups: Any) -> None:
    state = SGDPH(make_groups(small()), 0.05, probe="rademacher").state_dict()
    with pytest.raises(OptimizerError, match="saved with probe='rademacher' and has 'ones' here"):
        SGDPH(make_groups(small()), 0.05).load_state_dict(copy.deepcopy(state))


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("variant", ["authors", "paper"])
def test_the_preconditioner_is_bounded(variant: Any, foreach: bool) -> None:
    """H is 0 for one number and 100 for the other: the first moves by the bound times its gradient."""
    p = nn.Parameter(torch.tensor([1.0, 1.0], dtype=torch.float64))
    last = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = SGDPH(
        [{"params": [p, last], "order": 2}], 1.0, variant=variant, max_preconditioner=0.02, eps=1e-12,
        momentum=0.5, hessian_momentum=0.5, second_order_lr=0.1, foreach=foreach,
    )  # fmt: skip
    optimizer.backward(8 * p[0] + 50 * p[1] ** 2)
    optimizer.step()
    first, second = (1 - p.detach()).tolist()
    momentum = 1.0 if variant == "authors" else 0.5
    assert first == pytest.approx(0.02 * 8 * momentum, rel=1e-12)
    free = 0.1 * 0.5 / 50 if variant == "authors" else 0.1 / 50
    assert second == pytest.approx(free * 100 * momentum, rel=1e-6)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (
            {"probe": "one"},
            "probe='one' is not known; choose one of 'ones', 'rademacher', 'rademacher-4', 'exact'",
        ),
        ({"hessian_interval": 0}, "hessian_interval=0 must be a whole number ≥ 1"),
        ({"hessian_interval": 2.0}, "hessian_interval=2.0 must be"),
        ({"seed": -1}, "seed=-1 must be a whole number ≥ 0"),
        ({"max_preconditioner": 0.0}, "max_preconditioner=0.0 must be a number > 0, or None"),
    ],
)
def test_options_that_mean_nothing_are_refused(how: dict[str, Any], says: str) -> None:
    with pytest.raises(OptimizerError, match=says):
        SGDPH([nn.Parameter(torch.ones(1))], 0.1, **how)


def test_one_group_cannot_have_an_interval_of_its_own() -> None:
    with pytest.raises(
        OptimizerError, match="asks for hessian_interval=3, the optimizer is of hessian_interval 1"
    ):
        SGDPH([{"params": [nn.Parameter(torch.ones(1))], "hessian_interval": 3}], 0.1)
