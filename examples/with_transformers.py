"""Hugging Face's Trainer: one class more than usual, `TrainerMixin`.

Run it by `python -m examples.with_transformers`; it needs `pip install transformers accelerate`.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from examples.data import batches, network
from sgdph_fx import SGDPH, TrainerMixin, prepare

__all__ = ["SgdphTrainer", "train"]


class SgdphTrainer(TrainerMixin, Trainer):  # type: ignore[misc]
    """A trainer whose optimizer does the backward pass."""


class Classifier(nn.Module):
    """A model as the Trainer wants it: called with a batch by names, it returns the loss."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        scores = self.body(images)
        return {"loss": cross_entropy(scores, labels), "logits": scores}


class InOrder(Dataset[dict[str, Tensor]]):
    """The images, by names."""

    def __init__(self) -> None:
        self.images, self.labels = (torch.cat(parts) for parts in zip(*batches(), strict=True))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {"images": self.images[row], "labels": self.labels[row]}


class _Unshuffled(SgdphTrainer):
    def _get_train_sampler(self, *args: Any) -> None:
        return None


def train(
    epochs: int = 5, accumulate: int = 1, clip: float | None = None, resume: str | None = None, **more: Any
) -> tuple[nn.Module, float]:
    """The trained model and its last loss; ``resume`` from a checkpoint; ``more`` as of ``TrainingArguments``."""
    model = Classifier(network())
    images, labels = next(iter(batches()))
    prepared = prepare(model, {"images": images, "labels": labels})
    optimizer = SGDPH(prepared.param_groups, lr=0.02)
    steady = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            num_train_epochs=epochs,
            per_device_train_batch_size=16,
            gradient_accumulation_steps=accumulate,
            max_grad_norm=clip or 0.0,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            logging_strategy="epoch",
            **{"output_dir": folder, "save_strategy": "no", **more},
        )
        trainer = _Unshuffled(
            prepared.model, arguments, train_dataset=InOrder(), optimizers=(optimizer, steady)
        )
        trainer.train(resume_from_checkpoint=resume)
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return prepared.model.body, losses[-1]


if __name__ == "__main__":
    print(f"loss {train()[1]:.4f}")
