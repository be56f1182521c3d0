"""Which Python code runs where a function is called: its own, and that of whatever of yours it calls."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache, partial
from importlib.util import resolve_name
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn
from torch.autograd import Function

from sgdph_fx.optim.capture.code_words import Words, words_of

__all__ = [
    "HOOKS",
    "filled",
    "followed",
    "forward_of",
    "hooks_of",
    "is_of_torch",
    "is_your_class",
    "is_your_file",
    "is_yours",
    "members_of",
    "outside",
]

_NOT_FOLLOWED = frozenset({"torch", "torchvision", "functorch", "sgdph_fx", "numpy"})
HOOKS = frozenset({"_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"})
"""Where a module keeps its hooks."""
_CALLED_BY_NAME = frozenset(
    f"__{name}__"
    for name in (
        *("init", "new", "post_init", "init_subclass", "class_getitem", "set_name", "del", "repr", "str"),
        *("format", "hash", "dir", "sizeof", "getstate", "setstate", "reduce", "reduce_ex", "copy"),
        *("deepcopy", "setattr", "delattr", "setitem", "delitem"),
    )
)
"""Methods that Python calls on other occasions than those that compute a loss."""
_OF_AUTOGRAD = frozenset({"forward", "backward", "jvp", "vmap", "setup_context"})
"""What ``apply`` calls of a function of your own."""


@lru_cache(maxsize=1024)
def is_your_class(kind: Any) -> bool:
    """Whether a class is written in a file of yours, and is no module's."""
    return not issubclass(kind, nn.Module) and is_your_file(str(kind.__module__))


@lru_cache(maxsize=1024)
def is_your_file(name: str) -> bool:
    """Whether a Python module of that name is a file of yours, and no library's."""
    root = name.partition(".")[0]
    if root in _NOT_FOLLOWED or root in sys.stdlib_module_names:
        return False
    file = str(getattr(sys.modules.get(name), "__file__", ""))
    return "site-packages" not in file and "dist-packages" not in file


def is_yours(value: Any) -> bool:
    """Whether it is called, and is code of yours; modules are looked at for themselves."""
    if isinstance(value, (FunctionType, MethodType)):
        return _root(value) not in _NOT_FOLLOWED
    kind = type(value)
    if isinstance(value, (nn.Module, type)) or _root(kind) in _NOT_FOLLOWED:
        return False
    if isinstance(value, partial) or isinstance(getattr(kind, "__call__", None), FunctionType):  # noqa: B004
        return True
    return kind.__module__ == "functools" and isinstance(getattr(value, "__wrapped__", None), FunctionType)


def _root(written: Any) -> str:
    return str(written.__module__).partition(".")[0]


def members_of(value: Any, words: Words) -> list[FunctionType]:
    """The methods and properties that code may call of an object or a class, if its class is one of yours.

    Also those that Python calls without a name: ``config["rate"]`` calls ``__getitem__``.
    """
    kind: Any = value if isinstance(value, type) else type(value)
    if not is_your_class(kind):
        return []
    found: dict[FunctionType, None] = {}
    _follow_members(kind, words.attributes, found)
    for base in kind.__mro__[:-1]:  # all but object
        _follow_members(kind, _unnamed(base), found)
    if issubclass(kind, Function):
        _follow_members(kind, _OF_AUTOGRAD, found)
    return list(found)


@lru_cache(maxsize=1024)
def _unnamed(kind: type) -> frozenset[str]:
    if not is_your_file(kind.__module__):
        return frozenset()
    special = (name for name in vars(kind) if name.startswith("__") and name.endswith("__"))
    return frozenset(special) - _CALLED_BY_NAME


def outside(functions: Sequence[FunctionType], words: Words) -> Iterator[tuple[str, Any]]:
    """What the functions read from outside of themselves, with the names that it has there."""
    for function in functions:
        for name, _, value in filled(function):
            if name in words.variables:  # else it is only written
                yield name, value
        for number, value in enumerate(function.__defaults__ or ()):
            yield f"default {number}", value
        yield from (function.__kwdefaults__ or {}).items()
        for dots, name in words.imports:
            yield from _imported(function, dots, name)
    for place in {id(function.__globals__): function.__globals__ for function in functions}.values():
        yield from ((name, place[name]) for name in words.variables & place.keys())


def _imported(function: FunctionType, dots: int, name: str) -> Iterator[tuple[str, ModuleType]]:
    """What the function imports itself: the module, and the packages around it."""
    try:
        full = resolve_name("." * dots + name, function.__globals__.get("__package__"))
    except ImportError:
        return
    parts = full.split(".")
    for count in range(1, len(parts) + 1):
        module = sys.modules.get(".".join(parts[:count]))
        if module is not None and is_your_file(module.__name__):
            yield module.__name__, module


def hooks_of(modules: Iterable[nn.Module]) -> Iterator[Any]:
    """The hooks of modules and of their parameters that are code of yours."""
    for module in modules:
        own = module.__dict__
        for name in HOOKS:
            if own.get(name):
                yield from filter(is_yours, own[name].values())
        for parameter in own["_parameters"].values():
            if parameter is not None:
                yield from filter(is_yours, (parameter._backward_hooks or {}).values())
                yield from filter(is_yours, (parameter._post_accumulate_grad_hooks or {}).values())


def is_of_torch(kind: type) -> bool:
    """Whether a class is torch's own."""
    return kind.__module__.startswith("torch.")


def forward_of(kind: Any) -> tuple[FunctionType, ...]:
    """The forward of a module's class, and what it calls; nothing for torch's own classes."""
    return () if is_of_torch(kind) else _known_forward_of(kind, getattr(kind, "forward", None))


@lru_cache(maxsize=1024)
def _known_forward_of(kind: Any, forward: Any) -> tuple[FunctionType, ...]:
    return tuple(followed(forward, kind))


def followed(function: Any, kind: type | None) -> list[FunctionType]:
    """The function, and what it calls: other functions, and methods of the class that it belongs to.

    Args:
        function: A function; nothing is found for anything else.
        kind: The class whose method it is.
    """
    found: dict[FunctionType, None] = {}
    _follow(function, kind, found)
    return list(found)


def _follow(function: Any, kind: type | None, found: dict[FunctionType, None]) -> None:
    if not isinstance(function, FunctionType) or function in found:
        return
    found[function] = None
    words = words_of([function])
    values = [value for _, _, value in filled(function)]
    values += [function.__globals__[name] for name in words.variables & function.__globals__.keys()]
    for value in values:
        if isinstance(value, FunctionType) and is_yours(value):
            _follow(value, None, found)
    if kind is not None:
        _follow_members(kind, words.attributes, found)


def _follow_members(kind: type, names: frozenset[str], found: dict[FunctionType, None]) -> None:
    """Follow methods and properties of an object by name; each may call what it replaces in a parent."""
    for base in kind.__mro__[:-1]:  # all but object
        if not is_of_torch(base):
            for name in names & vars(base).keys():
                _follow(_function_of(vars(base)[name]), kind, found)


def _function_of(member: Any) -> Any:
    if isinstance(member, property):
        return member.fget
    if isinstance(member, (staticmethod, classmethod)):
        return member.__func__
    return member.func if isinstance(member, cached_property) else member


def filled(function: FunctionType) -> Iterator[tuple[str, Any, Any]]:
    """The variables around the function that have a value: name, cell and value."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell, cell.cell_contents
        except ValueError:  # a variable without a value yet
            continue
