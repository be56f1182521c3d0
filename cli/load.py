"""From what a person typed to the model: ``model.py``, ``model.py:name`` or ``package.module:name``."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from .candidates import find_candidates, needed_arguments
from .errors import ModelNotLoadedError

__all__ = ["load_function", "load_model"]

FORMS = "Write FILE.py, package.module, or either with :NAME."
TARGET = re.compile(r"(?P<place>.+?)(:(?P<name>[^:/\\]+))?")


def load_model(target: str) -> nn.Module:
    """Import ``target``, and call it unless it is a model already.

    The folder of a file, or the current folder for an importable name, is put on ``sys.path``, where
    ``python model.py`` has it too; the file is not run as ``__main__``.

    Raises:
        ModelNotLoadedError: if there is no model, if there are several to choose from, or if the code fails.
    """
    module, place, name = _resolve(target)
    found = _attribute(module, name, target) if name else _only_candidate(module, place)
    return _instance(found, target)


def load_function(target: str) -> Callable[..., Any]:
    """Import ``FILE.py:NAME`` or ``package.module:NAME`` as :func:`load_model` does, for something to be called.

    Raises:
        ModelNotLoadedError: if there is no such name, if it cannot be called, or if the code fails.
    """
    module, _, name = _resolve(target)
    found = _attribute(module, name, target) if name else module
    if not callable(found) or isinstance(found, type):
        kind = "class" if isinstance(found, type) else type(found).__name__
        raise ModelNotLoadedError(
            f"{target} is a {kind}, no function. Write FILE.py:NAME or package.module:NAME."
        )
    function: Callable[..., Any] = found
    return function


def _resolve(target: str) -> tuple[ModuleType, str, str | None]:
    """The module that ``target`` names, its place as written, and the name in it."""
    match = TARGET.fullmatch(target)
    if match is None:
        raise ModelNotLoadedError(f"{target!r} names no file and no module. {FORMS}")
    place, name = match["place"], match["name"]
    return _import_file(Path(place)) if _is_file(place) else _import_name(place), place, name


def _is_file(place: str) -> bool:
    return place.endswith(".py") or Path(place).is_file()


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ModelNotLoadedError(f"There is no file {path}.")
    path = path.resolve()
    return _import_from_package(path) or _import_alone(path)


def _import_from_package(path: Path) -> ModuleType | None:
    """The file as part of the package around it, so that its relative imports work; None if there is none."""
    packages = [*takewhile(lambda folder: (folder / "__init__.py").is_file(), path.parents)]
    if not packages:
        return None
    name = ".".join([*(folder.name for folder in reversed(packages)), path.stem])
    _prepend(packages[-1].parent)
    _prepend(path.parent)
    module = _import(name, str(path))
    return module if module.__file__ == str(path) else None


def _import_alone(path: Path) -> ModuleType:
    _prepend(path.parent)
    name = _free_module_name(path.stem)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelNotLoadedError(
            f"{path} is no Python file. MODEL is the code that makes the model; weights are given by --weights."
        )
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickling look their module up by name.
    sys.modules[name] = module
    with _their_code(f"Importing {path}"):
        spec.loader.exec_module(module)
    return module


def _free_module_name(stem: str) -> str:
    name = re.sub(r"\W", "_", stem)
    while name in sys.modules:
        name += "_"
    return name


def _import_name(name: str) -> ModuleType:
    _prepend(Path.cwd())
    if any(not part.isidentifier() for part in name.split(".")):
        raise ModelNotLoadedError(f"{name!r} is neither a file nor the name of a module. {FORMS}")
    try:
        return _import(name, f"the module {name}")
    except ModelNotLoadedError as error:
        absent = error.__cause__
        if isinstance(absent, ModuleNotFoundError) and f"{name}.".startswith(f"{absent.name}."):
            raise ModelNotLoadedError(
                f"There is no module {absent.name}: no {absent.name}.py in this folder, and none that is installed "
                "where sgdph-convert is."
            ) from absent
        raise


def _import(name: str, what: str) -> ModuleType:
    with _their_code(f"Importing {what}"):
        return importlib.import_module(name)


def _prepend(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


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


def _only_candidate(module: ModuleType, place: str) -> Any:
    candidates = find_candidates(module)
    if len(candidates) == 1:
        return candidates[0].value
    if candidates:
        choices = ", ".join(f"{place}:{c.name} ({c.kind})" for c in candidates)
        raise ModelNotLoadedError(f"{place} defines several models; pick one: {choices}.")
    raise ModelNotLoadedError(
        f"{place} defines no model: no nn.Module object, no function without required arguments that "
        f"returns one, no nn.Module class that is made without arguments.{_nearly(module)} What it imports counts when "
        f"it is picked by its name: {place}:NAME. Otherwise write a function that returns the model."
    )


def _nearly(module: ModuleType) -> str:
    classes = [value for value in vars(module).values() if _is_own_class(value, module)]
    needs = [f"{c.__name__} needs {', '.join(needed_arguments(c))}" for c in classes if needed_arguments(c)]
    return f" {'; '.join(needs)}." if needs else ""


def _is_own_class(value: Any, module: ModuleType) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module.__name__


def _instance(found: Any, target: str) -> nn.Module:
    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        raise ModelNotLoadedError(
            f"{target} is a {type(found).__name__}, neither a model nor something that makes one. Pick a model, or a "
            "function that returns one."
        )
    needed = needed_arguments(found)
    if needed:
        raise ModelNotLoadedError(
            f"{target} needs arguments ({', '.join(needed)}). "
            "Write a function without them that returns the model."
        )
    with _their_code(f"Calling {target}"):
        model = found()
    if not isinstance(model, nn.Module):
        raise ModelNotLoadedError(
            f"{target} returned a {type(model).__name__}, no nn.Module. It must return the model, and nothing else."
        )
    return model


@contextlib.contextmanager
def _their_code(doing: str) -> Iterator[None]:
    try:
        yield
    # A script without a main guard may well exit; that must not end the command in silence.
    except (Exception, SystemExit) as error:
        raise ModelNotLoadedError(
            f"{doing} failed: {type(error).__name__}: {error} (--traceback shows where)"
        ) from error
