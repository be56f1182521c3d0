"""Import the module that a model stands in, by its file or by its name."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path
from types import ModuleType

from .errors import ModelNotLoadedError
from .target import Target

__all__ = ["import_module_of", "their_code"]

_IMPORTED: dict[tuple[Path, int], ModuleType] = {}
FORMS = "Write FILE.py, package.module, or either with :NAME."


def import_module_of(target: Target) -> ModuleType:
    """The module that ``target`` names, by its file or by its name.

    Raises:
        ModelNotLoadedError: if there is none, or if its code fails.
    """
    if not target.place:
        raise ModelNotLoadedError(f"{target.text!r} names no file and no module. {FORMS}")
    return _import_file(Path(target.place)) if _is_file(target.place) else _import_name(target.place)


def _is_file(place: str) -> bool:
    return place.endswith(".py") or _holds(Path(place).is_file)


def _holds(is_there: Callable[[], bool]) -> bool:
    """Ask the system about a path; no, if no system takes its name: too long, or with a null byte."""
    try:
        return is_there()
    except (OSError, ValueError):
        return False


def _import_file(path: Path) -> ModuleType:
    if not _holds(path.is_file):
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
    """The file as a module of its own; once, as a loss and a model, or two models, may stand in one file."""
    stamp = (path, path.stat().st_mtime_ns)
    known = _IMPORTED.get(stamp)
    if known is not None and sys.modules.get(known.__name__) is known:
        return known
    module = _IMPORTED[stamp] = _run(path)
    return module


def _run(path: Path) -> ModuleType:
    _prepend(path.parent)
    name = _free_module_name(path.stem)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        notebook = f" {path.name} is a notebook: jupyter nbconvert --to script makes a Python file of it."
        raise ModelNotLoadedError(
            f"{path} is no Python file. MODEL is the code that makes the model; weights are given by --weights."
            f"{notebook if path.suffix == '.ipynb' else ''}"
        )
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickling look their module up by name.
    sys.modules[name] = module
    with their_code(f"Importing {path}"):
        try:
            spec.loader.exec_module(module)
        except ImportError as error:
            if "no known parent package" not in str(error):
                raise
            parts = (path.parent.name, path.stem)
            otherwise = f", or name it as a module from the folder around: {'.'.join(parts)}"
            raise ModelNotLoadedError(
                f"Importing {path} failed: it has a relative import and is in no package. Add an __init__.py to "
                f"{path.parent}{otherwise if all(map(str.isidentifier, parts)) else ''}."
            ) from error
    return module


def _free_module_name(stem: str) -> str:
    name = re.sub(r"\W", "_", stem)
    while name in sys.modules:
        name += "_"
    return name


def _import_name(name: str) -> ModuleType:
    _prepend(Path.cwd())
    if _holds(Path(name).is_dir) and not name.isidentifier():
        raise ModelNotLoadedError(
            f"{name} is a folder. Name the file in it that makes the model, or its module."
        )
    if any(not part.isidentifier() for part in name.split(".")):
        call = " A call ends with a parenthesis, as in 'model.py:build(width=32)'." if "(" in name else ""
        raise ModelNotLoadedError(f"{name!r} is neither a file nor the name of a module. {FORMS}{call}")
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
    with their_code(f"Importing {what}"):
        return importlib.import_module(name)


def _prepend(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@contextlib.contextmanager
def their_code(doing: str) -> Iterator[None]:
    """Run the person's code; an error there, or an exit, becomes a message that says what was being done."""
    try:
        yield
    except ModelNotLoadedError:
        raise
    # A script without a main guard may well exit; that must not end the command in silence.
    except SystemExit as error:
        raise ModelNotLoadedError(
            f"{doing} failed: SystemExit: {error}. Its code ends the program: take that out of it, or put it under "
            '`if __name__ == "__main__":` (--traceback shows where)'
        ) from error
    except Exception as error:
        raise ModelNotLoadedError(
            f"{doing} failed: {type(error).__name__}: {error}{_about_absent(error)} (--traceback shows where)"
        ) from error


def _about_absent(error: Exception) -> str:
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return ""
    return f". Install {error.name} where sgdph-convert is, or put its folder on PYTHONPATH"
