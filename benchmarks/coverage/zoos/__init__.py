"""The zoos: each module has ``names()`` and ``sample(name, batch)``, and is imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.coverage.sample import Sample

__all__ = ["ZOOS", "Zoo", "zoo"]

ZOOS = ("torchvision", "timm", "transformers", "smp")


@dataclass(frozen=True, slots=True)
class Zoo:
    """A library of models.

    Args:
        name: One of :data:`ZOOS`.
        names: Gives the names of its models, in the order in which they are measured.
        sample: Builds a model by name, with a batch of that many inputs.
    """

    name: str
    names: Callable[[], list[str]]
    sample: Callable[[str, int], Sample]


def zoo(name: str) -> Zoo:
    """The zoo of that name.

    Raises:
        ImportError: if its library is not installed.
    """
    module = importlib.import_module(f"benchmarks.coverage.zoos.from_{name}")
    return Zoo(name, module.names, module.sample)
