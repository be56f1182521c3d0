"""Python functions that a symbolic trace writes as one node, because a placeholder cannot pass through them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from torch import fx, nn
from torch.fx._symbolic_trace import _wrapped_fns_to_patch

from sgdph_fx.rules.calls import wrapped_functions
from sgdph_fx.trace.undo import undo_all

__all__ = ["functions_as_nodes"]


@contextmanager
def functions_as_nodes(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Puts stand-ins in place of such functions, in the files of the modules' classes.

    Those are ``math``'s, those that the rules wrap, and those that somebody gave to ``torch.fx.wrap``. A stand-in
    passes on every call without a placeholder, so other threads get what they always get.
    """
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for names, name, function in [*_of_files(modules), *_of_fx()]:
            replaced.append((names, name, function))
            names[name] = _stand_in(function)
        yield
    finally:
        undo_all(
            lambda: [functools.partial(names.__setitem__, name, f) for names, name, f in reversed(replaced)]
        )


def _of_files(modules: Iterable[nn.Module]) -> Iterator[tuple[dict[str, Any], str, Any]]:
    functions = {id(f) for f in (*vars(math).values(), *wrapped_functions()) if callable(f)}
    files = {id(names): names for names in (vars(math), *map(_globals, set(map(type, modules))))}
    for names in files.values():
        for name, value in list(names.items()):
            if id(value) in functions and not name.startswith("_"):
                yield names, name, value


def _globals(kind: type[nn.Module]) -> dict[str, Any]:
    forward = getattr(kind, "forward", None)
    return forward.__globals__ if isinstance(forward, FunctionType) else {}


def _of_fx() -> Iterator[tuple[dict[str, Any], str, Any]]:
    for (_, name), names in list(_wrapped_fns_to_patch.items()):
        if name in names:
            yield names, name, names[name]


def _stand_in(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        proxies: list[fx.Proxy] = []
        fx.node.map_aggregate((args, kwargs), lambda value: _collect(value, proxies))
        if not proxies:
            return function(*args, **kwargs)
        return proxies[0].tracer.create_proxy("call_function", function, args, kwargs)

    return call


def _collect(value: Any, proxies: list[fx.Proxy]) -> Any:
    if isinstance(value, fx.Proxy):
        proxies.append(value)
    return value
