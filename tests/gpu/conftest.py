"""What only a GPU shows. Run by ``pytest -m gpu``; a machine that has none fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def device() -> Iterator[torch.device]:
    """The GPU, with convolutions and products of single-precision numbers in single precision."""
    assert torch.cuda.is_available(), "these tests need a GPU that torch can use"
    places = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = False
    yield torch.device("cuda")
    for place, allowed in zip(places, before, strict=True):
        place.allow_tf32 = allowed


@pytest.fixture
def deterministic() -> Iterator[None]:
    """cuDNN's kernels that give the same bits each time; to be asked for by a module."""
    with torch.backends.cudnn.flags(
        enabled=True, deterministic=True
    ):  # these are off where they are not named
        yield
