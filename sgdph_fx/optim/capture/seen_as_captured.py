"""Code that asks whether it is captured, and goes another way then, is watched on that way: a recording takes it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["seen_as_captured"]

_LOCK = threading.Lock()
_TOLD: list[int] = []
_ASKED = torch.cuda.is_current_stream_capturing


def _is_capturing() -> bool:
    return threading.get_ident() in _TOLD or _ASKED()


@contextmanager
def seen_as_captured() -> Iterator[None]:
    """Tell this thread, and no other, that its stream is captured.

    Models of transformers look at their masks on the host, and leave that out in a capture.
    """
    with _LOCK:
        _TOLD.append(threading.get_ident())
        torch.cuda.is_current_stream_capturing = _is_capturing
    try:
        yield
    finally:
        with _LOCK:
            _TOLD.remove(threading.get_ident())
            if not _TOLD:
                torch.cuda.is_current_stream_capturing = _ASKED
