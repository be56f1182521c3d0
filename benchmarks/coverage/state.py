"""Perturb a model so that its outputs say something, and find out what a call changes in it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.coverage.sample import Sample

__all__ = ["stirred", "watched"]


@torch.no_grad()
def stirred(sample: Sample) -> Sample:
    """Add noise, in place, to parameters that start constant.

    A LayerScale of 1e-6 or a head of zeros passes nothing on, so all outputs would be equal for no good reason.
    """
    generator = torch.Generator().manual_seed(0)
    for parameter in sample.model.parameters():
        if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter), alpha=0.2)
    return sample


@contextmanager
def watched(model: nn.Module) -> Iterator[list[str]]:
    """Give a list that is filled at the end with what changed: parameters, buffers, modes, attributes, random state."""
    before = _snapshot(model)
    changes: list[str] = []
    yield changes
    after = _snapshot(model)
    changes.extend(
        sorted(key for key in before.keys() | after.keys() if not _same(before.get(key), after.get(key)))
    )


def _snapshot(model: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {
        "random": random.getstate(),
        "numpy.random": [*map(np.array, tuple(np.random.get_state())[1:])],
        "torch.random": torch.get_rng_state(),
    }
    found |= {name: (id(p), p._version, p.grad is None) for name, p in model.named_parameters()}
    found |= {name: b.clone() for name, b in model.named_buffers()}
    for path, module in model.named_modules():
        found |= {
            f"{path}.{name}": value
            for name, value in vars(module).items()
            if isinstance(value, int | float | str | bool | None)
        }
        found[f"{path}.__dict__"] = sorted(vars(module))
    return found


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor):
        return torch.equal(before.nan_to_num(), after.nan_to_num())
    if isinstance(before, list) and before and isinstance(before[0], np.ndarray):
        return all(map(np.array_equal, before, after))
    return bool(before == after)
