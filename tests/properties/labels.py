"""Which channel of which convolution each number of a value belongs to, and what operations do to these labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from tests.properties.operation import Form, Statistics
from tests.properties.program import SPATIAL, Step

__all__ = ["IMAGINED", "Origin", "Value", "combines", "groups_of", "imagined", "moved_labels", "shape_of"]

# From here on, labels of channels that a part of a concatenation is taken to hold, but does not.
IMAGINED = 1000


@dataclass(frozen=True)
class Origin:
    """How a convolution's output stands in a value.

    Args:
        labels: ``(1, ...)``, of the value's shape for a batch of one.
        path: The values passed on the way here, this one last.
        shape_only: Whether only shapes were changed on the way.
        hidden: Whether something on the way can be placed only by who knows the shapes.
    """

    labels: Tensor
    path: tuple[int, ...]
    shape_only: bool = True
    hidden: bool = False


@dataclass(frozen=True)
class Value:
    """A tensor of the network: its form, its channels (or features), and whose output it still is."""

    form: Form
    channels: int
    origins: dict[int, Origin]


def shape_of(value: Value, dims: int) -> tuple[int, ...]:
    space = SPATIAL[dims]
    length = torch.Size(space).numel()
    return {
        "map": (1, value.channels, *space),
        "last": (1, *space, value.channels),
        "seq": (1, value.channels, length),
        "tokens": (1, length, value.channels),
        "flat": (1, value.channels),
    }[value.form]


def combines(step: Step, labels: Tensor, dims: int) -> bool:
    """Whether a pooling or a mean goes over different channels."""
    if step.what.kind == "pool":
        over = list(range(labels.dim() - (step.what.dims or dims), labels.dim()))
    elif step.what.kind == "mean":
        over = [step.what.dims] if step.what.dims else list(range(2, labels.dim()))
    else:
        return False
    return not torch.equal(labels.amax(over), labels.amin(over))


def moved_labels(step: Step, labels: list[Tensor], dims: int) -> tuple[Tensor, ...]:
    if step.what.kind == "mean":
        over = [step.what.dims] if step.what.dims else list(range(2, labels[0].dim()))
        return (labels[0].amax(over),)
    if step.what.kind == "shape" or step.what.results > 1 or step.what.operands > 1:
        module = torch.nn.ChannelShuffle(2) if step.operation == "shuffle" else torch.nn.Identity()
        result = step.what.run(SimpleNamespace(dims=dims), module, *labels)
        return tuple(result) if step.what.results > 1 else (result,)
    return (labels[0],)


def imagined(labels: Tensor) -> Tensor:
    """``labels``, or where the channels would be, had the part of a concatenation been one of theirs."""
    if bool((labels >= 0).any()):
        return labels
    channels = torch.arange(labels.shape[1]) + IMAGINED
    return channels.view(-1, *[1] * (labels.dim() - 2)).expand_as(labels)


def groups_of(labels: Tensor, statistics: Statistics, value: Value, dims: int) -> Iterator[list[int]]:
    """The labels that each statistic is taken over."""
    if statistics == "dimension 1":
        groups = labels.transpose(0, 1).flatten(1)
    elif statistics == "halves":
        groups = labels.reshape(2, -1)
    elif statistics == "all last":
        groups = labels.reshape(1, -1)
    else:
        normalized = dims if value.form == "map" else 1
        groups = labels.flatten(0, -normalized - 1).flatten(1)
    yield from groups.tolist()
