"""Triton's kernels, run by its interpreter on a CPU."""

from tests.kernels import launched

__all__ = ["launched"]
