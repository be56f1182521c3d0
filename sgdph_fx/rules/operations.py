"""What each function and method *is*: a table by name.

``F.relu``, ``torch.relu``, ``x.relu()`` and ``x.relu_()`` are one operation, so the table has one row for
them; :func:`operation_name` finds the name. What does not stand here mixes channels.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx
from torchvision import ops

from sgdph_fx.rules import layout
from sgdph_fx.rules.kinds import Conv, Linear, Mixing, Norm, Rule, Transparent

__all__ = [
    "LIKE_ANOTHER",
    "METADATA",
    "OPERANDS",
    "OPERATIONS",
    "SEVERAL_RESULTS",
    "Operands",
    "argument_reader",
    "is_in_place",
    "operation_name",
    "rule_of_operation",
]


@dataclass(frozen=True, slots=True)
class Operands:
    """Where a functional layer takes its weight and its bias: position and name of the arguments."""

    weight: tuple[int, str]
    bias: tuple[int, str] | None = None


_SAME = Transparent()
_MOVES_NOTHING = Transparent(shape_only=True)
_RESHAPE = Transparent(layout.somewhere, shape_only=True)
_REDUCE = Transparent(layout.reduce)
_POOL = {dims: Transparent(layout.over_last(dims)) for dims in (1, 2, 3)}

OPERATIONS: dict[str, Rule] = {
    "conv1d": Conv(1),
    "conv2d": Conv(2),
    "conv3d": Conv(3),
    "conv_transpose1d": Conv(1, transposed=True),
    "conv_transpose2d": Conv(2, transposed=True),
    "conv_transpose3d": Conv(3, transposed=True),
    "batch_norm": Norm("batch"),
    "instance_norm": Norm("instance"),
    "group_norm": Norm("group"),
    "layer_norm": Norm("layer"),
    "rms_norm": Norm("rms"),
    "linear": Linear(),
    "relu": _SAME,
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
    "interpolate": Transparent(layout.resize),
    "upsample": Transparent(layout.resize),
    "mean": _REDUCE,
    "sum": _REDUCE,
    "amax": _REDUCE,
    "amin": _REDUCE,
    "cat": Transparent(layout.concatenate),
    "concat": Transparent(layout.concatenate),
    "concatenate": Transparent(layout.concatenate),
    "stack": Transparent(layout.stack),
    "chunk": _MOVES_NOTHING,
    "split": _MOVES_NOTHING,
    "split_with_sizes": _MOVES_NOTHING,
    "tensor_split": _MOVES_NOTHING,
    "narrow": _MOVES_NOTHING,
    "unbind": Transparent(layout.unbind, shape_only=True),
    "getitem": Transparent(layout.index, shape_only=True),
    "clone": _MOVES_NOTHING,
    "contiguous": _MOVES_NOTHING,
    "detach": _MOVES_NOTHING,
    "data": _MOVES_NOTHING,
    "to": _MOVES_NOTHING,
    "type_as": _MOVES_NOTHING,
    "float": _MOVES_NOTHING,
    "double": _MOVES_NOTHING,
    "half": _MOVES_NOTHING,
    "bfloat16": _MOVES_NOTHING,
    "identity": _MOVES_NOTHING,
    "flatten": Transparent(layout.flatten, shape_only=True),
    "unflatten": _RESHAPE,
    "view": _RESHAPE,
    "view_as": _RESHAPE,
    "reshape_as": _RESHAPE,
    "reshape": _RESHAPE,
    "permute": Transparent(layout.permute, shape_only=True),
    "transpose": Transparent(layout.transpose, shape_only=True),
    "swapaxes": Transparent(layout.transpose, shape_only=True),
    "swapdims": Transparent(layout.transpose, shape_only=True),
    "movedim": _RESHAPE,
    "moveaxis": _RESHAPE,
    "t": Transparent(layout.swap_last, shape_only=True),
    "T": Transparent(layout.swap_last, shape_only=True),
    "mT": Transparent(layout.swap_last, shape_only=True),
    "squeeze": Transparent(layout.squeeze, shape_only=True),
    "unsqueeze": Transparent(layout.unsqueeze, shape_only=True),
    "channel_shuffle": _MOVES_NOTHING,
    "pixel_unshuffle": _MOVES_NOTHING,
    "roll": _SAME,
    "flip": _SAME,
}

# Transparent only for some arguments: what `rule_of_operation` looks at before it says so.
_CONDITIONS: dict[str, Callable[[layout.Argument], bool]] = {
    "pad": lambda arg: arg(2, "mode", "constant") != "constant" or arg(3, "value", 0) in (0, None),
    "mul": lambda arg: _positive(arg(1, "other", None)) or _positive(arg(0, "input", None)),
    "div": lambda arg: _positive(arg(1, "other", None)),
}

OPERANDS: dict[str, Operands] = {
    **{
        name: Operands((1, "weight"), (2, "bias"))
        for name, rule in OPERATIONS.items()
        if isinstance(rule, Conv)
    },
    "linear": Operands((1, "weight"), (2, "bias")),
    "batch_norm": Operands((3, "weight"), (4, "bias")),
    "instance_norm": Operands((3, "weight"), (4, "bias")),
    "group_norm": Operands((2, "weight"), (3, "bias")),
    "layer_norm": Operands((2, "weight"), (3, "bias")),
    "rms_norm": Operands((2, "weight")),
    "prelu": Operands((1, "weight")),
}

# Reading these of a tensor, or making another of its shape, does not use its numbers.
METADATA = frozenset(
    [
        "shape",
        "size",
        "dim",
        "ndim",
        "ndimension",
        "numel",
        "nelement",
        "dtype",
        "device",
        "layout",
        "stride",
        "is_contiguous",
        "is_cuda",
        "is_sparse",
        "is_floating_point",
        "is_complex",
        "requires_grad",
        "data_ptr",
        "element_size",
        "storage_offset",
        "len",
        "grad_fn",
        "names",
        "ones_like",
        "zeros_like",
        "empty_like",
        "full_like",
        "rand_like",
        "randn_like",
        "new_empty",
        "new_full",
        "new_ones",
        "new_tensor",
        "new_zeros",
    ]
)

# These read the shape or the type of their second operand, and nothing else of it.
LIKE_ANOTHER = frozenset(["expand_as", "reshape_as", "type_as", "view_as"])

# These return a tuple, so that an index into their result picks a tensor and not a part of one.
SEVERAL_RESULTS = frozenset(
    [
        "chunk",
        "split",
        "split_with_sizes",
        "tensor_split",
        "unbind",
        "max_pool1d_with_indices",
        "max_pool2d_with_indices",
        "max_pool3d_with_indices",
    ]
)

_ALIASES = {
    "iadd": "add",
    "radd": "add",
    "isub": "sub",
    "rsub": "sub",
    "imul": "mul",
    "rmul": "mul",
    "multiply": "mul",
    "truediv": "div",
    "itruediv": "div",
    "divide": "div",
}

_EXACT: dict[Any, str] = {
    ops.stochastic_depth: "stochastic_depth",
    ops.drop_block2d: "drop_block2d",
    ops.drop_block3d: "drop_block3d",
}


def operation_name(node: fx.Node) -> str:
    """The row of the table that a function or method call belongs to; empty for a person's own function."""
    target = node.target
    if isinstance(target, str):
        return _canonical(target)
    if target in _EXACT:
        return _EXACT[target]
    if target is getattr:
        return str(node.args[1])
    name = getattr(target, "__name__", "")
    return _canonical(name) if _of_torch(target) else ""


def is_in_place(node: fx.Node) -> bool:
    """Whether a function or method call writes its result into its first operand."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if node.kwargs.get("inplace") is True or name in ("iadd", "isub", "imul", "itruediv"):
        return True
    return name.endswith("_") and not name.endswith("__")


def rule_of_operation(node: fx.Node) -> Rule:
    """What a function or method call is."""
    name = operation_name(node)
    arg = argument_reader(node)
    if name in _CONDITIONS:
        return Transparent() if _CONDITIONS[name](arg) else Mixing()
    rule = OPERATIONS.get(name, Mixing())
    if isinstance(rule, Norm) and _is_frozen(name, arg):
        return Norm("frozen")
    return rule


def _is_frozen(name: str, arg: layout.Argument) -> bool:
    own_statistics = {"batch_norm": (5, "training", False), "instance_norm": (5, "use_input_stats", True)}
    return name in own_statistics and arg(*own_statistics[name]) is False


def _canonical(name: str) -> str:
    bare = name.strip("_") if name not in ("T", "mT") else name
    return _ALIASES.get(bare, bare)


def _of_torch(target: Any) -> bool:
    if isinstance(
        target, types.BuiltinFunctionType | types.MethodDescriptorType | types.WrapperDescriptorType
    ):
        return True
    module = getattr(target, "__module__", None) or ""
    return module in ("_operator", "operator", "math", "builtins") or module.split(".")[0] == "torch"


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0


def argument_reader(node: fx.Node) -> layout.Argument:
    """Reads the arguments of a function or method call by position or name."""

    def arg(position: int, name: str, default: Any) -> Any:
        if name == "dims" and len(node.args) > 2:
            return node.args[1:]  # x.permute(0, 2, 1) for x.permute((0, 2, 1))
        return node.args[position] if position < len(node.args) else node.kwargs.get(name, default)

    return arg
