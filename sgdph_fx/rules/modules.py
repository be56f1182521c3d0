"""What each module *is*: a table, looked up through the class's ancestors, so that subclasses are found.

A module in the table is read as one operation, whatever it does inside. A module of ``torch.nn`` that is not in it
mixes channels; any other module is looked into.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from sgdph_fx.rules import moves, reshapes
from sgdph_fx.rules.kinds import Conv, Linear, Mixing, Norm, Rule, Transparent
from sgdph_fx.rules.named import NAMED, REVIEWED, norm_by_class_name, qualified_name

__all__ = ["MODULES", "computes_as_known", "forward_of", "has_own_forward", "rule_of"]

# What a class is may depend on how one of its modules was built.
Row = Rule | Callable[[nn.Module], Rule]

_POOL = {dims: Transparent(moves.over_last(dims)) for dims in (1, 2, 3)}
_PAD = Transparent(moves.pad)
_RECURRENT = Linear(("weight_*",), ("bias_*",))


def _constant_pad(module: nn.Module) -> Rule:
    """Zeros stay zeros under a gain; another constant does not."""
    return _PAD if getattr(module, "value", None) == 0 else Mixing()


def _threshold(module: nn.Module) -> Rule:
    """Zero in place of what is not above zero is ReLU."""
    at_zero = getattr(module, "threshold", None) == 0 and getattr(module, "value", None) == 0
    return Transparent() if at_zero else Mixing()


MODULES: dict[type[nn.Module], Row] = {
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
        tokens=("bias_k", "bias_v"),
    ),
    nn.RNNBase: _RECURRENT,
    nn.RNNCellBase: _RECURRENT,
    nn.Identity: Transparent(shape_only=True),
    nn.Flatten: Transparent(reshapes.flatten, shape_only=True),
    nn.Unflatten: Transparent(reshapes.unflatten, shape_only=True),
    nn.ReLU: Transparent(),
    nn.LeakyReLU: Transparent(),
    nn.RReLU: Transparent(),
    nn.Threshold: _threshold,
    nn.PReLU: Transparent(weight="weight"),
    nn.Dropout: Transparent(),
    nn.Dropout1d: Transparent(),
    nn.Dropout2d: Transparent(),
    nn.Dropout3d: Transparent(),
    nn.ConstantPad1d: _constant_pad,
    nn.ConstantPad2d: _constant_pad,
    nn.ConstantPad3d: _constant_pad,
    nn.ZeroPad1d: _PAD,
    nn.ZeroPad2d: _PAD,
    nn.ZeroPad3d: _PAD,
    nn.ReflectionPad1d: _PAD,
    nn.ReflectionPad2d: _PAD,
    nn.ReflectionPad3d: _PAD,
    nn.ReplicationPad1d: _PAD,
    nn.ReplicationPad2d: _PAD,
    nn.ReplicationPad3d: _PAD,
    nn.CircularPad1d: _PAD,
    nn.CircularPad2d: _PAD,
    nn.CircularPad3d: _PAD,
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
    nn.Upsample: Transparent(moves.resize),
    nn.ChannelShuffle: Transparent(reshapes.channel_shuffle, shape_only=True),
    nn.PixelUnshuffle: Transparent(reshapes.pixel_unshuffle, shape_only=True),
}

# Of torch.nn, only these are looked into; the tables say all there is to know about the others.
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def rule_of(module: nn.Module) -> Rule | None:
    """What ``module`` is, or None if it has to be looked into.

    >>> rule_of(nn.Conv2d(3, 8, 3)) # doctest: +ELLIPSIS
    Conv(dims=2, transposed=False, weight='weight', bias='bias', gain=None, standardized=False, ...)
    >>> rule_of(nn.Sequential()) is None
    True
    """
    row = _row_of(type(module))
    if row is not None:
        return row if isinstance(row, Rule) else row(module)
    if isinstance(module, torch.jit.ScriptModule):
        return Mixing()  # it cannot be looked into
    if type(module).__module__.startswith("torch.nn.modules"):
        return None if isinstance(module, _CONTAINERS) else Mixing()
    return norm_by_class_name(module)


def _known_ancestor(kind: type[nn.Module]) -> type[nn.Module] | None:
    return next((a for a in kind.__mro__ if a in MODULES or qualified_name(a) in NAMED), None)


def _row_of(kind: type[nn.Module]) -> Row | None:
    ancestor = _known_ancestor(kind)
    if ancestor is None:
        return None
    return MODULES[ancestor] if ancestor in MODULES else NAMED[qualified_name(ancestor)]


def computes_as_known(module: nn.Module) -> bool:
    """Whether ``module`` computes what its row says, and not by an unknown ``forward`` of its own."""
    ancestor, own = _known_ancestor(type(module)), forward_of(module)
    return ancestor is not None and (own is ancestor.forward or _is_reviewed(own))


def forward_of(module: nn.Module) -> object:
    """The function that ``module`` runs; it may be patched on one module alone."""
    own = module.__dict__.get("forward", type(module).forward)
    return getattr(own, "__func__", own)


def has_own_forward(module: nn.Module) -> bool:
    """Whether ``module`` derives from a class of the table and has a ``forward`` that the table says nothing about."""
    return _known_ancestor(type(module)) is not None and not computes_as_known(module)


def _is_reviewed(function: object) -> bool:
    return str(getattr(function, "__module__", "")).startswith(REVIEWED)
