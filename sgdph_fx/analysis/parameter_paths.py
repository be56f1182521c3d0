"""From a parameter to the operations that use it: through what keeps each of its numbers apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import fx, nn

from sgdph_fx.rules.calls import argument_reader, is_in_place, numbers_read, operation_name

__all__ = ["VIEWS", "Reader", "readers_of"]

_RESHAPES = frozenset({"getitem", "view", "reshape", "unsqueeze", "squeeze", "flatten"})
_AS_IT_IS = frozenset(
    {"to", "type", "type_as", "float", "double", "half", "bfloat16", "cpu", "cuda", "clone", "contiguous"}
)
VIEWS = _RESHAPES | _AS_IT_IS
"""The same numbers in another shape, dtype or place."""
_BROADCASTS = frozenset({"expand", "expand_as", "broadcast_to"})
_FUNCTIONS = frozenset(
    {
        *("add", "sub", "mul", "div", "rdiv", "pow", "neg", "abs", "square", "sqrt", "rsqrt", "reciprocal"),
        *("exp", "expm1", "log", "log1p", "sigmoid", "tanh", "softplus", "logsigmoid", "clamp", "clamp_min"),
        *("clamp_max", "hardtanh", "relu", "relu6", "elu", "silu", "gelu", "hardsigmoid", "sin", "cos"),
    }
)
"""Of each number by itself, where no further operand is a tensor."""
_TOTALS = frozenset({"sum", "mean"})
_JOINS = frozenset({"cat", "concat", "concatenate"})
_WITHOUT_GRADIENT = frozenset({"detach", "data"})


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


def readers_of(source: fx.Node, parameter: nn.Parameter) -> Iterator[Reader]:
    """The operations that use a parameter, past reshapes, casts and functions of each number by itself.

    What passes it no gradient is left out, as it does not tell what the parameter is: its shape, a detached copy, a
    write into it by an initialization from data. So is the sum of such a function over all its numbers: the
    log-determinant of a flow's scale, or a penalty.
    """
    waiting = [Reader(source, source, tuple(parameter.shape))]
    while waiting:
        reached = waiting.pop()
        for user in reached.node.users:
            if user.op == "output":
                continue
            if user.op not in ("call_function", "call_method"):
                yield Reader(user, reached.node, reached.shape)
            elif reached.node not in numbers_read(user) or _tells_nothing(reached.node, user):
                continue
            elif _keeps_apart(reached, user, parameter):
                waiting.append(Reader(user, reached.node, _shape_after(reached, user)))
            else:
                yield Reader(user, reached.node, reached.shape)


def _tells_nothing(node: fx.Node, user: fx.Node) -> bool:
    name = operation_name(user)
    return name in _WITHOUT_GRADIENT or (name in _TOTALS and argument_reader(user)(1, "dim", None) is None)


def _keeps_apart(reached: Reader, user: fx.Node, parameter: nn.Parameter) -> bool:
    node, name = reached.node, operation_name(user)
    if name in _JOINS:
        # Swin V2 and BEiT join a bias of the queries and one of the values to the bias of one linear layer.
        return parameter.dim() == 1 and node.op == "get_attr"
    if user.args[:1] == (node,):
        if node.op == "get_attr" and is_in_place(user):
            return True  # a write, whose result is the parameter
        if name in VIEWS:
            return True
        if name in _BROADCASTS:
            return (
                "shape" in user.meta
            )  # without shapes it may as well be a mask token, expanded to all places
    return name in _FUNCTIONS and user.all_input_nodes == [node]


def _shape_after(reached: Reader, user: fx.Node) -> tuple[int, ...] | None:
    if operation_name(user) not in _RESHAPES:
        return reached.shape
    shape: Sequence[int] | None = user.meta.get("shape")
    return None if shape is None else tuple(shape)
