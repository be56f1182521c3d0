"""Choose the timm architectures of the table: ``python -m benchmarks.coverage.choose_timm``.

From each of timm's module files it takes the smallest model, and up to two more that are not too large: the smallest
ones with other sets of module types. This covers each file's variants (blur pooling, squeeze-excitation, other norms,
...) at the least cost. The choice is written to ``timm_models.txt``, so that it stays the same with another timm.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import timm
import torch
from rich.progress import track
from torch import nn

from sgdph_fx.report.files import write_text

__all__ = ["CHOICE", "LARGE", "MOST", "choose"]

CHOICE = Path(__file__).with_name("timm_models.txt")
MOST = 3
LARGE = 100_000_000


def choose(module: str) -> list[str]:
    """Choose models from ``timm/models/<module>.py``, the smallest first."""
    sized = sorted(_sizes(module), key=lambda found: found[:2])
    kinds: dict[frozenset[str], str] = {}
    for size, name, types in sized:
        if not kinds or size < LARGE:
            kinds.setdefault(types, name)
    return list(kinds.values())[:MOST]


def _sizes(module: str) -> Iterator[tuple[int, str, frozenset[str]]]:
    for name in timm.list_models(module=module):
        model = _without_storage(name)
        if model is not None:
            types = frozenset(type(m).__name__ for m in model.modules())
            yield sum(p.numel() for p in model.parameters()), name, types


def _without_storage(name: str) -> nn.Module | None:
    """Build a model without storage. None if it reads numbers while it is built; its file has others that do not."""
    try:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False)
    except (RuntimeError, NotImplementedError):
        return None


if __name__ == "__main__":
    chosen = [name for module in track(timm.list_modules(), "timm") for name in choose(module)]
    write_text(CHOICE, "\n".join(chosen) + "\n")
