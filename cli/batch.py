"""The batch of an audit: read from a file, cut to size, made double."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .errors import CliError
from .inputs import Shape

__all__ = ["doubled", "first_of", "read_batch"]


def read_batch(path: Path, size: int | None) -> tuple[Any, Any]:
    """The pair (inputs, targets) in ``path``, saved by torch.save, its first ``size`` samples or all.

    Raises:
        CliError: if the file holds anything else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CliError(
            f"{path} holds more than tensors, or is no file of torch.save. Only tensors are loaded, as anything "
            "else could run code: torch.save((inputs, targets), FILE)."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise CliError(
            f"{path} could not be read as a file of torch.save: {str(error) or 'it ends too early'}"
        ) from error
    if not isinstance(content, tuple | list) or len(content) != 2:
        raise CliError(
            f"{path} holds a {type(content).__name__}; a batch is a pair: torch.save((inputs, targets), FILE)."
        )
    inputs, targets = pytree.tree_map(lambda value: _cut(value, size), tuple(content))
    return inputs, targets


def _cut(value: Any, size: int | None) -> Any:
    return value[:size] if isinstance(value, Tensor) and value.dim() else value


def first_of(shape: Shape, size: int | None) -> Shape:
    """The shape with its first size, the batch, replaced."""
    sizes, dtype = shape
    return ((size, *sizes[1:]) if size is not None else sizes), dtype


def doubled(value: Any) -> Any:
    """Floating tensors as float64, in whatever they are nested; everything else as it is."""
    return pytree.tree_map(
        lambda leaf: leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, value
    )
