"""The batch of an audit: read from a file, cut to size, made double."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from .errors import WeightsError
from .inputs import Input
from .weights import read_tensors

__all__ = ["doubled", "first_of", "read_batch"]


def read_batch(path: Path, size: int | None) -> tuple[Any, Any]:
    """The pair (inputs, targets) in ``path``, saved by torch.save, its first ``size`` samples or all.

    Raises:
        WeightsError: if the file holds anything else.
    """
    content = read_tensors(path, "torch.save((inputs, targets), FILE)")
    if not isinstance(content, tuple | list) or len(content) != 2:
        raise WeightsError(
            f"{path} holds a {type(content).__name__}; a batch is a pair: torch.save((inputs, targets), FILE)."
        )
    inputs, targets = pytree.tree_map(lambda value: _cut(value, size), tuple(content))
    return inputs, targets


def _cut(value: Any, size: int | None) -> Any:
    return value[:size] if isinstance(value, Tensor) and value.dim() else value


def first_of(given: Input, size: int | None) -> Input:
    """The input with its first size, the batch, replaced; a scalar has none."""
    if size is None or not given.sizes:
        return given
    return replace(given, sizes=(size, *given.sizes[1:]))


def doubled(value: Any) -> Any:
    """Floating tensors as float64, in whatever they are nested; everything else as it is."""
    return pytree.tree_map(
        lambda leaf: leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, value
    )
