"""Train a recipe's cells: open data when first needed, tune, and train every seed."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rich.console import Console

from experiments.datasets.burgers import BurgersSource
from experiments.datasets.image_file_source import ImageFileSource
from experiments.datasets.image_files import find
from experiments.datasets.load import DATASETS
from experiments.distributed import SINGLE_PROCESS, World
from experiments.running.recipe_files import Cell, DataConfig, Experiment
from experiments.running.results import tuning_configs, with_best_settings
from experiments.running.run_log import Run
from experiments.running.runner import Runner
from experiments.training.config import RunConfig

__all__ = ["ExperimentRunner", "select_cells"]


def select_cells(experiment: Experiment, patterns: Sequence[str]) -> list[Cell]:
    """Select the cells whose ``row/column`` matches a pattern, in the order in which to run them.

    Args:
        experiment: The recipe.
        patterns: Names with shell wildcards.

    Raises:
        ValueError: if no cell matches.
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
class ExperimentRunner:
    """Where runs are made: a folder of data, a folder of results, a device.

    Args:
        data: Folder of the data sets.
        out: Folder of the log, the checkpoints, tables and plots.
        device: Device to train on.
        console: For progress.
        workers: Processes that read image files; data sets in memory need none.
        world: The processes that train together.
    """

    data: Path
    out: Path
    device: torch.device
    console: Console
    workers: int = 0
    world: World = SINGLE_PROCESS
    _runners: dict[tuple[DataConfig, bool], Runner] = field(default_factory=dict)

    def run(self, experiment: Experiment, cell: Cell, seeds: int) -> list[Run]:
        """Train all runs of a cell, tuned before if it has a grid. What the log holds is skipped."""
        config = self.tune(experiment, cell)
        configs = [replace(config, seed=seed) for seed in range(seeds)]
        return self.runner(cell.data).run(configs, self.console)

    def tune(self, experiment: Experiment, cell: Cell) -> RunConfig:
        """Train the trials of a cell, and give its run the best settings."""
        grid = tuning_configs(experiment, cell)
        trials = self.runner(cell.data, held_out=True).run(grid, self.console) if grid else []
        return with_best_settings(experiment, cell, trials)

    def runner(self, data: DataConfig, held_out: bool = False) -> Runner:
        """Give the runner on this data, opened at the first call."""
        key = data, held_out
        if key not in self._runners:
            self._runners[key] = self._open(data, held_out)
        return self._runners[key]

    def _open(self, data: DataConfig, held_out: bool) -> Runner:
        if data.dataset == "burgers":
            return self._open_burgers(data, held_out)
        if data.dataset in DATASETS:
            return Runner.in_memory(
                data.dataset,
                self.data,
                data.train_size,
                held_out,
                self.out,
                self.device,
                data.test_size,
                self.world,
            )
        if held_out:
            raise ValueError(f"{data.dataset} has no held-out images for tuning; give its settings instead.")
        files = ImageFileSource(find(data.dataset, self.data), data.pixels, self.workers, self.device)
        source = files.reduced(data.train_size, data.test_size)
        sizes = {"train_size": len(source), "test_size": len(source.images.test), "pixels": data.pixels}
        described = {"dataset": data.dataset, **sizes, "evaluated_on": "test images"}
        return Runner(source, described, self.out, self.world)

    def _open_burgers(self, data: DataConfig, held_out: bool) -> Runner:
        if data.train_size is None:
            raise ValueError("burgers needs train_size, the number of collocation points in an epoch.")
        source = BurgersSource(data.train_size, data.test_size, held_out, self.device)
        described = {
            "dataset": data.dataset,
            "train_size": data.train_size,
            "test_size": data.test_size,
            "evaluated_on": "held-out images" if held_out else "test images",
        }
        return Runner(source, described, self.out, self.world)
