"""Find what in a module could be the model."""

from __future__ import annotations

import ast
import inspect
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

from torch import nn

from .target import Target

__all__ = ["Candidate", "find_candidates", "has_main_guard", "lacking"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that is a model or makes one."""

    name: str
    kind: str
    value: Any

    def __str__(self) -> str:
        return f"{self.name} ({self.kind})"


def find_candidates(module: ModuleType) -> tuple[Candidate, ...]:
    """The models that ``module`` itself defines, in the order of definition, each under its first name.

    Nothing is called to find out, as any function might start a training: a function counts if its
    annotation says ``nn.Module``, or if it has none and returns something. If a model there is an object, its class,
    the classes of its parts, and parts that have names of their own do not count beside it.
    """
    imported = _imported_names(module)
    seen: dict[int, Candidate] = {}
    for name, value in vars(module).items():
        kind = None if name in imported or name.startswith("_") else _kind(value, module)
        if kind is not None:
            seen.setdefault(id(value), Candidate(name, kind, value))
    parts = [part for c in seen.values() if isinstance(c.value, nn.Module) for part in _made_of(c.value)]
    return tuple(c for c in seen.values() if not any(c.value is part for part in parts))


def _made_of(model: nn.Module) -> Iterator[Any]:
    for part in model.modules():
        yield type(part)
        if part is not model:
            yield part


def lacking(value: Any, target: Target) -> tuple[str, ...]:
    """Names of the arguments without which ``value`` cannot be called, and that ``target`` does not give."""
    try:
        parameters = [*inspect.signature(value).parameters.values()]
    except (TypeError, ValueError):
        return ()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    given = {*target.keywords, *(p.name for p in positional[: len(target.positional)])}
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = (p.name for p in parameters if p.default is p.empty and p.kind not in optional)
    return tuple(name for name in needed if name not in given)


def _kind(value: Any, module: ModuleType) -> str | None:
    if isinstance(value, nn.Module):
        return "object"
    if getattr(value, "__module__", None) != module.__name__:
        return None
    if isinstance(value, type) and issubclass(value, nn.Module):
        return "class"
    if isinstance(value, FunctionType) and _may_return_model(value):
        return "function"
    return None


def _may_return_model(function: FunctionType) -> bool:
    try:
        returned = typing.get_type_hints(function).get("return", Any)
    except Exception:
        returned = Any  # an annotation that cannot be resolved says nothing
    if returned is Any:
        return _returns_something(function)
    return isinstance(returned, type) and issubclass(returned, nn.Module)


def _returns_something(function: FunctionType) -> bool:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):
        return False
    return any(
        not (isinstance(value, ast.Constant) and value.value is None) for value in _returned(tree.body[0])
    )


def _returned(node: ast.AST) -> Iterator[ast.expr]:
    """What the function itself returns, not the functions and classes inside it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Return) and child.value is not None:
            yield child.value
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _returned(child)


def has_main_guard(module: ModuleType) -> bool:
    """Whether a part of ``module`` runs only as a script, as what stands under ``if __name__ == "__main__":`` does."""
    return any(
        isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
        for node in ast.walk(_source_tree(module))
    )


def _source_tree(module: ModuleType) -> ast.Module:
    try:
        return ast.parse(inspect.getsource(module))
    except (OSError, SyntaxError, TypeError):
        return ast.Module([], [])


def _imported_names(module: ModuleType) -> frozenset[str]:
    imports = (
        node for node in ast.walk(_source_tree(module)) if isinstance(node, ast.Import | ast.ImportFrom)
    )
    return frozenset(
        (alias.asname or alias.name.partition(".")[0]) for node in imports for alias in node.names
    )
