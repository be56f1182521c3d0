"""What random networks are made of: a table of operations by name."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from tests.properties.makers import (
    ANY,
    act,
    by_weight_of,
    call,
    chunk,
    class_of,
    conv,
    features,
    functional_frozen,
    kernel,
    layer,
    mean_over_space,
    norm,
    pool,
    space,
    split,
    to_first,
    to_last,
)
from tests.properties.operation import Operation

__all__ = ["OPERATIONS"]

OPERATIONS: dict[str, Operation] = {
    "conv": conv(3),
    "pointwise": conv(1),
    "grouped": conv(3, groups=2),
    "depthwise": conv(3, groups=None),
    "transposed": conv(3, transposed=True),
    "transposed grouped": conv(1, groups=2, transposed=True),
    "functional": kernel(),
    "functional grouped": kernel(groups=2),
    "functional transposed": kernel(groups=2, transposed=True),
    # These use the weight that an earlier step has: in a module of their own, or alone.
    "shared": Operation("conv", call),
    "by weight": Operation("conv", by_weight_of),
    "batch": norm("BatchNorm", "dimension 1"),
    "batch without affine": norm("BatchNorm", "dimension 1", affine=False),
    "batch without running": norm("BatchNorm", "dimension 1", track_running_stats=False),
    "instance": norm("InstanceNorm", "dimension 1"),
    "instance with affine": norm("InstanceNorm", "dimension 1", affine=True),
    "frozen": Operation(
        "norm", call, lambda net, step: FrozenBatchNorm2d(step.channels), statistics="frozen", only=2
    ),
    "group": Operation("norm", call, lambda n, s: nn.GroupNorm(2, s.channels), statistics="halves"),
    "group of one": Operation(
        "norm", call, lambda n, s: nn.GroupNorm(s.channels, s.channels), statistics="dimension 1"
    ),
    "layer of space": layer(nn.LayerNorm, space, "last"),
    "rms of space": layer(nn.RMSNorm, space, "last"),
    "layer of everything": layer(nn.LayerNorm, lambda n, s: (s.channels, *space(n, s)), "all last"),
    "layer of channels": layer(nn.LayerNorm, features, "last", "last", "tokens"),
    "rms of channels": layer(nn.RMSNorm, features, "last", "last", "tokens"),
    "batch of length": norm("BatchNorm", "dimension 1", ("seq",)),
    "batch of features": norm("BatchNorm", "dimension 1", ("flat",)),
    "layer of features": layer(nn.LayerNorm, features, "last", "flat"),
    "instance of length": norm("InstanceNorm", "dimension 1", ("seq",)),
    "batch over tokens": Operation(
        "norm",
        call,
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
        functional_frozen,
        lambda net, step: class_of("BatchNorm", net.dims)(step.channels),
        statistics="frozen",
    ),
    "local response": Operation("mix", call, lambda net, step: nn.LocalResponseNorm(2)),
    "relu": act(nn.ReLU),
    "leaky": act(lambda: nn.LeakyReLU(0.2)),
    "prelu": act(nn.PReLU),
    "prelu of channels": Operation("same", call, lambda net, step: nn.PReLU(step.channels), ("map", "seq")),
    "functional relu": Operation("same", lambda net, own, x: F.relu(x), None, ANY),
    "relu method": Operation("same", lambda net, own, x: x.relu(), None, ANY),
    "dropout": act(lambda: nn.Dropout(0.3)),
    "twice as much": Operation("same", lambda net, own, x: 2 * x, None, ANY),
    "other sign": Operation("same", lambda net, own, x: -x, None, ANY),
    "half of the other sign": Operation("same", lambda net, own, x: x * -0.5, None, ANY),
    "absolute": Operation("same", lambda net, own, x: x.abs(), None, ANY),
    "clamp": Operation("same", lambda net, own, x: x.clamp(min=0), None, ANY),
    "identity": act(nn.Identity, "shape"),
    "contiguous": Operation("shape", lambda net, own, x: x.contiguous(), None, ANY),
    "gelu": act(nn.GELU, "mix"),
    "silu": act(nn.SiLU, "mix"),
    "relu6": act(nn.ReLU6, "mix"),
    "elu": act(nn.ELU, "mix"),
    "sigmoid": Operation("mix", lambda net, own, x: torch.sigmoid(x), None, ANY),
    "tanh method": Operation("mix", lambda net, own, x: x.tanh(), None, ANY),
    "clamp at a half": Operation("mix", lambda net, own, x: x.clamp(min=0.5), None, ANY),
    "plus one": Operation("mix", lambda net, own, x: x + 1, None, ANY),
    "linear": Operation(
        "mix", call, lambda net, step: nn.Linear(step.channels, step.out), ("last", "tokens", "flat")
    ),
    "max pool": pool("MaxPool"),
    "average pool": pool("AvgPool"),
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
    "chunk": Operation("same", chunk, None, ("map", "seq"), results=2),
    "split": Operation("same", split, None, ("map",), results=2),
    "slice": Operation("shape", lambda net, own, x: x[:, :2], None, ("map", "seq")),
    "shuffle": Operation("shape", call, lambda net, step: nn.ChannelShuffle(2), only=2),
    "channels last": Operation("shape", to_last, to="last"),
    "channels first": Operation("shape", to_first, None, ("last",), to="map"),
    "flatten space": Operation("shape", lambda net, own, x: x.flatten(2), to="seq"),
    "reshape space": Operation(
        "shape", lambda net, own, x: x.reshape(x.shape[0], x.shape[1], -1), to="seq", hidden=True
    ),
    "transpose": Operation("shape", lambda net, own, x: x.transpose(1, 2), None, ("seq",), to="tokens"),
    "transpose back": Operation("shape", lambda net, own, x: x.transpose(1, 2), None, ("tokens",), to="seq"),
    "flatten": Operation(
        "shape", lambda net, own, x: x.flatten(1), None, ("map", "seq", "tokens"), to="flat"
    ),
    "mean over space": Operation("mean", mean_over_space, to="flat"),
    "mean over channels": Operation("mean", lambda net, own, x: x.mean(1), None, ("seq",), to="flat", dims=1),
    "mean over tokens": Operation(
        "mean", lambda net, own, x: x.mean(1), None, ("tokens",), to="flat", dims=1
    ),
}
