"""Configuration files: ``sgdph.toml``, or ``[tool.sgdph]`` in a ``pyproject.toml``, with the line of each error."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sgdph_fx.errors import ConfigError

__all__ = ["find_config", "read_config"]

NAME, PROJECT = "sgdph.toml", "pyproject.toml"
# In a pyproject.toml.
TABLE = ("tool", "sgdph")
_KEYS = ("policy", "rules", "silence")


def find_config(start: Path) -> Path | None:
    """The nearest file with a configuration, in ``start`` or a folder around it."""
    folder = start.resolve()
    for place in (folder, *folder.parents):
        if (place / NAME).is_file():
            return place / NAME
        project = place / PROJECT
        if project.is_file() and _is_ours(_text(project)):
            return project
    return None


def _is_ours(text: str) -> bool:
    """Whether a ``pyproject.toml`` has our table, however that is spelled; one that is no TOML, if it looks so."""
    try:
        return _holds(tomllib.loads(text), TABLE)
    except tomllib.TOMLDecodeError:
        return re.search(r"^\s*\[tool\.sgdph[\].]", text, re.MULTILINE) is not None


Made = TypeVar("Made")


def read_config(path: Path, make: Callable[..., Made]) -> Made:
    """The configuration in one file.

    Args:
        path: The file.
        make: Makes a configuration of keyword arguments; each part is tried by itself, to give errors their line.

    Raises:
        ConfigError: if it cannot be read, or something in it means nothing; the message names the line.
    """
    text = _text(path)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"Configuration file {path} is no TOML: {error}.") from error
    table = TABLE if path.name == PROJECT else ()
    reader = _Reader(path, text, table)
    if not _holds(data, table):
        raise reader.wrong("there is no table [tool.sgdph].", ())
    for key in table:
        data = data[key]
    return reader.config(data, make)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"Configuration file {path} cannot be read: {reason}.") from error


class _Reader:
    """Reads one file, and says in which line it went wrong."""

    def __init__(self, path: Path, text: str, table: Sequence[str]) -> None:
        self._path, self._lines, self._table = path, text.splitlines(), table

    def config(self, data: Any, make: Callable[..., Made]) -> Made:
        """The configuration of a table, once each part of it is one by itself."""
        if not isinstance(data, Mapping):
            raise self.wrong("[tool.sgdph] is no table.", ())
        for key in data:
            if key not in _KEYS:
                raise self.wrong(f"{key!r} is not known; the keys are {', '.join(_KEYS)}.", (key,))
        rules = data.get("rules", {})
        if not isinstance(rules, Mapping):
            raise self.wrong("rules is no table.", ("rules",))
        for pattern, value in rules.items():
            self._try(partial(make, rules={pattern: value}), "rules", pattern)
        for key in ("policy", "silence"):
            if key in data:
                self._try(partial(make, **{key: data[key]}), key)
        return make(**data)

    def _try(self, make: Callable[[], object], *keys: str) -> None:
        try:
            make()
        except (ConfigError, TypeError) as error:
            raise self.wrong(str(error), keys) from error

    def wrong(self, message: str, keys: Sequence[str]) -> ConfigError:
        """The error of what stands under ``keys`` in the table."""
        line = line_of(self._lines, (*self._table, *keys))
        place = f"{self._path}{'' if line is None else f':{line}'}"
        return ConfigError(f"Configuration file {place}: {message}")


def line_of(lines: Sequence[str], keys: Sequence[str]) -> int | None:
    """The number of the line in which a dotted key begins, which the parser does not tell; None if it has none.

    It is the line after the last beginning of the file that is TOML without the key.

    >>> line_of(["[rules]", '"head.*" = "keep"', 'stem = "keep"'], ["rules", "stem"])
    3
    """
    before = 0
    for count in range(1, len(lines) + 1):
        try:
            data: Any = tomllib.loads("\n".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            continue  # in the middle of a value
        if _holds(data, keys):
            return before + 1
        before = count
    return None


def _holds(data: Any, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(data, Mapping) or key not in data:
            return False
        data = data[key]
    return True
