"""How the memory of a model is kept while it is read: copied beforehand, or watched."""

from __future__ import annotations

import pytest

from sgdph_fx.trace import memory


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is copied where it is written to, as that of a large model is."""
    monkeypatch.setattr(memory, "COPIED_AT_ONCE", 0)
    monkeypatch.setattr(memory, "_SMALL", 0)


@pytest.fixture(params=["copied", "watched"])
def how(request: pytest.FixtureRequest) -> str:
    """Whether memory is copied beforehand, or where it is written to."""
    if request.param == "watched":
        request.getfixturevalue("watched")
    return str(request.param)
