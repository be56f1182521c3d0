"""Hugging Face Accelerate: one call more than usual, `attach`.

Run it by `python -m examples.with_accelerate` or `accelerate launch`; it needs `pip install accelerate`.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.functional import cross_entropy

from examples.data import batches, network
from sgdph_fx import SGDPH, attach, prepare

__all__ = ["train"]


def train(epochs: int = 5, accumulate: int = 1, clip: float | None = None) -> tuple[nn.Module, float]:
    """The trained model and its last loss."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    prepared = prepare(network(), torch.randn(2, 3, 12, 12))
    model, optimizer, loader = accelerator.prepare(
        prepared.model, SGDPH(prepared.param_groups, lr=0.02), batches()
    )
    for _ in range(epochs):
        for images, labels in loader:
            with accelerator.accumulate(model):
                loss = attach(cross_entropy(model(images), labels), optimizer)
                accelerator.backward(loss)  # gradients, and the Hessian that is due
                if clip is not None and accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
    return accelerator.unwrap_model(model), loss.item()


if __name__ == "__main__":
    print(f"loss {train()[1]:.4f}")
