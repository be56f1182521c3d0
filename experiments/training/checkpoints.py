"""Save a training's whole state after each epoch, so that it resumes with the same bits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sgdph_fx.report.files import replacing

__all__ = ["Checkpoint"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A file that holds a training's state, or does not exist yet.

    Batches and random draws depend on the seed and the epoch alone, so no random state is saved.

    Args:
        file: The file. Its folder is made at the first write.
    """

    file: Path

    def write(self, state: dict[str, Any]) -> None:
        """Replace the file by ``state`` in one step: a kill leaves the old file or the new one."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.file) as part:
            torch.save(state, part)

    def read(self, device: torch.device) -> dict[str, Any] | None:
        """Read the state, its tensors on ``device``; None if there is none."""
        if not self.file.exists():
            return None
        state: dict[str, Any] = torch.load(self.file, map_location=device, weights_only=True)
        return state

    def remove(self) -> None:
        """Delete the file, because the training is over."""
        self.file.unlink(missing_ok=True)
