"""How calls of functions and methods are read: their names, their arguments, what they use of them.

``F.relu``, ``torch.relu``, ``x.relu()`` and ``x.relu_()`` are one operation under one name.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

from torch import fx

from sgdph_fx.rules.layout import Argument

__all__ = [
    "LIKE_ANOTHER",
    "METADATA",
    "SEVERAL_RESULTS",
    "WRAPPED",
    "argument_reader",
    "is_in_place",
    "operation_name",
    "wrapped_functions",
]

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

# Python functions whose inside is not to be looked at, by qualified name, so that their packages need no import.
WRAPPED = {
    "torchvision.ops.stochastic_depth.stochastic_depth": "stochastic_depth",
    "torchvision.ops.drop_block.drop_block2d": "drop_block2d",
    "torchvision.ops.drop_block.drop_block3d": "drop_block3d",
}


def wrapped_functions() -> tuple[Callable[..., Any], ...]:
    """Those of :data:`WRAPPED` that are imported, for the tracer to write as one node each."""
    places = (name.rpartition(".") for name in WRAPPED)
    return tuple(getattr(sys.modules[module], name) for module, _, name in places if module in sys.modules)


def operation_name(node: fx.Node) -> str:
    """The row of the table that a function or method call belongs to; empty for a person's own function."""
    target = node.target
    if isinstance(target, str):
        return _canonical(target)
    if (full := f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '')}") in WRAPPED:
        return WRAPPED[full]
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


def argument_reader(node: fx.Node) -> Argument:
    """Reads the arguments of a function or method call by position or name."""

    def arg(position: int, name: str, default: Any) -> Any:
        if name == "dims" and len(node.args) > 2:
            return node.args[1:]  # x.permute(0, 2, 1) for x.permute((0, 2, 1))
        return node.args[position] if position < len(node.args) else node.kwargs.get(name, default)

    return arg


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
