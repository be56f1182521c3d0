"""Where in the person's own code something happens."""

from __future__ import annotations

import functools
import inspect
import linecache
import os
import sys
import sysconfig
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from sgdph_fx.errors import TraceError

__all__ = [
    "calling_line",
    "failing_line",
    "lacks_forward",
    "outermost",
    "require_forward",
    "signature",
]

F = TypeVar("F", bound=Callable[..., Any])

# With a separator at the end: torchvision's path begins with torch's name, too.
_INTERNAL = tuple(str(folder) + os.sep for folder in (Path(torch.__file__).parent, Path(__file__).parents[1]))
_STANDARD_LIBRARY = sysconfig.get_path("stdlib") + os.sep
_PACKAGES = tuple(os.sep + folder + os.sep for folder in ("site-packages", "dist-packages"))

_OUTERMOST: set[types.CodeType] = set()


def outermost(function: F) -> F:
    """Marks a function that runs a model: what calls it is not part of the model's code."""
    _OUTERMOST.add(function.__code__)
    return function


def calling_line() -> str | None:
    """``file.py:line`` of the innermost frame of the model's code; None if PyTorch's own code made the call."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code not in _OUTERMOST:
        name = frame.f_code.co_filename
        if _is_the_persons(name):
            return f"{_short(name)}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def failing_line(error: BaseException) -> str:
    """The person's line that ``error`` came from, with its text: `` at net.py:12: `if x.sum() > 0:` ``.

    Returns:
        It with a space before it, to follow the error's name; empty if no line of the person's own is involved.
    """
    found = ""
    step = error.__traceback__
    while step is not None:
        name = step.tb_frame.f_code.co_filename
        if _is_the_persons(name):
            text = linecache.getline(name, step.tb_lineno).strip()
            found = f" at {_short(name)}:{step.tb_lineno}" + (f": `{text}`" if text else "")
        step = step.tb_next
    return found


def lacks_forward(model: nn.Module, error: BaseException | None) -> bool:
    """Whether ``error`` says that ``model`` itself has no forward, as a LightningModule or a ModuleDict may."""
    said = f'Module [{type(model).__name__}] is missing the required "forward" function'
    return isinstance(error, NotImplementedError) and said in str(error)


def require_forward(model: nn.Module, error: Exception) -> None:
    """Say what to do about a model without a forward, if ``error`` is that it has none.

    Raises:
        TraceError: if so.
    """
    if lacks_forward(model, error):
        raise TraceError(
            f"{type(model).__name__} has no forward, so it cannot be called. Prepare the network inside it (on the "
            "command line: name a function that returns it), or pass a function that runs the model as example_inputs."
        ) from error


def signature(model: nn.Module) -> str:
    """How the model is called, without annotations.

    >>> signature(nn.Bilinear(2, 2, 2))
    'forward(input1, input2)'
    """
    try:
        found = inspect.signature(model.forward)
    except (TypeError, ValueError):
        return "forward(...)"
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in found.parameters.values()]
    return f"forward{found.replace(parameters=plain, return_annotation=inspect.Signature.empty)}"


@functools.cache
def _is_the_persons(filename: str) -> bool:
    if filename.startswith((*_INTERNAL, "<")):
        return False
    return not filename.startswith(_STANDARD_LIBRARY) or any(part in filename for part in _PACKAGES)


@functools.cache
def _short(filename: str) -> str:
    """The last two parts: enough to find the file, and the same on every machine."""
    return "/".join(Path(filename).parts[-2:])
