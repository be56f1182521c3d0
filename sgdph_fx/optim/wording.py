"""Lists of names in messages, and warnings that point at the line of yours that caused them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

__all__ = ["listed", "warn"]

_INSIDE = (str(Path(__file__).parents[1]), str(Path(warnings.__file__).parent / "contextlib.py"))
_TORCH = (
    "torch.optim.",
    "torch.utils._contextlib",
    "torch.amp.",
    "torch.autograd.",
    "torch._compile",
    "torch._dynamo.",
)


def listed(values: Iterable[object], shown: int | None = None) -> str:
    """The values as Python writes them; beyond ``shown`` of them only their number.

    >>> listed(["a", "b", "c", "d"], 2)
    "'a', 'b' and 2 more"
    """
    all_of_them = [repr(value) for value in values]
    shown = len(all_of_them) if shown is None else shown
    more = f" and {len(all_of_them) - shown} more" if len(all_of_them) > shown else ""
    return ", ".join(all_of_them[:shown]) + more


def warn(message: str) -> None:
    """A ``RuntimeWarning`` at the innermost line that is neither ours nor of torch's optimizers."""
    depth = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_inside(frame.f_code.co_filename, frame.f_globals):
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, RuntimeWarning, stacklevel=depth + 1)


def _is_inside(file: str, names: dict[str, object]) -> bool:
    return file.startswith(_INSIDE) or str(names.get("__name__", "")).startswith(_TORCH)
