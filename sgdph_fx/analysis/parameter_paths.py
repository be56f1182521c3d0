"""From a parameter to the operations that use it: through what keeps each of its numbers apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import fx, nn

from sgdph_fx.analysis.constants import called_on, constant_shape
from sgdph_fx.rules.calls import (
    CONCATENATIONS,
    METADATA,
    argument_reader,
    is_in_place,
    numbers_read,
    operation_name,
)

__all__ = ["BROADCASTS", "VIEWS", "Reader", "is_data", "readers_of", "tells_nothing", "writes_into"]

_NEAR = 32  # operations
_PARTS = frozenset({"chunk", "split", "split_with_sizes", "tensor_split"})
_RESHAPES = frozenset({"getitem", "narrow", "view", "reshape", "unsqueeze", "squeeze", "flatten"})
_AS_IT_IS = frozenset(
    {"to", "type", "type_as", "float", "double", "half", "bfloat16", "cpu", "cuda", "clone", "contiguous"}
)
VIEWS = _RESHAPES | _AS_IT_IS
"""The same numbers in another shape, dtype or place."""
BROADCASTS = frozenset({"expand", "expand_as", "broadcast_to"})
_FUNCTIONS = frozenset(
    {
        *("add", "sub", "mul", "div", "rdiv", "pow", "neg", "abs", "square", "sqrt", "rsqrt", "reciprocal"),
        *("exp", "expm1", "log", "log1p", "sigmoid", "tanh", "softplus", "logsigmoid", "clamp", "clamp_min"),
        *("clamp_max", "hardtanh", "relu", "relu6", "elu", "silu", "gelu", "hardsigmoid", "sin", "cos"),
    }
)
"""Of each number by itself, where no further operand is a tensor."""
_FUNCTION_MODULES = frozenset(
    {
        *(nn.Sigmoid, nn.Tanh, nn.Softplus, nn.LogSigmoid, nn.ReLU, nn.ReLU6, nn.ELU, nn.SiLU, nn.GELU),
        *(nn.Hardsigmoid, nn.Hardtanh, nn.LeakyReLU, nn.Identity),
    }
)
_ARITHMETIC = frozenset({"add", "sub", "mul", "div"})
_TOTALS = frozenset({"sum", "mean"})
_LINEAR = frozenset({"add", "sub", "neg", "stack", "copy", *_TOTALS, *CONCATENATIONS, *VIEWS, *BROADCASTS})
_WITHOUT_GRADIENT = frozenset({"detach", "data", "item", "tolist", "numpy"})


@dataclass(frozen=True, slots=True)
class Reader:
    """An operation that uses a parameter's numbers.

    Args:
        node: The operation.
        operand: What of it comes from the parameter.
        shape: That of the parameter there, aligned at the last dimension; None if it is not known.
    """

    node: fx.Node
    operand: fx.Node
    shape: tuple[int, ...] | None

    def meets(self, other: fx.Node) -> bool:
        """Whether another operand has the channels that the parameter has numbers for, as far as shapes are known.

        A mask token times a mask has them not: ``token * mask`` makes channels and scales none.
        """
        shape = other.meta.get("shape")
        if shape is None or self.shape is None:
            return True
        return all(
            size == 1 or (place <= len(shape) and shape[-place] == size)
            for place, size in enumerate(reversed(self.shape), start=1)
        )


def readers_of(
    source: fx.Node, parameter: nn.Parameter, modules: Mapping[str, nn.Module]
) -> Iterator[Reader]:
    """The operations that use a parameter, past reshapes, casts and functions of each number by itself.

    Those that tell nothing of what it is are left out.
    """
    waiting = [Reader(source, source, tuple(parameter.shape))]
    while waiting:
        reached = waiting.pop()
        for user in reached.node.users:
            if user.op == "output" or tells_nothing(reached.node, user):
                continue
            shape = _shape_after(reached, user)
            apart = (
                _keeps_apart(reached, user, parameter)
                or _meets_constants(reached, user, modules)
                or _is_function(user, modules)
            )
            if apart and shape != ():
                waiting.append(Reader(user, reached.node, shape))
            else:
                yield Reader(user, reached.node, reached.shape)


def tells_nothing(node: fx.Node, user: fx.Node) -> bool:
    """Whether an operation on a parameter, or on what is made of it, does not tell what the parameter is.

    It may pass no gradient: a look at the shape, or a detached copy, through which a start from data is written. Or it
    may add up all numbers for a term of the loss, as the log-determinant of a flow's scale, where they stay apart.
    """
    if node not in numbers_read(user):
        return True
    if user.op not in ("call_function", "call_method"):
        return False
    name = operation_name(user)
    if name in _TOTALS and argument_reader(user)(1, "dim", None) is None:
        return _is_only_added(user)
    return name in _WITHOUT_GRADIENT


def _is_only_added(total: fx.Node) -> bool:
    """Whether the way of a sum to the model's outputs is linear, so that no two of its terms meet."""
    seen, waiting = {total}, [total]
    while waiting:
        node = waiting.pop()
        for user in node.users:
            if user.op == "output" or user in seen or node not in numbers_read(user):
                continue
            if user.op not in ("call_function", "call_method"):
                return False
            name = operation_name(user)
            if name in _WITHOUT_GRADIENT:
                continue
            scaled = name == "mul" or (name == "div" and user.args[:1] == (node,))
            others = [other for other in user.all_input_nodes if other is not node]
            if not (name in _LINEAR or (scaled and all(map(_is_a_size, others)))):
                return False
            seen.add(user)
            waiting.append(user)
    return True


def _is_a_size(node: fx.Node) -> bool:
    if node.op not in ("call_function", "call_method"):
        return False
    read = node.all_input_nodes
    return operation_name(node) in METADATA or (bool(read) and all(map(_is_a_size, read)))


def writes_into(node: fx.Node, source: fx.Node) -> bool:
    """Whether ``node`` writes into the parameter that ``source`` reads; its result is the parameter."""
    return (
        source.op == "get_attr"
        and node.op != "call_module"
        and node.args[:1] == (source,)
        and is_in_place(node)
    )


def _keeps_apart(reached: Reader, user: fx.Node, parameter: nn.Parameter) -> bool:
    if user.op not in ("call_function", "call_method"):
        return False
    node, name = reached.node, operation_name(user)
    if name in CONCATENATIONS:
        # Swin V2 and BEiT join a bias of the queries and one of the values to the bias of one linear layer.
        return parameter.dim() == 1 and node.op == "get_attr"
    if user.args[:1] == (node,):
        if name in ("getitem", "narrow") or name in _PARTS:
            return user.all_input_nodes == [node]  # an index from data picks numbers as an embedding does
        if name in VIEWS or writes_into(user, node):
            return True
        if name in BROADCASTS:  # without shapes it may as well be a mask token, expanded to all places
            return "shape" in user.meta
    return name in _FUNCTIONS and user.all_input_nodes == [node]


def _is_function(user: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a module is a function of each number by itself, as ``self.gate = nn.Sigmoid()`` is."""
    return user.op == "call_module" and type(modules[str(user.target)]) in _FUNCTION_MODULES


def _meets_constants(reached: Reader, user: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether each number is added to, multiplied by, or divided by one that does not depend on the input.

    A norm in evaluation mode may fold its statistics into its scale: ``x * (weight * running_var.rsqrt())``.
    """
    node = reached.node
    if user.op not in ("call_function", "call_method") or operation_name(user) not in _ARITHMETIC:
        return False
    others = [other for other in user.all_input_nodes if other is not node]
    if len(others) != 1 or reached.shape is None:
        return False
    # DoRA divides its magnitudes by a norm of data before they scale anything.
    is_divided = operation_name(user) == "div" and user.args[:1] == (node,)
    if is_data(others[0]) and not is_divided:
        return False
    try:
        other = torch.empty(constant_shape(others[0], modules), device="meta")
        together = torch.empty(reached.shape, device="meta") + other
    except Exception:  # what it is, is known only when the model runs
        return False
    return together.numel() == prod(reached.shape)


def is_data(node: fx.Node) -> bool:
    """Whether a value depends on the model's input, and not on parameters and constants alone.

    A class token plus its own position is no activation with a bias. Only the nearest operations are looked at.
    """
    waiting, seen = [node], {node}
    while waiting and len(seen) < _NEAR:
        nearest = waiting.pop()
        if nearest.op != "get_attr" and (nearest.op == "placeholder" or not nearest.all_input_nodes):
            return True
        fresh = [operand for operand in nearest.all_input_nodes if operand not in seen]
        if nearest.op == "call_module" and fresh:
            return True
        seen.update(fresh)
        waiting.extend(fresh)
    return len(seen) >= _NEAR


def _shape_after(reached: Reader, user: fx.Node) -> tuple[int, ...] | None:
    """The parameter's shape behind an operation; () where one number of it has been picked."""
    if operation_name(user) not in _RESHAPES:
        return reached.shape
    shape = user.meta.get("shape")
    if shape is None and reached.shape is not None:
        before: Any = torch.empty(reached.shape, device="meta")
        with suppress(Exception):  # what the arguments are is known only when the model runs
            if reached.node.op != "get_attr" and operation_name(reached.node) in _PARTS:
                before = called_on(
                    reached.node, {next(iter(reached.node.all_input_nodes)): before}.__getitem__
                )
            shape = called_on(user, {reached.node: before}.__getitem__).shape
    if shape is None:
        return None
    return tuple(shape) if prod(shape) > 1 else ()
