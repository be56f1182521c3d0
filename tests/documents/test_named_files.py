"""Files that the maps name stand in the tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAPS = ("CONTRIBUTING.md", "docs/flow.md")


@pytest.mark.parametrize("page", MAPS)
def test_each_file_that_a_map_names_is_there(page: str) -> None:
    own = {
        path.name for folder in ("sgdph_fx", "cli", "tests", "docs") for path in (ROOT / folder).rglob("*.py")
    }
    named = set(re.findall(r"\b(\w+\.py)\b", (ROOT / page).read_text(encoding="utf-8")))
    assert len(named) > 20
    assert sorted(named - own) == []


@pytest.mark.parametrize("page", MAPS)
def test_each_path_that_a_map_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:\w+/)+(?:\w+\.\w+)?)`", text))
    assert paths
    roots = (
        ROOT,
        ROOT / "sgdph_fx",
        ROOT / "sgdph_fx" / "curvature" / "forward_over_reverse",
        ROOT / "tests",
    )
    assert sorted(path for path in paths if not any((root / path).exists() for root in roots)) == []
