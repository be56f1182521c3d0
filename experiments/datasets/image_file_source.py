"""Batches of image files: read and augmented by worker processes, standardized on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.datasets.folder import default_loader
from torchvision.transforms import v2

from experiments.datasets.batches import Standardizer
from experiments.datasets.image_files import ImageSet, Sample
from experiments.datasets.objectives import Classification, Objective
from experiments.datasets.sources import Batch
from experiments.distributed import SINGLE_PROCESS, World

__all__ = ["ImageFileSource"]

EVAL_BATCH = 256
CROP_RATIO = 224 / 256

# Channel statistics of ImageNet's training images, as everybody uses them.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class ImageFileSource:
    """Image files as a :class:`experiments.datasets.sources.DataSource`.

    Args:
        images: The files.
        pixels: Height and width of the network's input.
        workers: Number of processes that read images. With 0 the training process reads them.
        device: Device of the batches.
    """

    images: ImageSet
    pixels: int
    workers: int
    device: torch.device

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.images.classes)

    @property
    def objective(self) -> Objective:
        """Classification."""
        return Classification()

    def __len__(self) -> int:
        return len(self.images.train)

    def reduced(self, train_size: int | None, test_size: int | None) -> ImageFileSource:
        """Keep that many images, always the same ones, drawn from all classes. None keeps all.

        Raises:
            ValueError: if there are fewer images.
        """
        train, test = _subset(self.images.train, train_size), _subset(self.images.test, test_size)
        return replace(self, images=replace(self.images, train=train, test=test))

    def example_inputs(self, size: int) -> Tensor:
        """Give the first training images, without augmentation."""
        plain = self._plain()
        return self._ready(torch.stack([plain(default_loader(str(f))) for f, _ in self.images.train[:size]]))

    def train_batches(
        self, size: int, seed: int, epoch: int, world: World = SINGLE_PROCESS
    ) -> Iterator[Batch]:
        """Give shuffled images: crops of 8 to 100% of the area, resized, mirrored at random, standardized."""
        augment = v2.Compose(
            [v2.PILToTensor(), v2.RandomResizedCrop(self.pixels, antialias=True), v2.RandomHorizontalFlip()]
        )
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(self), generator=generator).tolist()
        draws = torch.randint(2**62, (len(self),), generator=generator).tolist()
        files = _Files(self.images.train, augment, draws)
        whole = order[: len(order) // size * size]
        # Batch sizes are multiples of the world size, so every process's parts line up batch by batch.
        return self._load(Subset(files, whole[world.rank :: world.size]), size // world.size)

    def eval_batches(self) -> Iterator[Batch]:
        """Give the test images in order."""
        return self._load(_Files(self.images.test, self._plain(), None), EVAL_BATCH)

    def _load(self, files: Dataset[tuple[Tensor, int]], size: int) -> Iterator[Batch]:
        pinned = self.device.type == "cuda"
        for pixels, labels in DataLoader(files, size, num_workers=self.workers, pin_memory=pinned):
            yield self._ready(pixels), labels.to(self.device, non_blocking=True)

    def _ready(self, pixels: Tensor) -> Tensor:
        mean, deviation = (
            torch.tensor(each, device=self.device)[:, None, None] for each in (MEAN, DEVIATION)
        )
        return Standardizer(mean, deviation)(pixels.to(self.device, non_blocking=True))

    def _plain(self) -> Callable[[object], Tensor]:
        if self.images.stretch_test:
            resize: list[object] = [v2.Resize((self.pixels, self.pixels), antialias=True)]
        else:
            resize = [v2.Resize(round(self.pixels / CROP_RATIO), antialias=True), v2.CenterCrop(self.pixels)]
        transform: Callable[[object], Tensor] = v2.Compose([v2.PILToTensor(), *resize])
        return transform


class _Files(Dataset[tuple[Tensor, int]]):
    """Files with their transform. An image's random draws depend on its own number, not on the worker."""

    def __init__(
        self, samples: Sequence[Sample], transform: Callable[[object], Tensor], draws: list[int] | None
    ) -> None:
        self.samples = samples
        self.transform = transform
        self.draws = draws

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file, label = self.samples[index]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0 if self.draws is None else self.draws[index])
            return self.transform(default_loader(str(file))), label


def _subset(samples: tuple[Sample, ...], size: int | None) -> tuple[Sample, ...]:
    if size is None:
        return samples
    if not 0 < size <= len(samples):
        raise ValueError(f"There are {len(samples)} images, but {size} were asked for.")
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))[:size]
    return tuple(samples[k] for k in order.tolist())
