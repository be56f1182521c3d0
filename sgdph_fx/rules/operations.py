"""What each function and method *is*: a table by name.

One row for each operation, however it is spelled: see :mod:`sgdph_fx.rules.calls`. An operation
that is not in the table mixes channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from sgdph_fx.rules import moves, reshapes
from sgdph_fx.rules.calls import argument_reader, operation_name
from sgdph_fx.rules.kinds import Conv, Linear, Mixing, Norm, Rule, Transparent
from sgdph_fx.rules.layout import Argument

__all__ = ["OPERATIONS", "Operands", "operands_of", "rule_of_operation"]


@dataclass(frozen=True, slots=True)
class Operands:
    """Where a functional layer takes its weight, bias and groups: position and name of the arguments."""

    weight: tuple[int, str]
    bias: tuple[int, str] | None = None
    groups: tuple[int, str] = (6, "groups")


_SAME = Transparent()
_MOVES_NOTHING = Transparent(shape_only=True)
_RESHAPE = Transparent(reshapes.reshape, shape_only=True)
_RESHAPE_AS = Transparent(reshapes.reshape_as, shape_only=True)
_MOVEDIM = Transparent(reshapes.movedim, shape_only=True)
_TRANSPOSE = Transparent(reshapes.transpose, shape_only=True)
_REVERSE = Transparent(reshapes.reverse, shape_only=True)
_CUT = Transparent(moves.cut, shape_only=True)
_CONCATENATE = Transparent(moves.concatenate)
_REDUCE = Transparent(moves.reduce)
_POOL = {dims: Transparent(moves.over_last(dims)) for dims in (1, 2, 3)}

OPERATIONS: dict[str, Rule] = {
    "conv1d": Conv(1),
    "conv2d": Conv(2),
    "conv3d": Conv(3),
    "conv_transpose1d": Conv(1, transposed=True),
    "conv_transpose2d": Conv(2, transposed=True),
    "conv_transpose3d": Conv(3, transposed=True),
    "deform_conv2d": Conv(2, twice_differentiable=False),
    "batch_norm": Norm("batch"),
    "instance_norm": Norm("instance"),
    "group_norm": Norm("group"),
    "layer_norm": Norm("layer"),
    "rms_norm": Norm("rms"),
    "linear": Linear(),
    "addmm": Linear(),
    "relu": _SAME,
    "clamp": _SAME,
    "clamp_min": _SAME,
    "clamp_max": _SAME,
    "threshold": _SAME,
    "abs": _SAME,
    "neg": _SAME,
    "mul": _SAME,
    "div": _SAME,
    "pad": Transparent(moves.pad),
    "leaky_relu": _SAME,
    "rrelu": _SAME,
    "prelu": Transparent(weight="weight"),
    "dropout": _SAME,
    "dropout1d": _SAME,
    "dropout2d": _SAME,
    "dropout3d": _SAME,
    "feature_dropout": _SAME,
    "stochastic_depth": _SAME,
    "drop_block2d": _SAME,
    "drop_block3d": _SAME,
    "max_pool1d": _POOL[1],
    "max_pool2d": _POOL[2],
    "max_pool3d": _POOL[3],
    "max_pool1d_with_indices": _POOL[1],
    "max_pool2d_with_indices": _POOL[2],
    "max_pool3d_with_indices": _POOL[3],
    "avg_pool1d": _POOL[1],
    "avg_pool2d": _POOL[2],
    "avg_pool3d": _POOL[3],
    "lp_pool1d": _POOL[1],
    "lp_pool2d": _POOL[2],
    "lp_pool3d": _POOL[3],
    "adaptive_max_pool1d": _POOL[1],
    "adaptive_max_pool2d": _POOL[2],
    "adaptive_max_pool3d": _POOL[3],
    "adaptive_avg_pool1d": _POOL[1],
    "adaptive_avg_pool2d": _POOL[2],
    "adaptive_avg_pool3d": _POOL[3],
    "interpolate": Transparent(moves.resize),
    "upsample": Transparent(moves.resize),
    "mean": _REDUCE,
    "sum": _REDUCE,
    "amax": _REDUCE,
    "amin": _REDUCE,
    "cat": _CONCATENATE,
    "concat": _CONCATENATE,
    "concatenate": _CONCATENATE,
    "stack": Transparent(moves.stack),
    "chunk": _CUT,
    "split": _CUT,
    "split_with_sizes": _CUT,
    "tensor_split": _CUT,
    "narrow": Transparent(moves.narrow, shape_only=True),
    "select": Transparent(moves.select, shape_only=True),
    "unbind": Transparent(moves.unbind, shape_only=True),
    "getitem": Transparent(moves.index, shape_only=True),
    "clone": _MOVES_NOTHING,
    "contiguous": _MOVES_NOTHING,
    "detach": _MOVES_NOTHING,
    "data": _MOVES_NOTHING,
    "to": _MOVES_NOTHING,
    "type": _MOVES_NOTHING,
    "cpu": _MOVES_NOTHING,
    "cuda": _MOVES_NOTHING,
    "type_as": _MOVES_NOTHING,
    "float": _MOVES_NOTHING,
    "double": _MOVES_NOTHING,
    "half": _MOVES_NOTHING,
    "bfloat16": _MOVES_NOTHING,
    "identity": _MOVES_NOTHING,
    "flatten": Transparent(reshapes.flatten, shape_only=True),
    "ravel": Transparent(reshapes.ravel, shape_only=True),
    "unflatten": Transparent(reshapes.unflatten, shape_only=True),
    "view": _RESHAPE,
    "view_as": _RESHAPE_AS,
    "reshape_as": _RESHAPE_AS,
    "reshape": _RESHAPE,
    "permute": Transparent(reshapes.permute, shape_only=True),
    "transpose": _TRANSPOSE,
    "swapaxes": _TRANSPOSE,
    "swapdims": _TRANSPOSE,
    "movedim": _MOVEDIM,
    "moveaxis": _MOVEDIM,
    "t": _REVERSE,
    "T": _REVERSE,
    "mT": Transparent(reshapes.swap_last, shape_only=True),
    "squeeze": Transparent(reshapes.squeeze, shape_only=True),
    "unsqueeze": Transparent(reshapes.unsqueeze, shape_only=True),
    "channel_shuffle": Transparent(reshapes.channel_shuffle, shape_only=True),
    "pixel_unshuffle": Transparent(reshapes.pixel_unshuffle, shape_only=True),
    "roll": Transparent(moves.roll),
    "flip": _SAME,
}

# Operations of the table that mix channels after all unless their arguments fulfil a condition.
_CONDITIONS: dict[str, Callable[[Argument], bool]] = {
    "pad": lambda arg: arg(2, "mode", "constant") != "constant" or arg(3, "value", 0) in (0, None),
    "mul": lambda arg: _scales(arg(1, "other", None)) or _scales(arg(0, "input", None)),
    "div": lambda arg: _scales(arg(1, "other", None)) and arg(2, "rounding_mode", None) is None,
    # One bound, at 0: what is left of ReLU, or of its mirror image.
    "clamp": lambda arg: (
        (_is_zero(arg(1, "min", None)), _is_zero(arg(2, "max", None))) in ((True, None), (None, True))
    ),
    "clamp_min": lambda arg: _is_zero(arg(1, "min", None)) is True,
    "clamp_max": lambda arg: _is_zero(arg(1, "max", None)) is True,
    "threshold": lambda arg: _is_zero(arg(1, "threshold", None)) is _is_zero(arg(2, "value", None)) is True,
    "to": lambda arg: not _rounds(arg(1, "dtype", None)) and not _rounds(arg(2, "dtype", None)),
    "type": lambda arg: not _rounds(arg(1, "dtype", None)),
}

_OPERANDS: dict[str, Operands] = {
    **{
        name: Operands((1, "weight"), (2, "bias"))
        for name, rule in OPERATIONS.items()
        if isinstance(rule, Conv)
    },
    # As torchvision's operator has them, which its Python function calls.
    "deform_conv2d": Operands((1, "weight"), (4, "bias"), (11, "n_weight_grps")),
    "convolution": Operands((1, "weight"), (2, "bias"), (8, "groups")),
    "linear": Operands((1, "weight"), (2, "bias")),
    "addmm": Operands((2, "mat2"), (0, "input")),
    "batch_norm": Operands((3, "weight"), (4, "bias")),
    "instance_norm": Operands((3, "weight"), (4, "bias")),
    "group_norm": Operands((2, "weight"), (3, "bias")),
    "layer_norm": Operands((2, "weight"), (3, "bias")),
    "rms_norm": Operands((2, "weight")),
    "prelu": Operands((1, "weight")),
}
# The operators behind torch.nn.functional's functions take weight and bias before the running statistics.
_OF_OPERATORS = dict.fromkeys(("batch_norm", "instance_norm"), Operands((1, "weight"), (2, "bias")))


def operands_of(node: fx.Node) -> Operands | None:
    """Where a call of a functional layer takes its weight, bias and groups; None for any other operation."""
    name = operation_name(node)
    if name in _OF_OPERATORS and getattr(node.target, "__module__", "") != "torch.nn.functional":
        return _OF_OPERATORS[name]
    return _OPERANDS.get(name)


def rule_of_operation(node: fx.Node) -> Rule:
    """What a function or method call is."""
    name = operation_name(node)
    arg = argument_reader(node)
    if name in _CONDITIONS and not _CONDITIONS[name](arg):
        return Mixing()
    if name == "convolution":  # what all of them call, with all arguments given
        return Conv(len(arg(3, "stride", ())), transposed=bool(arg(6, "transposed", False)))
    rule = OPERATIONS.get(name, Mixing())
    if isinstance(rule, Norm) and _is_frozen(name, arg):
        return Norm("frozen")
    return rule


def _is_frozen(name: str, arg: Argument) -> bool:
    own_statistics = {"batch_norm": (5, "training", False), "instance_norm": (5, "use_input_stats", True)}
    return name in own_statistics and arg(*own_statistics[name]) is False


def _scales(value: Any) -> bool:
    """Whether a factor keeps channels apart and lets a gain pass: any number but 0."""
    return isinstance(value, int | float) and value != 0


def _is_zero(value: Any) -> bool | None:
    """Whether a bound is 0; None where there is none."""
    return None if value is None else isinstance(value, int | float) and value == 0


def _rounds(dtype: Any) -> bool:
    return isinstance(dtype, torch.dtype) and not (dtype.is_floating_point or dtype.is_complex)
