"""The log of a set of runs: one JSON line an epoch, appended, and read again when runs go on."""

from __future__ import annotations

import contextlib
import json
import math
import os
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from experiments.training import Epoch, Recipe

__all__ = ["Log", "Run"]


@dataclass(frozen=True, slots=True)
class Run:
    """A recipe and its epochs, in order."""

    recipe: Recipe
    epochs: tuple[Epoch, ...]

    @property
    def complete(self) -> bool:
        """Whether it has come to its end, or diverged on the way."""
        return bool(self.epochs) and (len(self.epochs) == self.recipe.epochs or self.epochs[-1].diverged)


@dataclass(frozen=True, slots=True)
class Log:
    """A file of JSON lines, each a recipe, an epoch of it, and the images that both are about.

    Args:
        file: The file; its folder must be there.
        images: What else decides the runs: the data set and how many of its images. Lines about other
            images are passed over, so that one log may hold several kinds.
    """

    file: Path
    images: dict[str, Any]

    def append(self, recipe: Recipe, epoch: Epoch) -> None:
        """Write one line; a number that is not finite becomes null."""
        record = {**self.images, **asdict(recipe), **asdict(epoch)}
        line = json.dumps({key: _finite_or_none(value) for key, value in record.items()})
        with self.file.open("a+b") as stream:
            start = "" if _ends_whole(stream) else "\n"
            # In one piece: what another process appends comes before or after it.
            stream.write(f"{start}{line}\n".encode())

    def run(self, recipe: Recipe) -> Run:
        """What is logged of ``recipe``; of a run that was broken off and begun again, the last attempt."""
        epochs: list[Epoch] = []
        for line in self._lines():
            if self.images.items() <= line.items() and _take(Recipe, line) == recipe:
                epoch = _epoch(line)
                epochs = [*epochs[: epoch.epoch - 1], epoch]
        return Run(recipe, tuple(epochs))

    def _lines(self) -> tuple[dict[str, Any], ...]:
        if not self.file.exists():
            return ()
        stamp = self.file.stat()
        return _parsed(self.file, stamp.st_size, stamp.st_mtime_ns)


@lru_cache(maxsize=4)
def _parsed(file: Path, size: int, modified: int) -> tuple[dict[str, Any], ...]:
    """The file's lines; a log is asked for every run, so that reading it anew each time would take minutes."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        # A run that was killed may have left half a line; its epoch counts as not done.
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(line))
    return tuple(lines)


def _ends_whole(stream: IO[bytes]) -> bool:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(size - 1, 0))
    return stream.read() in (b"", b"\n")


def _take(kind: Any, line: dict[str, Any]) -> Any:
    """Fields that are not in the line, because it is older than they, are at their defaults."""
    return kind(**{field.name: line[field.name] for field in fields(kind) if field.name in line})


def _epoch(line: dict[str, Any]) -> Epoch:
    found: dict[str, Any] = {field.name: line.get(field.name) for field in fields(Epoch)}
    numbers: dict[str, Any] = {name: math.nan if number is None else number for name, number in found.items()}
    return Epoch(**numbers)


def _finite_or_none(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
