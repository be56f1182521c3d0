"""A recipe file's cells → runs: images opened when first needed, learning rates chosen, every seed trained."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rich.console import Console

from experiments.data import DATASETS
from experiments.file_feed import FileTask
from experiments.image_files import find
from experiments.outcomes import settled, trials
from experiments.recipe_files import Cell, Experiment, Images
from experiments.records import Run
from experiments.running import Bench
from experiments.team import ALONE, Team
from experiments.training import Recipe

__all__ = ["Laboratory", "chosen"]


def chosen(experiment: Experiment, patterns: Sequence[str]) -> list[Cell]:
    """The cells whose ``row/column`` one of the patterns matches, those to run first coming first.

    Raises:
        ValueError: if there is none.
    """
    cells = [
        cell for cell in experiment.cells if any(fnmatch.fnmatch(cell.name, pattern) for pattern in patterns)
    ]
    if not cells:
        raise ValueError(
            f"{experiment.name} has no cell like {' or '.join(patterns)}; "
            f"it has {', '.join(cell.name for cell in experiment.cells)}."
        )
    return sorted(cells, key=lambda cell: cell.priority)


@dataclass(frozen=True)
class Laboratory:
    """Where runs are made: a folder of data, a folder of results, a device.

    Args:
        data: Holds the data sets.
        out: Holds the log, the checkpoints, tables and plots.
        device: Where to train.
        console: For progress.
        workers: Processes that read image files; data sets in memory need none.
        team: The processes that train together.
    """

    data: Path
    out: Path
    device: torch.device
    console: Console
    workers: int = 0
    team: Team = ALONE
    _benches: dict[tuple[Images, bool], Bench] = field(default_factory=dict)

    def run(self, experiment: Experiment, cell: Cell, seeds: int) -> list[Run]:
        """All runs of a cell, tuned before if it has a grid; what the log holds is not run again."""
        recipe = self.tuned(experiment, cell)
        return self.bench(cell.images).run(list(_seeds(recipe, seeds)), self.console)

    def tuned(self, experiment: Experiment, cell: Cell) -> Recipe:
        """The cell's recipe with the best learning rate and weight decay of its grid."""
        grid = trials(experiment, cell)
        tried = self.bench(cell.images, held_out=True).run(grid, self.console) if grid else []
        return settled(cell, tried)

    def bench(self, images: Images, held_out: bool = False) -> Bench:
        """The bench with these images, opened at the first call."""
        key = images, held_out
        if key not in self._benches:
            self._benches[key] = self._open(images, held_out)
        return self._benches[key]

    def _open(self, images: Images, held_out: bool) -> Bench:
        if images.dataset in DATASETS:
            return Bench.in_memory(
                images.dataset,
                self.data,
                images.train_size,
                held_out,
                self.out,
                self.device,
                images.test_size,
                self.team,
            )
        if held_out:
            raise ValueError(
                f"{images.dataset} has no images held out for tuning; give its settings instead."
            )
        files = FileTask(find(images.dataset, self.data), images.pixels, self.workers, self.device)
        task = files.reduced(images.train_size, images.test_size)
        sizes = {"train_size": len(task), "test_size": len(task.images.test), "pixels": images.pixels}
        return Bench(
            task, {"dataset": images.dataset, **sizes, "judged_by": "test images"}, self.out, self.team
        )


def _seeds(recipe: Recipe, seeds: int) -> Iterator[Recipe]:
    return (replace(recipe, seed=seed) for seed in range(seeds))
