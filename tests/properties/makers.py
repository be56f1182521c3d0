"""How the operations of random networks are built and run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.properties.operation import Form, Kind, Operation, Statistics

__all__ = [
    "ANY",
    "act",
    "by_weight_of",
    "call",
    "chunk",
    "class_of",
    "conv",
    "features",
    "functional_frozen",
    "kernel",
    "layer",
    "mean_over_space",
    "norm",
    "pool",
    "space",
    "split",
    "to_first",
    "to_last",
]

ANY: tuple[Form, ...] = ("map", "last", "seq", "tokens", "flat")


def class_of(name: str, dims: int) -> Any:
    return getattr(nn, f"{name}{dims}d")


def call(net: Any, own: Any, x: Any) -> Any:
    return own(x)


def conv(kernel: int, groups: int | None = 1, transposed: bool = False) -> Operation:
    """Padded so that the map keeps its size; ``groups=None`` for a depthwise one."""

    def make(net: Any, step: Any) -> nn.Module:
        options = {"padding": kernel // 2, "groups": groups or step.channels, "bias": step.bias}
        name = "ConvTranspose" if transposed else "Conv"
        module: nn.Module = class_of(name, net.dims)(step.channels, step.out, kernel, **options)
        return module

    return Operation("conv", call, make)


def kernel(groups: int = 1, transposed: bool = False) -> Operation:
    """A functional convolution on a parameter of the network's own."""

    def make(net: Any, step: Any) -> nn.Parameter:
        ends = (step.channels, step.out // groups) if transposed else (step.out, step.channels // groups)
        return nn.Parameter(torch.randn(*ends, *[1] * net.dims) / 2)

    def run(net: Any, own: Any, x: Any) -> Any:
        name = f"conv_transpose{net.dims}d" if transposed else f"conv{net.dims}d"
        return getattr(F, name)(x, own, groups=groups)

    return Operation("conv", run, make)


def by_weight_of(net: Any, own: Any, x: Any) -> Any:
    """A functional convolution by the weight of a plain 1×1 convolution module."""
    return getattr(F, f"conv{net.dims}d")(x, own.weight)


def features(net: Any, step: Any) -> int:
    """Size of dimension 1 of the step's input."""
    return int(step.channels)


def norm(
    name: str,
    statistics: Statistics,
    forms: tuple[Form, ...] = ("map",),
    only: int | None = None,
    **options: Any,
) -> Operation:
    def make(net: Any, step: Any) -> nn.Module:
        dims = net.dims if forms == ("map",) else 1
        kind = getattr(nn, name, None) or class_of(name, dims)
        return kind(features(net, step), **options)

    return Operation("norm", call, make, forms, statistics=statistics, only=only)


def layer(kind: Any, shape: Callable[[Any, Any], Any], statistics: Statistics, *forms: Form) -> Operation:
    return Operation(
        "norm", call, lambda net, step: kind(shape(net, step)), forms or ("map",), statistics=statistics
    )


def act(make: Callable[[], nn.Module], kind: Kind = "same") -> Operation:
    return Operation(kind, call, lambda net, step: make(), ANY)


def space(net: Any, step: Any) -> tuple[int, ...]:
    return tuple(net.program.spatial)


def pool(name: str) -> Operation:
    return Operation(
        "pool",
        call,
        lambda net, step: class_of(name, net.dims)(3, stride=1, padding=1),
        ("map", "last"),
    )


def to_last(net: Any, own: Any, x: Any) -> Any:
    return x.permute(0, *range(2, net.dims + 2), 1)


def to_first(net: Any, own: Any, x: Any) -> Any:
    return x.permute(0, net.dims + 1, *range(1, net.dims + 1))


def mean_over_space(net: Any, own: Any, x: Any) -> Any:
    return x.mean(tuple(range(2, net.dims + 2)))


# Taken apart by name: torch.fx does not iterate over what it does not know the length of.
def chunk(net: Any, own: Any, x: Any) -> Any:
    first, second = x.chunk(2, 1)
    return first, second


def split(net: Any, own: Any, x: Any) -> Any:
    first, second = torch.split(x, x.shape[1] // 2, dim=1)
    return first, second


def functional_frozen(net: Any, own: Any, x: Any) -> Any:
    return F.batch_norm(x, own.running_mean, own.running_var, own.weight, own.bias, False, 0.1, net.eps)
