"""Hugging Face Accelerate: the optimizer inside does what `accelerator.backward` does.

Run it by `python -m examples.with_accelerate` or `accelerate launch`; it needs `pip install accelerate`.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from examples.data import batches, network
from sgdph_fx import SGDPH, prepare

__all__ = ["backward", "train"]


def backward(accelerator: Accelerator, optimizer: AcceleratedOptimizer, loss: Tensor) -> None:
    """In place of ``accelerator.backward(loss)``: gradients, and the Hessian that is due."""
    loss = loss / accelerator.gradient_accumulation_steps
    if accelerator.scaler is not None:
        loss = accelerator.scaler.scale(loss)
    optimizer.optimizer.backward(loss)


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
                loss = cross_entropy(model(images), labels)
                backward(accelerator, optimizer, loss)
                if clip is not None and accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
    return accelerator.unwrap_model(model), loss.item()


if __name__ == "__main__":
    print(f"loss {train()[1]:.4f}")
