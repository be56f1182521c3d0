"""Differences between two systems that saw the same seeds: mean and 95% interval of Student's t."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

__all__ = ["Difference", "paired"]

# 97.5% quantiles of Student's t for 1 to 30 degrees of freedom; any table of statistics has them.
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
        mean: Mean over the seeds of first minus second.
        half_width: Half the interval's width; infinite for one seed.
        seeds: Number of seeds.
    """

    mean: float
    half_width: float
    seeds: int

    @property
    def holds_zero(self) -> bool:
        """Whether the interval does not tell which is greater."""
        return abs(self.mean) <= self.half_width


def paired(first: Sequence[float], second: Sequence[float]) -> Difference:
    """The difference of values that belong together in pairs, one pair a seed.

    Raises:
        ValueError: if the two are of different length, or empty.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    if not differences:
        raise ValueError("There is no pair to compare.")
    freedom = len(differences) - 1
    if not freedom:
        return Difference(differences[0], math.inf, 1)
    quantile = QUANTILES[freedom - 1] if freedom <= len(QUANTILES) else NORMAL
    return Difference(
        fmean(differences), quantile * stdev(differences) / math.sqrt(len(differences)), len(differences)
    )
