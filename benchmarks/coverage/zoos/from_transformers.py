"""transformers: tiny configurations, written here, of architectures with and without convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transformers

from benchmarks.coverage.sample import Sample
from benchmarks.coverage.zoos.transformers_table import TABLE

__all__ = ["names", "sample"]


def names() -> list[str]:
    """The architectures: the configuration's class without ``Config``, and what the model's class has after it."""
    return list(TABLE)


def sample(name: str, batch: int) -> Sample:
    """The model called ``name``, with random weights, and a batch for it."""
    config, inputs = TABLE[name]
    config_class, _, head = name.partition(" ")
    configuration = getattr(transformers, f"{config_class}Config")(**_built(config))
    model = getattr(transformers, f"{config_class}{head}")(configuration)
    return Sample(model, kwargs=inputs(batch))


def _built(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration's arguments; a pair of a class and arguments is a configuration within it."""
    return {
        key: getattr(transformers, value[0])(**value[1]) if key == "backbone_config" else value
        for key, value in config.items()
    }
