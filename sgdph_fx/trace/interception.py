"""Calls of a model's own modules, handed to whoever follows them; nothing of PyTorch itself is patched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["module_calls"]

# `nn.Module.__call__` looks here first. PyTorch leaves it out when it copies or pickles a module.
_SLOT = "_compiled_call_impl"

# Gets the module's path, the module, what runs it, and the arguments.
Follow = Callable[[str, nn.Module, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


@contextmanager
def module_calls(modules: Mapping[nn.Module, str], follow: Follow) -> Iterator[None]:
    """Sends each call of ``modules`` through ``follow`` meanwhile, if it is made by this thread.

    The module's hooks run inside of what ``follow`` gets, once, as ever.

    Args:
        modules: The modules to follow, with their paths.
        follow: Called in place of the module; returns what the call returns.
    """
    before = [(module, module.__dict__.get(_SLOT)) for module in modules]
    try:
        for module, own in before:
            module.__dict__[_SLOT] = _through(follow, modules[module], module, own or module._call_impl)
        yield
    finally:
        for module, own in before:
            if own is None:
                module.__dict__.pop(_SLOT, None)
            else:
                module.__dict__[_SLOT] = own


def _through(follow: Follow, path: str, module: nn.Module, own: Callable[..., Any]) -> Callable[..., Any]:
    thread = threading.get_ident()

    def call(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != thread:
            return own(*args, **kwargs)
        return follow(path, module, own, args, kwargs)

    return call
