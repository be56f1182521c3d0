"""Compiled parts of a model, read as the Python that they were compiled from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["eagerly"]


@contextmanager
def eagerly() -> Iterator[None]:
    """Nothing that ``torch.compile`` made runs compiled meanwhile, in which no torch function and no module shows."""
    compiler = sys.modules.get("torch._dynamo")  # importing it would cost more than all the rest
    if compiler is None:
        yield
        return
    with torch.compiler.set_stance("force_eager"), compiler.config.patch(error_on_nested_fx_trace=False):
        yield
