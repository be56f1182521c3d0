"""Triton's kernels, run by its interpreter on a CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from sgdph_fx.transform import fused


def note_launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that ran, in the order in which they were launched; it grows from now on."""
    names: list[str] = []
    launch = fused._launch

    def noted(name: str, *rest: Any) -> None:
        launch(name, *rest)
        names.append(name)

    monkeypatch.setattr(fused, "_launch", noted)
    return names


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Kernels take tensors of a CPU; their names, in the order in which they were launched."""
    assert os.environ.get("TRITON_INTERPRET") == "1", (
        "on a machine with a GPU run these with TRITON_INTERPRET=1"
    )
    names = note_launches(monkeypatch)
    monkeypatch.setattr(fused, "_failures", {})
    monkeypatch.setattr(fused, "_fits", lambda t: type(t) is Tensor and t.dtype is not torch.float64)
    yield names
    assert not fused.failure()
