"""Exact second-order information about single parameters: Hessian-vector products, and probes of them."""

from sgdph_fx.curvature.blocks import Block, chunk_for, measure_block
from sgdph_fx.curvature.forward_over_reverse import Coverage, backward_with_product, coverage, product_only
from sgdph_fx.curvature.gauss_newton import gauss_newton_diagonal
from sgdph_fx.curvature.hvp import (
    block_product,
    differentiable_gradient,
    missing_derivatives_explained,
    product_by_double_backward,
)
from sgdph_fx.curvature.probes import PROBES, Probe, ProbeName, Product, generator_at
from sgdph_fx.curvature.random_signs import random_signs, sign_key

__all__ = [
    "PROBES",
    "Block",
    "Coverage",
    "Probe",
    "ProbeName",
    "Product",
    "backward_with_product",
    "block_product",
    "chunk_for",
    "coverage",
    "differentiable_gradient",
    "gauss_newton_diagonal",
    "generator_at",
    "measure_block",
    "missing_derivatives_explained",
    "product_by_double_backward",
    "product_only",
    "random_signs",
    "sign_key",
]
