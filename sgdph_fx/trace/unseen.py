"""What runs where no torch function shows it, found by the graph that autograd keeps of it.

TorchScript functions, extensions in C++, NumPy in an ``autograd.Function`` and other threads pass by every recorder.
Their results have a history all the same, which leads back to what they read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload, OpOverloadPacket

__all__ = ["History", "unseen_code", "watched_writes"]

_OPERATORS = (OpOverload, OpOverloadPacket)


def unseen_code(*read: Any) -> Any:
    """Stands in a graph for code that no torch function shows."""
    raise NotImplementedError


def watched_writes(func: Any, args: Any, kwargs: Any) -> Callable[[], list[Tensor]]:
    """A question for after a call: which of its arguments has it written into? Only operators are watched.

    One that returns nothing would be missed otherwise.
    """
    if not isinstance(func, _OPERATORS):
        return list
    before = [(value, value._version) for value in (*args, *kwargs.values()) if _counts_writes(value)]
    return lambda: [tensor for tensor, version in before if tensor._version != version]


def _counts_writes(value: Any) -> bool:
    return isinstance(value, Tensor) and not value.is_inference()


class History:
    """Which node made what, by the places of the results in autograd's graph.

    A place is a number that autograd counts up, not the function itself, which would keep the graph alive.
    """

    def __init__(self) -> None:
        self._made: dict[_Place, fx.Node] = {}

    def note(self, tensor: Tensor, node: fx.Node) -> None:
        """Write down that ``node`` made ``tensor``."""
        function = _function(tensor)
        if function is not None:
            self._made[_place(function, tensor.output_nr)] = node

    def maker(self, tensor: Tensor) -> fx.Node | None:
        """The node that made a tensor, which may have come back as another object."""
        function = _function(tensor)
        return None if function is None else self._made.get(_place(function, tensor.output_nr))

    def sources(self, tensor: Tensor) -> list[fx.Node | Tensor]:
        """The nearest results and parameters that ``tensor`` was computed from, each once."""
        last = _function(tensor)
        waiting = [] if last is None else [last]
        seen, found = set(waiting), dict[Any, None]()
        while waiting:
            for function, output in waiting.pop().next_functions:
                if function is None:
                    continue
                if hasattr(function, "variable"):
                    found[function.variable] = None
                elif (node := self._made.get(_place(function, output))) is not None:
                    found[node] = None
                elif function not in seen:
                    seen.add(function)
                    waiting.append(function)
        return list(found)


# The function's name, its number, those of what it read (each thread counts for itself), and which of its results.
_Place = tuple[str, int, tuple[int, ...], int]


def _function(tensor: Tensor) -> Any:
    try:
        with torch._C.DisableTorchFunctionSubclass():
            return tensor.grad_fn
    except RuntimeError:
        # A view that was made without a graph, of what was written to since, has none of its own.
        return None


def _place(function: Any, output: int) -> _Place:
    read = tuple(-1 if before is None else before._sequence_nr() for before, _ in function.next_functions)
    return function.name(), function._sequence_nr(), read, output
