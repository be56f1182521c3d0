"""Exact second-order information about single parameters: Hessian-vector products, and probes of them."""

from sgdph_fx.curvature.hvp import block_product, differentiable_gradient
from sgdph_fx.curvature.probes import PROBES, Probe, Product, ones

__all__ = ["PROBES", "Probe", "Product", "block_product", "differentiable_gradient", "ones"]
