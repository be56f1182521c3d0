"""An error at one line of the program's own code, and what PyTorch and Python look like after it."""

from __future__ import annotations

import ast
import functools
import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.nn.modules import module as torch_modules

import sgdph_fx
from sgdph_fx.transform import guard

__all__ = ["Ended", "damage_to_torch", "run"]

OURS = str(Path(sgdph_fx.__file__).parent)


@dataclass(frozen=True)
class Ended:
    """How many lines ran, and whether an error came out; the program may go on without what failed."""

    lines: int
    is_broken_off: bool


class _Injector:
    """Counts lines, and raises at one of them.

    What Python itself does not protect is not tried: the way out of a `with`, before it undoes anything, and the lines
    of a `finally`. Functions that those call are tried.
    """

    def __init__(self, at: int, error: BaseException) -> None:
        self.count, self._at, self._error = 0, at, error
        self._entered: dict[FrameType, set[int]] = {}

    def follow(self, frame: FrameType, event: str, arg: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(OURS) else None

    def _line(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line" and self._counts(frame):
            self.count += 1
            if self.count == self._at:
                sys.settrace(None)
                raise self._error
        return self._line

    def _counts(self, frame: FrameType) -> bool:
        headers, undoing = _lines_of(frame.f_code.co_filename)
        if frame.f_lineno in headers:
            entered = self._entered.setdefault(frame, set())
            if frame.f_lineno in entered:
                return False
            entered.add(frame.f_lineno)
        return frame.f_lineno not in undoing


@functools.cache
def _lines_of(file: str) -> tuple[frozenset[int], frozenset[int]]:
    """The lines at which a `with` begins, and those inside of a `finally`, or with nothing but `try`."""
    headers: set[int] = set()
    undoing: set[int] = set()
    for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.With):
            headers.update(range(node.lineno, node.body[0].lineno))
        elif isinstance(node, ast.Try):
            undoing.add(node.lineno)  # the word itself does nothing that could fail
            if node.finalbody:
                undoing.update(range(node.finalbody[0].lineno, (node.finalbody[-1].end_lineno or 0) + 1))
    return frozenset(headers), frozenset(undoing)


def run(act: Callable[[], Any], at: int = -1, error: BaseException | None = None) -> Ended:
    """Run ``act`` with ``error`` at line number ``at``."""
    injector = _Injector(at, error or MemoryError("injected"))
    before = sys.gettrace()
    sys.settrace(injector.follow)
    try:
        act()
    except type(error or MemoryError()):
        return Ended(injector.count, True)
    except Exception as wrapped:  # one of ours, which says what came in between
        if not type(wrapped).__module__.startswith("sgdph_fx"):
            raise
        return Ended(injector.count, True)
    finally:
        sys.settrace(before)
    return Ended(injector.count, False)


LIMIT = sys.getrecursionlimit()


def damage_to_torch() -> str:
    """What is not as it was in what belongs to the whole process; empty if all is."""
    states = {
        "the lock is taken": guard._ONE._is_owned(),  # type: ignore[attr-defined]
        "gradients are off": not torch.is_grad_enabled(),
        "inference mode is on": torch.is_inference_mode_enabled(),
        "a function mode is on": torch._C._len_torch_function_stack() > 0,
        "a dispatch mode is on": torch._C._len_torch_dispatch_stack() > 0,
        "a hook on all modules is left": bool(torch_modules._global_forward_pre_hooks),
        "the garbage collector is off": not gc.isenabled(),
        "the limit of recursion is another": sys.getrecursionlimit() != LIMIT,
    }
    return ", ".join(what for what, is_so in states.items() if is_so)
