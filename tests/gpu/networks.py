"""Small networks of each kind, prepared, and batches for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from experiments.networks import build
from sgdph_fx import prepare
from tests.gpu.architectures import Lstm, Unet, swin

__all__ = ["OTHERS", "WIDTHS", "batches", "loss_of", "prepared"]

WIDTHS = {"resnet18": 4, "resnet50": 2, "vgg11": 8, "vgg19": 4, "convnext": 8, "vit": 8}
"""How wide each of those in `experiments` is."""

OTHERS: dict[str, Callable[[], nn.Module]] = {"swin": swin, "lstm": Lstm, "unet": Unet}
"""Networks that are built here."""


def prepared(name: str) -> tuple[Any, list[dict[str, Any]]]:
    """A network and its groups, in float64, on the CPU, always the same; no value is that of a fresh network."""
    torch.manual_seed(0)
    net = (OTHERS[name]() if name in OTHERS else build(name, width=WIDTHS[name])).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model, groups, _ = prepare(net, batches(1)[0][0], inplace=True)
    return model, groups


def batches(count: int, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    """Images ``(size, 3, 32, 32)`` in float64 and labels ``(size,)``, on the CPU."""
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, 3, 32, 32, dtype=torch.float64, generator=generator),
            torch.randint(10, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def loss_of(
    model: nn.Module, batch: tuple[Tensor, Tensor], through: Callable[..., Tensor] | None = None
) -> Tensor:
    """Cross-entropy, on the device and in the precision of the model, which ``through`` may stand for."""
    images, labels = batch
    like = next(model.parameters())
    return nn.functional.cross_entropy((through or model)(images.to(like)), labels.to(like.device))
