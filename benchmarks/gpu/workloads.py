"""The networks that the benchmark trains, each with the batch that it trains on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn

from experiments.networks import build

__all__ = ["WORKLOADS", "Workload"]


@dataclass(frozen=True, slots=True)
class Workload:
    """A network and the shape of its batch.

    Args:
        make: Build the network on the CPU.
        batch: Images in a batch.
        pixels: Height and width of an image.
        classes: Number of classes.
        channels_last: Whether network and images are in that memory format.
    """

    make: Callable[[], nn.Module]
    batch: int
    pixels: int
    classes: int
    channels_last: bool = True

    def network(self, device: torch.device) -> nn.Module:
        """Build the network on a device, in training mode, always with the same weights."""
        torch.manual_seed(0)
        return self.make().to(device).to(memory_format=self._format).train()

    def data(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Make noise: images ``(batch, 3, pixels, pixels)`` float32 and labels ``(batch,)`` int64."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(self.batch, 3, self.pixels, self.pixels, generator=generator)
        labels = torch.randint(self.classes, (self.batch,), generator=generator)
        return images.to(device).contiguous(memory_format=self._format), labels.to(device)

    @property
    def _format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format


WORKLOADS: Mapping[str, Workload] = {
    "resnet18": Workload(lambda: build("resnet18"), 128, 32, 10),
    "vgg19": Workload(lambda: build("vgg19"), 128, 32, 10),
    "resnet50": Workload(torchvision.models.resnet50, 64, 224, 1000),
    "convnext": Workload(torchvision.models.convnext_tiny, 64, 224, 1000),
    "vit": Workload(torchvision.models.vit_b_16, 64, 224, 1000, channels_last=False),
}
"""By name. The first two are in CIFAR form; VGG-19 has no normalization, so that SGD-PH decouples its weights."""
