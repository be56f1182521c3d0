"""Intervals, against Student's density integrated here and against a case worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from experiments.reports.intervals import NORMAL, QUANTILES, paired, unpaired


def outside(quantile: float, freedom: int) -> float:
    """P(|T| > q) of Student's T, with t = tan(u) √f, which makes its density a power of cos(u)."""
    end = math.atan(quantile / math.sqrt(freedom))
    u = np.linspace(-end, end, 20_001)
    density = np.cos(u) ** (freedom - 1)
    inside = ((density[1:] + density[:-1]) / 2 * np.diff(u)).sum()
    whole = math.sqrt(math.pi) * math.gamma(freedom / 2) / math.gamma((freedom + 1) / 2)
    return 1 - float(inside) / whole


@pytest.mark.parametrize("freedom", range(1, len(QUANTILES) + 1))
def test_quantiles_leave_five_percent_outside(freedom: int) -> None:
    assert outside(QUANTILES[freedom - 1], freedom) == pytest.approx(0.05, abs=1e-4)


def test_the_normal_quantile_leaves_five_percent_outside() -> None:
    assert math.erf(NORMAL / math.sqrt(2)) == pytest.approx(0.95, abs=1e-4)


def test_a_case_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, deviation 1, t(2) = 4.303, half width 4.303 / √3.
    difference = paired([11.0, 22.0, 33.0], [10.0, 20.0, 30.0])
    assert difference.mean == pytest.approx(2.0)
    assert difference.half_width == pytest.approx(2.4843, abs=1e-4)
    assert difference.includes_zero
    assert not paired([11.0, 12.1, 11.1, 12.0], [10.0, 11.0, 10.0, 11.0]).includes_zero


def test_one_seed_gives_an_infinite_interval() -> None:
    assert math.isinf(paired([2.0], [1.0]).half_width)
    assert paired([2.0], [1.0]).includes_zero


def test_no_pair_is_an_error() -> None:
    with pytest.raises(ValueError, match="no pair"):
        paired([], [])


def test_welchs_interval_of_equal_deviations_is_the_pooled_one() -> None:
    # Two groups of 4 with deviation 0.3: standard error 0.3 √(2/4), 6 degrees of freedom, t = 2.447.
    difference = unpaired((77.96, 0.3), (77.20, 0.3), seeds=4)
    assert difference.mean == pytest.approx(0.76)
    assert difference.half_width == pytest.approx(2.447 * 0.3 / math.sqrt(2))


def test_welchs_degrees_of_freedom_fall_to_those_of_the_wide_group() -> None:
    # One group without deviation: the other's 3 degrees of freedom, t = 3.182.
    assert unpaired((1.0, 0.2), (0.0, 0.0), seeds=4).half_width == pytest.approx(3.182 * 0.1)
