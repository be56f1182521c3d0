"""From what a person typed to the model: ``model.py``, ``model.py:name`` or ``package.module:name(...)``."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import inspect
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from torch import nn

from .candidates import Candidate, find_candidates, has_main_guard, lacking
from .errors import ModelNotLoadedError
from .modules import import_module_of, their_code
from .target import Target, parse_target
from .zoos import factory_in_collection

__all__ = ["load_function", "load_model"]


def load_model(text: str, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """Import what ``text`` names, and call it unless it is a model already.

    The folder of a file, or the current folder for an importable name, is put on ``sys.path``, where
    ``python model.py`` has it too; the file is not run as ``__main__``.

    Args:
        text: A file, a module, or either with ``:NAME`` or ``:NAME(...)``; or a collection with a name in it.
        arguments: Keyword arguments for what makes the model.

    Raises:
        ModelNotLoadedError: if there is no model, if there are several to choose from, or if the code fails.
        UsageError: if the arguments in ``text`` are no literals.
    """
    target = parse_target(text, arguments or {})
    with _own_command_line(target):
        with their_code(f"Looking for {target.text}"):
            factory = factory_in_collection(target)
        if factory is not None:
            return _instance(factory, target)
        module = import_module_of(target)
        if target.name:
            return _instance(_attribute(module, target.name, target.text), target)
        candidate = _only_candidate(module, target)
        return _instance(candidate.value, _named(candidate, target))


def load_function(text: str) -> Callable[..., Any]:
    """Import ``FILE.py:NAME`` or ``package.module:NAME`` as :func:`load_model` does, for something to be called.

    Raises:
        ModelNotLoadedError: if there is no such name, if it cannot be called, or if the code fails.
    """
    target = parse_target(text, {})
    with _own_command_line(target):
        module = import_module_of(target)
    found = _attribute(module, target.name, text) if target.name else module
    if not callable(found) or isinstance(found, type):
        kind = "class" if isinstance(found, type) else type(found).__name__
        raise ModelNotLoadedError(
            f"{text} is a {kind}, no function. Write FILE.py:NAME or package.module:NAME."
        )
    function: Callable[..., Any] = found
    return function


@contextlib.contextmanager
def _own_command_line(target: Target) -> Iterator[None]:
    """What ``python model.py`` would see: a script that reads its arguments must not take those of this program."""
    arguments = sys.argv
    sys.argv = [target.place]
    try:
        yield
    finally:
        sys.argv = arguments


def _attribute(module: ModuleType, name: str, target: str) -> Any:
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            raise ModelNotLoadedError(f"{target}: there is no {part!r}.{_offer(module, name)}")
        value = getattr(value, part)
    return value


def _offer(module: ModuleType, name: str) -> str:
    near = difflib.get_close_matches(name, [n for n, value in vars(module).items() if callable(value)])
    if near:
        return f" The nearest {'name is' if len(near) == 1 else 'names are'} {', '.join(near)}."
    candidates = find_candidates(module)
    return f" Models there: {', '.join(map(str, candidates))}." if candidates else ""


def _only_candidate(module: ModuleType, target: Target) -> Candidate:
    place, candidates = target.place, find_candidates(module)
    fitting = [c for c in candidates if _fits(c, target)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        choices = ", ".join(f"{place}:{c.name} ({c.kind})" for c in fitting)
        raise ModelNotLoadedError(f"{place} defines several models; pick one: {choices}.")
    if needy := [c for c in candidates if c.kind != "object"]:
        raise ModelNotLoadedError(
            f"{place} defines no model that is made {'with these' if target.has_arguments else 'without'} arguments: "
            f"{'; '.join(_needs(c, target) for c in needy)}. {_with_arguments(needy[0], target)}"
        )
    raise ModelNotLoadedError(
        f"{place} defines no model: no nn.Module object, no function that returns one, no nn.Module class. What it "
        f"imports counts when you pick it by name: {place}:NAME. Otherwise write a function that returns the model."
        f"{_about_main_guard(module)}"
    )


def _about_main_guard(module: ModuleType) -> str:
    return ' Nothing under `if __name__ == "__main__":` runs.' if has_main_guard(module) else ""


def _fits(candidate: Candidate, target: Target) -> bool:
    if candidate.kind == "object":
        return not target.has_arguments
    return not lacking(candidate.value, target)


def _needs(candidate: Candidate, target: Target) -> str:
    return f"{candidate} needs {', '.join(lacking(candidate.value, target)) or 'others'}"


def _with_arguments(candidate: Candidate, target: Target) -> str:
    """A command line that gives what is needed."""
    named = dataclasses.replace(_named(candidate, target), positional=())
    return _command_line(named, lacking(candidate.value, target))


def _named(candidate: Candidate, target: Target) -> Target:
    return dataclasses.replace(target, text=f"{target.place}:{candidate.name}", name=candidate.name)


def _command_line(target: Target, needed: tuple[str, ...]) -> str:
    given = [f"--arg {shlex.quote(f'{name}={value}')}" for name, value in target.keywords.items()]
    missing = [f"--arg {name}=VALUE" for name in needed]
    return f"For example: sgdph-convert {shlex.quote(target.text)} {' '.join([*given, *missing])}"


def _instance(found: Any, target: Target) -> nn.Module:
    if isinstance(found, nn.Module) and not target.has_arguments:
        return found
    if isinstance(found, nn.Module):
        raise ModelNotLoadedError(
            f"{target.text} is a model already ({type(found).__name__}), so it takes no arguments. Give them to a "
            "function or class that makes one."
        )
    if not callable(found):
        raise ModelNotLoadedError(
            f"{target.text} is a {type(found).__name__}, neither a model nor something that makes one. "
            "Pick a model, or a function that returns one."
        )
    if needed := lacking(found, target):
        raise ModelNotLoadedError(
            f"{target.text} needs arguments ({', '.join(needed)}). {_command_line(target, needed)}"
            f"{_about_configs(needed)}"
        )
    _require_taken(found, target)
    with their_code(f"Calling {target.text}"):
        model = found(*target.positional, **target.keywords)
    if not isinstance(model, nn.Module):
        raise ModelNotLoadedError(
            f"{target.text} returned a {type(model).__name__}, no nn.Module. It must return the model and nothing else."
        )
    return model


def _require_taken(found: Callable[..., Any], target: Target) -> None:
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*target.positional, **target.keywords)
    except TypeError as error:
        raise ModelNotLoadedError(
            f"{target.text} takes {signature}, but not these arguments: {error}."
        ) from error


def _about_configs(needed: tuple[str, ...]) -> str:
    return (
        " A model of transformers is made from its configuration by hf:CLASS."
        if needed == ("config",)
        else ""
    )
