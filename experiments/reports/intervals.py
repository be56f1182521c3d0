"""Differences between two methods: the mean, and its 95% interval by Student's t."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

__all__ = ["Difference", "paired", "unpaired"]

# 97.5% quantiles of Student's t for 1 to 30 degrees of freedom, as in any statistics table.
QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
NORMAL = 1.960


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference, and half the width of its 95% interval.

    Args:
        mean: First minus second.
        half_width: Half the interval's width; infinite for one seed.
        seeds: Number of seeds of each.
    """

    mean: float
    half_width: float
    seeds: int

    @property
    def includes_zero(self) -> bool:
        """Whether the interval leaves open which is greater."""
        return abs(self.mean) <= self.half_width


def paired(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Compare values that belong together in pairs, one pair for each seed.

    Args:
        first: One value for each seed.
        second: The other method's values, in the same order.

    Raises:
        ValueError: if the two differ in length, or are empty.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    if not differences:
        raise ValueError("There is no pair to compare.")
    error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    half_width = _quantile(len(differences) - 1) * error if len(differences) > 1 else math.inf
    return Difference(fmean(differences), half_width, len(differences))


def unpaired(first: tuple[float, ...], second: tuple[float, ...], seeds: int) -> Difference:
    """Compare two printed means with their deviations, by Welch's approximation.

    Its degrees of freedom are rounded down, which makes the interval a little wider.

    Args:
        first: Mean and standard deviation.
        second: Mean and standard deviation.
        seeds: Number of runs behind each.
    """
    a, b = first[1] ** 2 / seeds, second[1] ** 2 / seeds
    freedom = (a + b) ** 2 / ((a**2 + b**2) / (seeds - 1))
    return Difference(first[0] - second[0], _quantile(math.floor(freedom + 1e-9)) * math.sqrt(a + b), seeds)


def _quantile(freedom: int) -> float:
    return QUANTILES[freedom - 1] if freedom <= len(QUANTILES) else NORMAL
