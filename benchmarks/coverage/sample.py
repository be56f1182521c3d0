"""A model with inputs on which it runs, in training and in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Sample", "first_that_runs", "leaves_of", "noise"]


@dataclass(frozen=True, slots=True)
class Sample:
    """A model and its example inputs. Calling the sample with a model runs that model on them.

    Args:
        model: A model with random weights.
        args: Positional inputs.
        kwargs: Keyword inputs.
        in_training: Keyword inputs for training mode only, such as a detector's targets.
    """

    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    in_training: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, model: nn.Module) -> Any:
        """Run ``model`` without gradients."""
        with torch.no_grad():
            return self.run(model)

    def run(self, model: nn.Module) -> Any:
        """Run ``model`` on copies of the inputs, in its own floating dtype."""
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        targets = _copy(self.in_training, torch.float32) if model.training else {}
        return model(*_copy(self.args, dtype), **_copy(self.kwargs, dtype), **targets)

    @property
    def shapes(self) -> str:
        """The shapes of the inputs, for the table."""
        tensors = leaves_of([self.args, self.kwargs])
        return ", ".join("×".join(map(str, t.shape)) for t in tensors)


def noise(*shape: int) -> Tensor:
    """Draw standard normal numbers, the same ones at every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def leaves_of(value: Any) -> list[Tensor]:
    """List the tensors in ``value``, through lists, tuples, mappings and dataclasses."""
    return list(_leaves(value))


def _leaves(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            yield from _leaves(getattr(value, each.name))


def _copy(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype, copy=True) if value.is_floating_point() else value.clone()
    if isinstance(value, Mapping):
        return {key: _copy(item, dtype) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy(item, dtype) for item in value)
    return value


def first_that_runs(samples: Callable[[int], Sample], sizes: tuple[int, ...]) -> Sample:
    """Find the first size at which the model runs in both modes.

    Args:
        samples: Makes a sample of that size.
        sizes: The sizes to try, in order.

    Raises:
        Exception: what the last size raises, if none works.
        ValueError: if there is no size.
    """
    for size in sizes:
        sample = samples(size)
        try:
            for training in (True, False):
                sample(sample.model.train(training))
        except Exception:
            if size == sizes[-1]:
                raise
            continue
        return sample
    raise ValueError("no size to try")
