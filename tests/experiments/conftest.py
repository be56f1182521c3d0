"""Run each of these tests on one thread: their networks are small, and the machine may be shared."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Apply to every test here."""
