"""What fills the average of a Hessian diagonal: products with a probe, or the gradient in their place."""

from __future__ import annotations

from typing import Literal, TypeAlias

from sgdph_fx.curvature.probes import PROBES

__all__ = ["ESTIMATORS", "GRADIENT", "FallbackName", "ProbeName", "averages_signed"]

ProbeName: TypeAlias = Literal["ones", "rademacher", "exact", "gradient"]
FallbackName: TypeAlias = Literal["first-order", "gradient", "raise"]

GRADIENT = "gradient"
"""The estimator that takes no product: \\|g\\| of the due parameter stands in for \\|Hv\\|."""

ESTIMATORS = (*PROBES, GRADIENT)
"""Every value of ``probe``."""


def averages_signed(estimator: str) -> bool:
    """Whether estimates are averaged with their sign, and rectified by (4) only after that."""
    return estimator != GRADIENT and PROBES[estimator].averaged_signed
