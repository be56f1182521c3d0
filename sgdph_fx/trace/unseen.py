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
    """Which node made what, by the places of the results in autograd's graph. It keeps that graph alive."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, int], fx.Node] = {}

    def note(self, tensor: Tensor, node: fx.Node) -> None:
        """Write down that ``node`` made ``tensor``."""
        place = _place(tensor)
        if place is not None:
            self._made[place] = node

    def maker(self, tensor: Tensor) -> fx.Node | None:
        """The node that made a tensor, which may have come back as another object."""
        place = _place(tensor)
        return None if place is None else self._made.get(place)

    def sources(self, tensor: Tensor) -> list[fx.Node | Tensor]:
        """The nearest results and parameters that ``tensor`` was computed from, each once."""
        place = _place(tensor)
        waiting = [] if place is None else [place[0]]
        seen, found = set(waiting), dict[Any, None]()
        while waiting:
            for before in waiting.pop().next_functions:
                function, _ = before
                if before in self._made:
                    found[self._made[before]] = None
                elif hasattr(function, "variable"):
                    found[function.variable] = None
                elif function is not None and function not in seen:
                    seen.add(function)
                    waiting.append(function)
        return list(found)


def _place(tensor: Tensor) -> tuple[Any, int] | None:
    with torch._C.DisableTorchFunctionSubclass():
        function = tensor.grad_fn
        return None if function is None else (function, tensor.output_nr)
