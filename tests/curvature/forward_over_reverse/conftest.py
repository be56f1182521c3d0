"""Kernels that a CPU lacks: Triton's, run by its interpreter, and stand-ins for torch's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.kernels import launched

__all__ = ["launched"]


@pytest.fixture(scope="module")
def stand_ins(request: pytest.FixtureRequest) -> Iterator[None]:
    """The kernels of the module's table ``STAND_INS``, by torch's names of them, run on a CPU."""
    library = torch.library.Library("aten", "IMPL", "CPU")
    for name, kernel in request.module.STAND_INS.items():
        library.impl(name, kernel)
    yield
    library._destroy()
