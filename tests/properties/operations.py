"""What random networks are made of: how each operation is built and run, and what it is by definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

__all__ = ["OPERATIONS", "Operation"]

# conv: a convolution. same: each number stays its own and commutes with a gain. shape: as "same", and no number
# changes. pool: combines neighbours along the last dimensions. mean: combines all along some dimensions.
# norm: see `statistics`. mix: anything else.
Kind = Literal["conv", "same", "shape", "pool", "mean", "norm", "mix"]
# How dimensions stand, after the batch's: channels, space; space, channels; channels, length; length, channels;
# features.
Form = Literal["map", "last", "seq", "tokens", "flat"]
# What the numbers of one statistic have in common: dimension 1, half of dimension 1, or all but so many last ones.
Statistics = Literal["dimension 1", "halves", "last", "all last", "frozen"]


@dataclass(frozen=True)
class Operation:
    """One row of the table.

    Args:
        kind: What it does to channels.
        run: Called with the network, the step's module or parameter, and its operands.
        make: Builds that module or parameter, from the network and the step.
        forms: Forms of the operands that it takes.
        to: Form of its result, if another.
        statistics: Of a norm, over what they are taken.
        dims: The dimension that a mean goes over, or the number of last ones that a pooling does; 0 for all of space.
        results: How many tensors it returns.
        operands: How many it takes.
        hidden: Whether only shapes tell where it puts the channels, or whether halves are two of them.
        only: The one number of spatial dimensions for which it exists, if not all.
    """

    kind: Kind
    run: Callable[..., Any]
    make: Callable[[Any, Any], Any] | None = None
    forms: tuple[Form, ...] = ("map",)
    to: Form | None = None
    statistics: Statistics | None = None
    dims: int = 0
    results: int = 1
    operands: int = 1
    hidden: bool = False
    only: int | None = None


ANY: tuple[Form, ...] = ("map", "last", "seq", "tokens", "flat")


def _class(name: str, dims: int) -> Any:
    return getattr(nn, f"{name}{dims}d")


def _call(net: Any, own: Any, x: Any) -> Any:
    return own(x)


def _conv(kernel: int, groups: int | None = 1, transposed: bool = False) -> Operation:
    """Padded so that the map keeps its size; ``groups=None`` for a depthwise one."""

    def make(net: Any, step: Any) -> nn.Module:
        options = {"padding": kernel // 2, "groups": groups or step.channels, "bias": step.bias}
        name = "ConvTranspose" if transposed else "Conv"
        module: nn.Module = _class(name, net.dims)(step.channels, step.out, kernel, **options)
        return module

    return Operation("conv", _call, make)


def _kernel(groups: int = 1, transposed: bool = False) -> Operation:
    """A functional convolution on a parameter of the network's own."""

    def make(net: Any, step: Any) -> nn.Parameter:
        ends = (step.channels, step.out // groups) if transposed else (step.out, step.channels // groups)
        return nn.Parameter(torch.randn(*ends, *[1] * net.dims) / 2)

    def run(net: Any, own: Any, x: Any) -> Any:
        name = f"conv_transpose{net.dims}d" if transposed else f"conv{net.dims}d"
        return getattr(F, name)(x, own, groups=groups)

    return Operation("conv", run, make)


def _by_weight_of(net: Any, own: Any, x: Any) -> Any:
    """A functional convolution by the weight of a plain 1×1 convolution module."""
    return getattr(F, f"conv{net.dims}d")(x, own.weight)


def _features(net: Any, step: Any) -> int:
    """Size of dimension 1 of the step's input."""
    return int(step.channels)


def _norm(
    name: str,
    statistics: Statistics,
    forms: tuple[Form, ...] = ("map",),
    only: int | None = None,
    **options: Any,
) -> Operation:
    def make(net: Any, step: Any) -> nn.Module:
        dims = net.dims if forms == ("map",) else 1
        kind = getattr(nn, name, None) or _class(name, dims)
        return kind(_features(net, step), **options)

    return Operation("norm", _call, make, forms, statistics=statistics, only=only)


def _layer(kind: Any, shape: Callable[[Any, Any], Any], statistics: Statistics, *forms: Form) -> Operation:
    return Operation(
        "norm", _call, lambda net, step: kind(shape(net, step)), forms or ("map",), statistics=statistics
    )


def _act(make: Callable[[], nn.Module], kind: Kind = "same") -> Operation:
    return Operation(kind, _call, lambda net, step: make(), ANY)


def _space(net: Any, step: Any) -> tuple[int, ...]:
    return tuple(net.program.spatial)


def _pool(name: str) -> Operation:
    return Operation(
        "pool",
        _call,
        lambda net, step: _class(name, net.dims)(3, stride=1, padding=1),
        ("map", "last"),
    )


def _to_last(net: Any, own: Any, x: Any) -> Any:
    return x.permute(0, *range(2, net.dims + 2), 1)


def _to_first(net: Any, own: Any, x: Any) -> Any:
    return x.permute(0, net.dims + 1, *range(1, net.dims + 1))


def _mean_over_space(net: Any, own: Any, x: Any) -> Any:
    return x.mean(tuple(range(2, net.dims + 2)))


# Taken apart by name: torch.fx does not iterate over what it does not know the length of.
def _chunk(net: Any, own: Any, x: Any) -> Any:
    first, second = x.chunk(2, 1)
    return first, second


def _split(net: Any, own: Any, x: Any) -> Any:
    first, second = torch.split(x, x.shape[1] // 2, dim=1)
    return first, second


def _functional_frozen(net: Any, own: Any, x: Any) -> Any:
    return F.batch_norm(x, own.running_mean, own.running_var, own.weight, own.bias, False, 0.1, net.eps)


OPERATIONS: dict[str, Operation] = {
    "conv": _conv(3),
    "pointwise": _conv(1),
    "grouped": _conv(3, groups=2),
    "depthwise": _conv(3, groups=None),
    "transposed": _conv(3, transposed=True),
    "transposed grouped": _conv(1, groups=2, transposed=True),
    "functional": _kernel(),
    "functional grouped": _kernel(groups=2),
    "functional transposed": _kernel(groups=2, transposed=True),
    # These use the weight that an earlier step has: in a module of their own, or alone.
    "shared": Operation("conv", _call),
    "by weight": Operation("conv", _by_weight_of),
    "batch": _norm("BatchNorm", "dimension 1"),
    "batch without affine": _norm("BatchNorm", "dimension 1", affine=False),
    "batch without running": _norm("BatchNorm", "dimension 1", track_running_stats=False),
    "instance": _norm("InstanceNorm", "dimension 1"),
    "instance with affine": _norm("InstanceNorm", "dimension 1", affine=True),
    "frozen": Operation(
        "norm", _call, lambda net, step: FrozenBatchNorm2d(step.channels), statistics="frozen", only=2
    ),
    "group": Operation("norm", _call, lambda n, s: nn.GroupNorm(2, s.channels), statistics="halves"),
    "group of one": Operation(
        "norm", _call, lambda n, s: nn.GroupNorm(s.channels, s.channels), statistics="dimension 1"
    ),
    "layer of space": _layer(nn.LayerNorm, _space, "last"),
    "rms of space": _layer(nn.RMSNorm, _space, "last"),
    "layer of everything": _layer(nn.LayerNorm, lambda n, s: (s.channels, *_space(n, s)), "all last"),
    "layer of channels": _layer(nn.LayerNorm, _features, "last", "last", "tokens"),
    "rms of channels": _layer(nn.RMSNorm, _features, "last", "last", "tokens"),
    "batch of length": _norm("BatchNorm", "dimension 1", ("seq",)),
    "batch of features": _norm("BatchNorm", "dimension 1", ("flat",)),
    "layer of features": _layer(nn.LayerNorm, _features, "last", "flat"),
    "instance of length": _norm("InstanceNorm", "dimension 1", ("seq",)),
    "batch over tokens": Operation(
        "norm",
        _call,
        lambda net, step: nn.BatchNorm1d(torch.Size(net.program.spatial).numel()),
        ("tokens",),
        statistics="dimension 1",
    ),
    "functional batch": Operation(
        "norm",
        lambda net, own, x: F.batch_norm(x, None, None, training=True, eps=net.eps),
        None,
        ("map", "seq"),
        statistics="dimension 1",
    ),
    "functional instance": Operation(
        "norm",
        lambda net, own, x: F.instance_norm(x, eps=net.eps),
        None,
        ("map", "seq"),
        statistics="dimension 1",
    ),
    "functional group": Operation(
        "norm", lambda net, own, x: F.group_norm(x, 2, eps=net.eps), statistics="halves", hidden=True
    ),
    "functional layer": Operation(
        "norm", lambda net, own, x: F.layer_norm(x, net.program.spatial, eps=net.eps), statistics="last"
    ),
    # The module only keeps the numbers; called is the function, which takes no statistics.
    "functional frozen": Operation(
        "norm",
        _functional_frozen,
        lambda net, step: _class("BatchNorm", net.dims)(step.channels),
        statistics="frozen",
    ),
    "local response": Operation("mix", _call, lambda net, step: nn.LocalResponseNorm(2)),
    "relu": _act(nn.ReLU),
    "leaky": _act(lambda: nn.LeakyReLU(0.2)),
    "prelu": _act(nn.PReLU),
    "prelu of channels": Operation("same", _call, lambda net, step: nn.PReLU(step.channels), ("map", "seq")),
    "functional relu": Operation("same", lambda net, own, x: F.relu(x), None, ANY),
    "relu method": Operation("same", lambda net, own, x: x.relu(), None, ANY),
    "dropout": _act(lambda: nn.Dropout(0.3)),
    "twice as much": Operation("same", lambda net, own, x: 2 * x, None, ANY),
    "identity": _act(nn.Identity, "shape"),
    "contiguous": Operation("shape", lambda net, own, x: x.contiguous(), None, ANY),
    "gelu": _act(nn.GELU, "mix"),
    "silu": _act(nn.SiLU, "mix"),
    "relu6": _act(nn.ReLU6, "mix"),
    "elu": _act(nn.ELU, "mix"),
    "sigmoid": Operation("mix", lambda net, own, x: torch.sigmoid(x), None, ANY),
    "tanh method": Operation("mix", lambda net, own, x: x.tanh(), None, ANY),
    "plus one": Operation("mix", lambda net, own, x: x + 1, None, ANY),
    "linear": Operation(
        "mix", _call, lambda net, step: nn.Linear(step.channels, step.out), ("last", "tokens", "flat")
    ),
    "max pool": _pool("MaxPool"),
    "average pool": _pool("AvgPool"),
    "pool of length": Operation(
        "pool", lambda net, own, x: F.max_pool1d(x, 3, 1, 1), None, ("seq", "tokens"), dims=1
    ),
    "add": Operation("mix", lambda net, own, x, y: x + y, None, ANY, operands=2),
    "multiply": Operation("mix", lambda net, own, x, y: x * y, None, ANY, operands=2),
    "concatenate": Operation(
        "same", lambda net, own, x, y: torch.cat([x, y], 1), None, ("map", "seq", "flat"), operands=2
    ),
    "concatenate last": Operation(
        "same", lambda net, own, x, y: torch.cat([x, y], -1), None, ("last", "tokens"), operands=2
    ),
    "chunk": Operation("same", _chunk, None, ("map", "seq"), results=2),
    "split": Operation("same", _split, None, ("map",), results=2),
    "slice": Operation("shape", lambda net, own, x: x[:, :2], None, ("map", "seq")),
    "shuffle": Operation("shape", _call, lambda net, step: nn.ChannelShuffle(2), only=2),
    "channels last": Operation("shape", _to_last, to="last"),
    "channels first": Operation("shape", _to_first, None, ("last",), to="map"),
    "flatten space": Operation("shape", lambda net, own, x: x.flatten(2), to="seq"),
    "reshape space": Operation(
        "shape", lambda net, own, x: x.reshape(x.shape[0], x.shape[1], -1), to="seq", hidden=True
    ),
    "transpose": Operation("shape", lambda net, own, x: x.transpose(1, 2), None, ("seq",), to="tokens"),
    "transpose back": Operation("shape", lambda net, own, x: x.transpose(1, 2), None, ("tokens",), to="seq"),
    "flatten": Operation(
        "shape", lambda net, own, x: x.flatten(1), None, ("map", "seq", "tokens"), to="flat"
    ),
    "mean over space": Operation("mean", _mean_over_space, to="flat"),
    "mean over channels": Operation("mean", lambda net, own, x: x.mean(1), None, ("seq",), to="flat", dims=1),
    "mean over tokens": Operation(
        "mean", lambda net, own, x: x.mean(1), None, ("tokens",), to="flat", dims=1
    ),
}
