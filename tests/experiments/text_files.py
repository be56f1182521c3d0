"""Write small packed texts."""

from __future__ import annotations

import lzma
from pathlib import Path

from experiments.datasets.packed import TEXT_FILES


def write_text_files(root: Path, text: bytes) -> None:
    """Write ``text`` to train on, and its first half to evaluate on."""
    for name, own in zip(TEXT_FILES, (text, text[: len(text) // 2]), strict=True):
        (root / name).write_bytes(lzma.compress(own))
