"""What a negative Hessian means, on quadratics worked out by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgdph_fx.errors import OptimizerError
from sgdph_fx.optim import SGDPH


def quadratic(start: list[float], **options: Any) -> tuple[nn.Parameter, SGDPH]:
    p = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    last = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    numbers: Any = {"momentum": 0.5, "hessian_momentum": 0.5, "second_order_lr": 0.1, "eps": 0.5}
    return p, SGDPH([{"params": [p, last], "order": 2}], 1.0, **{**numbers, **options})


def refresh(p: Tensor, optimizer: SGDPH, *curvatures: Tensor) -> None:
    """One step on ½ Σ c p² for each of the curvatures, each where p is due: every second step."""
    for c in curvatures:
        for _ in range(2):
            optimizer.zero_grad()
            optimizer.backward((c * p**2 / 2).sum())
            optimizer.step()


FIRST = torch.tensor([4.0, -8.0, 4.0], dtype=torch.float64)
SECOND = torch.tensor([4.0, -8.0, -12.0], dtype=torch.float64)
# M^H after both, with α = ½ from 0: h₁/4 + h₂/2, of |h| or of h.
AVERAGES = {"absolute": [3.0, 6.0, 7.0], "average": [3.0, -6.0, -5.0], "zero": [3.0, -6.0, -5.0]}


@pytest.mark.parametrize("probe", ["ones", "exact"])
@pytest.mark.parametrize("negative", AVERAGES)
def test_estimates_are_averaged_with_or_without_their_sign(negative: Any, probe: Any) -> None:
    p, optimizer = quadratic([1.0, 1.0, 1.0], negative_curvature=negative, probe=probe)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    refresh(p, optimizer, FIRST, SECOND)
    assert optimizer.state[p]["hessian_average"].tolist() == AVERAGES[negative]


# (4) of the average ½ h at the first step, h = (4, -8, 0): what D's factor divides by, beside τ_SO = 0.1 and
# the authors' 1 - α = ½.
RECTIFIED = {
    ("authors", "absolute"): [2.5, 4.5, 0.5],
    ("authors", "average"): [2.5, 4.5, 0.5],
    ("authors", "zero"): [2.5, 0.5, 0.5],
    ("paper", "average"): [4.5**0.5, 16.5**0.5, 0.5**0.5],
    ("paper", "zero"): [4.5**0.5, 0.5**0.5, 0.5**0.5],
}


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize(("variant", "negative"), RECTIFIED)
def test_the_step_divides_by_the_rectified_average(variant: Any, negative: Any, foreach: bool) -> None:
    p, optimizer = quadratic([1.0, 1.0, 1.0], variant=variant, negative_curvature=negative, foreach=foreach)
    h = torch.tensor([4.0, -8.0, 0.0], dtype=torch.float64)
    optimizer.backward((h * p**2 / 2).sum())
    optimizer.step()
    divisor = torch.tensor(RECTIFIED[variant, negative], dtype=torch.float64)
    # The momentum is g = h p for the authors, β g for the paper.
    scale = 0.1 * 0.5
    torch.testing.assert_close(p.detach(), 1 - scale * h / divisor, rtol=1e-14, atol=0)


def test_with_the_bound_negative_curvature_takes_sgds_step() -> None:
    """At most 1 times the gradient: where H < 0, it is that; where H = 8, it is 0.05 · 8 / 4.5."""
    p, optimizer = quadratic(
        [1.0, 1.0], negative_curvature="zero", max_preconditioner=1.0, eps=1e-6, momentum=0.0
    )
    h = torch.tensor([8.0, -8.0], dtype=torch.float64)
    optimizer.backward((h * p**2 / 2).sum())
    optimizer.step()
    torch.testing.assert_close(
        p.detach(), torch.tensor([1 - 0.05 * 8 / (4 + 1e-6), 9.0], dtype=torch.float64), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("negative", ["average", "zero"])
def test_random_signs_average_with_their_sign_anyway(negative: Any) -> None:
    runs = []
    for choice in ("absolute", negative):
        p, optimizer = quadratic([1.0, 2.0, 3.0], probe="rademacher", negative_curvature=choice)
        refresh(p, optimizer, FIRST.abs(), SECOND.abs())
        runs.append(p.detach())
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)


@pytest.mark.parametrize("negative", ["average", "zero"])
def test_on_a_device_that_decides_the_step_is_the_same(negative: Any) -> None:
    found = []
    for capturable in (False, True):
        p, optimizer = quadratic([1.0, 1.0, 1.0], negative_curvature=negative, capturable=capturable)
        refresh(p, optimizer, FIRST, SECOND)
        found.append(p.detach())
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("options", "refused"),
    [({"curvature": "gauss-newton"}, True), ({}, True), ({"negative_curvature": "average"}, False)],
)
def test_a_negative_average_is_no_state_where_none_can_be(options: Any, refused: bool) -> None:
    """Gauss-Newton's is averaged as it is found, and is never below zero; that of signed estimates may be."""
    p, optimizer = quadratic([1.0, 1.0, 1.0], **options)
    refresh(p, optimizer, FIRST.abs())
    state = copy.deepcopy(optimizer.state_dict())
    state["state"][0]["hessian_average"].neg_()
    if refused:
        with pytest.raises(OptimizerError, match="negative numbers"):
            optimizer.load_state_dict(state)
    else:
        optimizer.load_state_dict(state)
        assert optimizer.state[p]["hessian_average"].tolist() == [-2.0, -4.0, -2.0]
