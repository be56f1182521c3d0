"""A Hessian-vector product at the price of its arithmetic: tangents forward, then beside the backward pass."""

from sgdph_fx.curvature.forward_over_reverse.coverage import Coverage, coverage
from sgdph_fx.curvature.forward_over_reverse.sweep import backward_with_product, product_only

__all__ = ["Coverage", "backward_with_product", "coverage", "product_only"]
