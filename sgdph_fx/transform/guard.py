"""What reading, copying and rewriting a model needs: to be alone with it, and a stack that is deep enough."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

from sgdph_fx.errors import ModelError

__all__ = ["one_at_a_time"]

# Two at once would put back each other's random numbers, and one model's flags.
_ONE = threading.RLock()

# Frames for each level of modules: a plain call takes 3 of them, one that is followed 5, a deep copy 6.
_FRAMES = 8
_SPARE = 1000


@contextmanager
def one_at_a_time(model: nn.Module) -> Iterator[None]:
    """Other threads wait here until this one is done with ``model``; a thread may enter again while it is inside.

    Meanwhile Python may nest calls deeply enough for the modules of ``model``.
    """
    with ExitStack() as stack:
        stack.enter_context(_ONE)
        before = sys.getrecursionlimit()
        stack.callback(sys.setrecursionlimit, before)
        # For all threads, but to be allowed more harms none.
        sys.setrecursionlimit(before + _FRAMES * nesting(model) + _SPARE)
        yield


def nesting(model: nn.Module) -> int:
    """How many modules stand one inside the other at most.

    Raises:
        ModelError: if a module holds itself.

    >>> nesting(nn.Sequential(nn.Sequential(nn.ReLU()), nn.ReLU()))
    3
    """
    depth: dict[nn.Module, int] = {}
    todo = [(model, 1)]
    while todo:
        module, level = todo.pop()
        if level <= depth.get(module, 0):
            continue
        if level > len(depth) + 1:  # more than all above it: one of them stands there twice
            raise ModelError(
                f"{_first_circle(model)!r} of {type(model).__name__} is a module that also holds it, and torch's own "
                "`train()` and `state_dict()` fail on such a circle. Keep a module that stands above in a tuple, "
                "`self.parent = (parent,)`, so that it is not registered as a part."
            )
        depth[module] = level
        todo.extend((child, level + 1) for child in module.children())
    return max(depth.values())


def _first_circle(model: nn.Module) -> str:
    """The name of a module that stands above itself."""
    todo: list[tuple[str, nn.Module, frozenset[int]]] = [("", model, frozenset())]
    seen: set[int] = set()
    while todo:
        name, module, above = todo.pop()
        if id(module) in above:
            return name
        if id(module) not in seen:
            seen.add(id(module))
            inside = above | {id(module)}
            todo.extend((f"{name}.{key}" if name else key, m, inside) for key, m in module.named_children())
    return ""
