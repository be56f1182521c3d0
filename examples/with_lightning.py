"""Lightning, automatic optimization: one class more than usual, `LightningMixin`.

Run it by `python -m examples.with_lightning`; it needs `pip install lightning`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from examples.data import batches, network
from sgdph_fx import SGDPH, LightningMixin, prepare

__all__ = ["Classifier", "train"]


class Classifier(LightningMixin, lightning.LightningModule):
    """A prepared model and its parameter groups."""

    def __init__(self, model: nn.Module, groups: list[dict[str, Any]]) -> None:
        super().__init__()
        self.model = model
        self.groups = groups

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = cross_entropy(self.model(images), labels)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> SGDPH:
        return SGDPH(self.groups, lr=0.02)


def train(epochs: int = 5, resume: Path | None = None, **trainer: Any) -> tuple[nn.Module, float]:
    """The trained model and its last loss; ``resume`` from a checkpoint; ``trainer`` as of ``lightning.Trainer``."""
    prepared = prepare(network(), torch.randn(2, 3, 12, 12))
    how: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, **trainer}
    run = lightning.Trainer(max_epochs=epochs, enable_model_summary=False, enable_progress_bar=False, **how)
    run.fit(Classifier(prepared.model, prepared.param_groups), batches(), ckpt_path=resume)
    return prepared.model, float(run.callback_metrics["loss"])


if __name__ == "__main__":
    print(f"loss {train()[1]:.4f}")
