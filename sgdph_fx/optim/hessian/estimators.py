"""What is averaged for a second-order parameter: of which matrix, how its diagonal is read, and what its sign means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from sgdph_fx.curvature.probes import PROBES

__all__ = [
    "AFFINE",
    "BLOCKS",
    "CURVATURES",
    "ESTIMATORS",
    "GAUSS_NEWTON",
    "GRADIENT",
    "NEGATIVE",
    "REFRESHES",
    "BlocksName",
    "CurvatureName",
    "FallbackName",
    "NegativeName",
    "ProbeName",
    "RefreshName",
    "averages_raw",
    "is_never_negative",
    "usual_probe",
]

BlocksName: TypeAlias = Literal["diagonal", "affine"]
CurvatureName: TypeAlias = Literal["hessian", "gauss-newton"]
FallbackName: TypeAlias = Literal["first-order", "gradient", "raise"]
RefreshName: TypeAlias = Literal["cycle", "all"]
NegativeName: TypeAlias = Literal["absolute", "average", "zero"]
ProbeName: TypeAlias = Literal["ones", "rademacher", "rademacher-4", "exact", "gradient"]

GAUSS_NEWTON = "gauss-newton"
"""The curvature that drops the network's own second derivative, and is never negative."""

GRADIENT = "gradient"
"""The estimator that takes no product: \\|g\\| of the due parameter stands in for \\|Hv\\|."""

ESTIMATORS = (*PROBES, GRADIENT)
"""Every value of ``probe``."""

CURVATURES: Mapping[str, tuple[str, ...]] = {
    "hessian": ESTIMATORS,
    GAUSS_NEWTON: ("rademacher", "exact"),
}
"""Every value of ``curvature`` ↦ the probes that read it, the one for whoever does not choose first."""

NEGATIVE = ("absolute", "average", "zero")
"""Every value of ``negative_curvature``."""

REFRESHES = ("cycle", "all")
"""Every value of ``refresh``."""

AFFINE = "affine"
"""The blocks that couple scale and shift of the same channels."""

BLOCKS = ("diagonal", AFFINE)
"""Every value of ``blocks``."""


def usual_probe(curvature: object) -> str:
    """The probe for whoever chooses none; a curvature that is not known is refused later, by name."""
    known = isinstance(curvature, str) and curvature in CURVATURES
    return CURVATURES[str(curvature)][0] if known else "ones"


def averages_raw(group: Mapping[str, Any]) -> bool:
    """Whether estimates are averaged as they are, and rectified by (4) only after that."""
    if group["probe"] == GRADIENT:
        return False
    if group["curvature"] == GAUSS_NEWTON or group["negative_curvature"] != "absolute":
        return True
    return PROBES[group["probe"]].averaged_signed


def is_never_negative(group: Mapping[str, Any]) -> bool:
    """Whether no average of the group's parameters can hold a negative number."""
    return group["curvature"] == GAUSS_NEWTON or not averages_raw(group)
