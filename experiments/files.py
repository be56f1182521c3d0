"""Append whole lines to a log, so that a kill and other writers do no harm."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

__all__ = ["append_line"]


def append_line(path: Path, line: str) -> None:
    """Append one line in UTF-8. If a killed process left half a line, start a new one.

    Several processes may append to one file: each line is written in one piece.

    Args:
        path: The file. Its folder must exist.
        line: The line, without its end.
    """
    with path.open("a+b") as stream:
        start = "" if _ends_whole(stream) else "\n"
        stream.write(f"{start}{line}\n".encode())


def _ends_whole(stream: IO[bytes]) -> bool:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(size - 1, 0))
    return stream.read() in (b"", b"\n")
