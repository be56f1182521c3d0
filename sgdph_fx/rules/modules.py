"""What each module *is*: a table, looked up through the class's ancestors, so that subclasses are found.

A module that stands here is read as one operation; what it does inside does not matter. A module of
``torch.nn`` that does not stand here mixes channels; any other is looked into.
"""

from __future__ import annotations

import torch
from torch import nn

from sgdph_fx.rules import layout
from sgdph_fx.rules.kinds import Conv, Linear, Mixing, Norm, Rule, Transparent
from sgdph_fx.rules.named import NAMED

__all__ = ["MODULES", "is_leaf", "rule_of"]

_RESHAPE = Transparent(layout.somewhere, shape_only=True)
_POOL = {dims: Transparent(layout.over_last(dims)) for dims in (1, 2, 3)}

MODULES: dict[type[nn.Module], Rule] = {
    nn.Conv1d: Conv(1),
    nn.Conv2d: Conv(2),
    nn.Conv3d: Conv(3),
    nn.ConvTranspose1d: Conv(1, transposed=True),
    nn.ConvTranspose2d: Conv(2, transposed=True),
    nn.ConvTranspose3d: Conv(3, transposed=True),
    nn.BatchNorm1d: Norm("batch"),
    nn.BatchNorm2d: Norm("batch"),
    nn.BatchNorm3d: Norm("batch"),
    nn.SyncBatchNorm: Norm("batch"),
    nn.InstanceNorm1d: Norm("instance"),
    nn.InstanceNorm2d: Norm("instance"),
    nn.InstanceNorm3d: Norm("instance"),
    nn.GroupNorm: Norm("group"),
    nn.LayerNorm: Norm("layer"),
    nn.RMSNorm: Norm("rms"),
    # Local response normalization divides by a sum over neighbouring channels: it has no statistics of its own.
    nn.LocalResponseNorm: Mixing(),
    nn.CrossMapLRN2d: Mixing(),
    nn.Linear: Linear(),
    nn.Bilinear: Linear(),
    nn.MultiheadAttention: Linear(
        weights=("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"),
        biases=("in_proj_bias",),
    ),
    nn.Identity: Transparent(shape_only=True),
    nn.Flatten: Transparent(layout.flatten, shape_only=True),
    nn.Unflatten: _RESHAPE,
    nn.ReLU: Transparent(),
    nn.LeakyReLU: Transparent(),
    nn.RReLU: Transparent(),
    nn.PReLU: Transparent(weight="weight"),
    nn.Dropout: Transparent(),
    nn.Dropout1d: Transparent(),
    nn.Dropout2d: Transparent(),
    nn.Dropout3d: Transparent(),
    nn.ZeroPad1d: Transparent(),
    nn.ZeroPad2d: Transparent(),
    nn.ZeroPad3d: Transparent(),
    nn.ReflectionPad1d: Transparent(),
    nn.ReflectionPad2d: Transparent(),
    nn.ReflectionPad3d: Transparent(),
    nn.ReplicationPad1d: Transparent(),
    nn.ReplicationPad2d: Transparent(),
    nn.ReplicationPad3d: Transparent(),
    nn.CircularPad1d: Transparent(),
    nn.CircularPad2d: Transparent(),
    nn.CircularPad3d: Transparent(),
    nn.MaxPool1d: _POOL[1],
    nn.MaxPool2d: _POOL[2],
    nn.MaxPool3d: _POOL[3],
    nn.AvgPool1d: _POOL[1],
    nn.AvgPool2d: _POOL[2],
    nn.AvgPool3d: _POOL[3],
    nn.LPPool1d: _POOL[1],
    nn.LPPool2d: _POOL[2],
    nn.LPPool3d: _POOL[3],
    nn.FractionalMaxPool2d: _POOL[2],
    nn.FractionalMaxPool3d: _POOL[3],
    nn.AdaptiveMaxPool1d: _POOL[1],
    nn.AdaptiveMaxPool2d: _POOL[2],
    nn.AdaptiveMaxPool3d: _POOL[3],
    nn.AdaptiveAvgPool1d: _POOL[1],
    nn.AdaptiveAvgPool2d: _POOL[2],
    nn.AdaptiveAvgPool3d: _POOL[3],
    nn.Upsample: Transparent(layout.resize),
    nn.ChannelShuffle: Transparent(shape_only=True),
    nn.PixelUnshuffle: Transparent(shape_only=True),
}

# Only these of torch.nn are looked into; in the others nothing is to be found that a table does not say.
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def rule_of(module: nn.Module) -> Rule | None:
    """What ``module`` is, or None if it has to be looked into.

    >>> rule_of(nn.Conv2d(3, 8, 3))
    Conv(dims=2, transposed=False, weight='weight', bias='bias', gain=None, standardized=False)
    >>> rule_of(nn.Sequential()) is None
    True
    """
    for ancestor in type(module).__mro__:
        if ancestor in MODULES:
            return MODULES[ancestor]
        if (name := f"{ancestor.__module__}.{ancestor.__qualname__}") in NAMED:
            return NAMED[name]
    if isinstance(module, torch.jit.ScriptModule):
        return Mixing()  # it cannot be looked into
    of_torch = type(module).__module__.startswith("torch.nn.modules")
    return Mixing() if of_torch and not isinstance(module, _CONTAINERS) else None


def is_leaf(module: nn.Module) -> bool:
    """Whether ``module`` is read as one operation.

    A convolution that owns further modules (detectron2's carries its norm and its activation) is looked
    into: its own ``F.conv2d`` call shows, and so does what it does next.
    """
    rule = rule_of(module)
    if rule is None or not isinstance(rule, Conv):
        return rule is not None
    return all(name == "parametrizations" for name, _ in module.named_children())
