"""Examples in docstrings print what they claim."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import sgdph_fx

FOLDER = Path(sgdph_fx.__file__).parent
SHOWN = [
    ".".join(["sgdph_fx", *path.relative_to(FOLDER).with_suffix("").parts])
    for path in sorted(FOLDER.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", SHOWN)
def test_examples_in_docstrings_hold(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
