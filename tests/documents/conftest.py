"""A folder such as a reader of the pages works in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sgdph_fx.rules.modules import MODULES
from tests.cli.conftest import forget


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a folder the current one. Afterwards forget its modules, and the rules that a page registered."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    rules = dict(MODULES)
    yield tmp_path
    MODULES.clear()
    MODULES.update(rules)
    forget(tmp_path)
