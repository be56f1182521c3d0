"""Triton's kernels, run by its interpreter on a CPU."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from sgdph_fx.curvature.forward_over_reverse import fused

KERNELS = "sgdph_fx.curvature.forward_over_reverse.triton_kernels"


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Kernels take tensors of a CPU; their names, in the order in which they were launched."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    sys.modules.pop(KERNELS, None)
    importlib.import_module(KERNELS)
    names: list[str] = []
    launch = fused._launch

    def noted(name: str, *rest: Any) -> None:
        launch(name, *rest)
        names.append(name)

    monkeypatch.setattr(fused, "_launch", noted)
    monkeypatch.setattr(fused, "_failure", "")
    monkeypatch.setattr(fused, "_fits", lambda t: type(t) is Tensor and t.dtype is not torch.float64)
    yield names
    assert not fused.failure()
    sys.modules.pop(KERNELS, None)
