"""timm: the models listed in ``timm_models.txt``, up to three from each of its module files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm

from benchmarks.coverage.choose_timm import CHOICE
from benchmarks.coverage.sample import Sample, first_that_runs, noise

__all__ = ["names", "sample"]

_SIZES = (64, 84, 96, 128, 168, 192, 224, 256)


def names() -> list[str]:
    """The names of its models."""
    return CHOICE.read_text(encoding="utf-8").split()


def sample(name: str, batch: int) -> Sample:
    """The model called ``name``, with random weights, and a batch for it."""
    model = timm.create_model(name, pretrained=False)
    config: Mapping[str, Any] = vars(model)["default_cfg"]
    channels, size, _ = config.get("input_size", (3, 224, 224))
    sizes = (size,) if config.get("fixed_input_size") else (*(s for s in _SIZES if s < size), size)
    return first_that_runs(lambda s: Sample(model, (noise(batch, channels, s, s),)), sizes)
