"""Batches of image files, read and augmented by worker processes, standardised on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.datasets.folder import default_loader
from torchvision.transforms import v2

from experiments.batches import Standard
from experiments.image_files import ImageSet, Sample
from experiments.tasks import Batch
from experiments.team import ALONE, Team

__all__ = ["FileTask"]

JUDGING_BATCH = 256
CUT_SHARE = 224 / 256

# Channel statistics of ImageNet's training images, which all who train on it use.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class FileTask:
    """Image files, as :class:`experiments.tasks.Feed` wants them.

    Args:
        images: The files.
        pixels: Height and width that images are brought to.
        workers: Number of processes that read images; 0 reads in the training's own.
        device: Where the batches go.
    """

    images: ImageSet
    pixels: int
    workers: int
    device: torch.device

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.images.classes)

    def __len__(self) -> int:
        return len(self.images.train)

    def reduced(self, train_size: int | None, test_size: int | None) -> FileTask:
        """The same with that many images, always the same ones, of all classes; None is all."""
        train, test = _some(self.images.train, train_size), _some(self.images.test, test_size)
        return replace(self, images=replace(self.images, train=train, test=test))

    def example(self, size: int) -> Tensor:
        """The first training images, without augmentation."""
        plain = self._plain()
        return self._ready(torch.stack([plain(default_loader(str(f))) for f, _ in self.images.train[:size]]))

    def batches(self, size: int, seed: int, epoch: int, team: Team = ALONE) -> Iterator[Batch]:
        """Shuffled; a crop of 8 to 100% of the area brought to ``pixels``, mirrored or not; standardised."""
        augment = v2.Compose(
            [v2.PILToTensor(), v2.RandomResizedCrop(self.pixels, antialias=True), v2.RandomHorizontalFlip()]
        )
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(self), generator=generator).tolist()
        draws = torch.randint(2**62, (len(self),), generator=generator).tolist()
        files = _Files(self.images.train, augment, draws)
        whole = order[: len(order) // size * size]
        # Batches are multiples of the team, so that each process's part of every batch lies in step.
        return self._load(Subset(files, whole[team.rank :: team.size]), size // team.size)

    def judging(self) -> Iterator[Batch]:
        """The test images in order."""
        return self._load(_Files(self.images.test, self._plain(), None), JUDGING_BATCH)

    def _load(self, files: Dataset[tuple[Tensor, int]], size: int) -> Iterator[Batch]:
        pinned = self.device.type == "cuda"
        for pixels, labels in DataLoader(files, size, num_workers=self.workers, pin_memory=pinned):
            yield self._ready(pixels), labels.to(self.device, non_blocking=True)

    def _ready(self, pixels: Tensor) -> Tensor:
        mean, deviation = (
            torch.tensor(each, device=self.device)[:, None, None] for each in (MEAN, DEVIATION)
        )
        return Standard(mean, deviation)(pixels.to(self.device, non_blocking=True))

    def _plain(self) -> Callable[[object], Tensor]:
        if self.images.squeezed:
            resize: list[object] = [v2.Resize((self.pixels, self.pixels), antialias=True)]
        else:
            resize = [v2.Resize(round(self.pixels / CUT_SHARE), antialias=True), v2.CenterCrop(self.pixels)]
        transform: Callable[[object], Tensor] = v2.Compose([v2.PILToTensor(), *resize])
        return transform


class _Files(Dataset[tuple[Tensor, int]]):
    """Files and what to do with them; an image's draws depend on its own number alone, not on its worker."""

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


def _some(samples: tuple[Sample, ...], size: int | None) -> tuple[Sample, ...]:
    if size is None:
        return samples
    if not 0 < size <= len(samples):
        raise ValueError(f"There are {len(samples)} images; {size} were asked for.")
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))[:size]
    return tuple(samples[k] for k in order.tolist())
