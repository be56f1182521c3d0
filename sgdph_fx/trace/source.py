"""Where in the person's own code something happens."""

from __future__ import annotations

import functools
import linecache
import os
import sys
import types
from pathlib import Path

import torch

__all__ = ["calling_line", "failing_line"]

# With a separator at the end: torchvision's path begins with torch's name, too.
_INTERNAL = tuple(str(Path(file).parent) + os.sep for file in (torch.__file__, __file__))


def calling_line() -> str | None:
    """``file.py:line`` of the innermost frame that is neither torch's nor the tracer's."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if _is_the_persons(name):
            return f"{_short(name)}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def failing_line(error: BaseException) -> str | None:
    """The person's line that ``error`` came from, with its text: ``net.py:12: if x.sum() > 0:``."""
    found = None
    step = error.__traceback__
    while step is not None:
        name = step.tb_frame.f_code.co_filename
        if _is_the_persons(name):
            text = linecache.getline(name, step.tb_lineno).strip()
            found = f"{_short(name)}:{step.tb_lineno}" + (f": `{text}`" if text else "")
        step = step.tb_next
    return found


@functools.cache
def _is_the_persons(filename: str) -> bool:
    return not filename.startswith((*_INTERNAL, "<"))


@functools.cache
def _short(filename: str) -> str:
    """The last two parts: enough to find the file, and the same on every machine."""
    return "/".join(Path(filename).parts[-2:])
