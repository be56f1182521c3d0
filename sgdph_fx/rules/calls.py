"""Read calls of functions and methods: their names, their arguments, and which operands' numbers they use.

``F.relu``, ``torch.relu``, ``x.relu()`` and ``x.relu_()`` are one operation under one name.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

from torch import fx
from torch._ops import OpOverload

from sgdph_fx.rules.layout import Argument

__all__ = [
    "CONCATENATIONS",
    "LIKE_ANOTHER",
    "METADATA",
    "SEVERAL_RESULTS",
    "WRAPPED",
    "argument_reader",
    "data_operands",
    "is_in_place",
    "numbers_read",
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
        "is_inference",
        "is_same_size",
        "get_device",
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
        "randint_like",
        "randn_like",
        "new_empty",
        "new_full",
        "new_ones",
        "new_tensor",
        "new_zeros",
    ]
)

# These join tensors along a dimension that they have.
CONCATENATIONS = frozenset(["cat", "concat", "concatenate"])

# These read only the shape or the type of their second operand.
LIKE_ANOTHER = frozenset(["expand_as", "reshape_as", "to", "type_as", "view_as"])

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

# NumPy's names, which torch takes beside its own.
_OF_NUMPY = {"dim": ("axis",), "keepdim": ("keepdims",), "input": ("x", "a", "x1"), "other": ("x2",)}

# Arguments that may be given one by one instead of as a tuple.
_VARIADIC = ("dims", "shape")

_SCALARS = (int, float, type(None))

_ALIASES = {
    "iadd": "add",
    "radd": "add",
    "isub": "sub",
    "rsub": "sub",
    "subtract": "sub",
    "imul": "mul",
    "rmul": "mul",
    "multiply": "mul",
    "truediv": "div",
    "itruediv": "div",
    "divide": "div",
    "true_divide": "div",
    "clip": "clamp",
    "negative": "neg",
    "absolute": "abs",
}

# It returns the tensor itself; to read the flag reads no numbers.
_ITSELF = ("requires_grad_", "identity")

# Libraries whose operators bear the names of the table.
_OPERATORS_OF = ("aten", "torchvision")

# Python functions that are not looked into, by qualified name, so that their packages need no import.
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
    return _canonical(_bare_name(target)) if _of_torch(target) else ""


def is_in_place(node: fx.Node) -> bool:
    """Whether a function or method call writes its result into its first operand."""
    name = node.target if isinstance(node.target, str) else _bare_name(node.target)
    if node.kwargs.get("inplace") is True or name in ("iadd", "isub", "imul", "itruediv"):
        return True
    return name.endswith("_") and not name.endswith("__")


def argument_reader(node: fx.Node) -> Argument:
    """Reads the arguments of a function or method call by position or name."""

    def arg(position: int, name: str, default: Any) -> Any:
        if position == 1 and name in _VARIADIC and len(node.args) > 2:
            return node.args[1:]  # x.permute(0, 2, 1) for x.permute((0, 2, 1))
        if position < len(node.args):
            return node.args[position]
        given = (other for other in (name, *_OF_NUMPY.get(name, ())) if other in node.kwargs)
        return node.kwargs.get(next(given, name), default)

    return arg


def numbers_read(node: fx.Node) -> Sequence[fx.Node]:
    """The operands whose numbers an operation uses, and not only their shape."""
    if node.op not in ("call_function", "call_method"):
        return node.all_input_nodes
    name = operation_name(node)
    if name in METADATA:
        return ()
    return data_operands(node) if name in LIKE_ANOTHER else node.all_input_nodes


def data_operands(node: fx.Node) -> tuple[fx.Node, ...]:
    """The input, or else the first operand that is not a scalar; of a list, the tensors in it."""
    operands = (*node.args, node.kwargs.get("input"), *node.kwargs.values())
    first = next((a for a in operands if not isinstance(a, _SCALARS)), None)
    if isinstance(first, list | tuple):
        return tuple(a for a in first if isinstance(a, fx.Node))
    return (first,) if isinstance(first, fx.Node) else ()


def _bare_name(target: Any) -> str:
    """A function's name; of an operator with the name of its overload (``conv2d.default``), that of the operator."""
    name = str(getattr(target, "__name__", ""))
    return name.partition(".")[0] if isinstance(target, OpOverload) else name


def _canonical(name: str) -> str:
    if name == _ITSELF[0]:
        return _ITSELF[1]
    bare = name.strip("_")
    return _ALIASES.get(bare, bare)


def _of_torch(target: Any) -> bool:
    if isinstance(
        target, types.BuiltinFunctionType | types.MethodDescriptorType | types.WrapperDescriptorType
    ):
        return True
    module = getattr(target, "__module__", None) or ""
    if module.startswith(
        "torch._ops."
    ):  # an operator of any library, whose name says nothing about what it does
        return module.removeprefix("torch._ops.") in _OPERATORS_OF
    return module in ("_operator", "operator", "math", "builtins") or module.split(".")[0] == "torch"
