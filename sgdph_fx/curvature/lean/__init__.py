"""A Hessian-vector product at the price of its arithmetic: tangents forward, then beside the backward pass."""

from sgdph_fx.curvature.lean.coverage import Coverage, lean_coverage
from sgdph_fx.curvature.lean.sweep import backward_with_product, product_alone

__all__ = ["Coverage", "backward_with_product", "lean_coverage", "product_alone"]
