"""What the log says about a recipe's cells: their runs, and the settings that tuning chose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.running.recipe_files import Cell, DataConfig, Experiment
from experiments.running.run_log import Run, RunLog
from experiments.training.config import RunConfig
from experiments.training.metrics import EpochMetrics

__all__ = ["CellResult", "collect_results", "tuning_configs", "with_best_settings"]


@dataclass(frozen=True, slots=True)
class CellResult:
    """A cell and its complete runs.

    Args:
        cell: The cell of the table.
        config: Its run with seed 0, with the chosen settings; None until tuning is complete.
        runs: One run for each seed, from 0 on without a gap.
        trials: The runs of its grid.
    """

    cell: Cell
    config: RunConfig | None
    runs: tuple[Run, ...]
    trials: tuple[Run, ...]

    def last(self, metric: Callable[[EpochMetrics], float]) -> list[float]:
        """Give a number of the last epoch, for each seed."""
        return [metric(run.epochs[-1]) for run in self.runs]

    @property
    def scores(self) -> list[float]:
        """Final score on the test set, for each seed."""
        return self.last(lambda epoch: epoch.test_accuracy)

    @property
    def diverged(self) -> int:
        """Number of runs that diverged."""
        return sum(run.epochs[-1].diverged for run in self.runs)

    def seconds(self, processor: bool) -> float:
        """Give the mean time of an epoch: processor time, which leaves out other programs, or wall time."""
        per_epoch = [
            (last.cpu_seconds if processor else last.seconds) / last.epoch
            for last in (run.epochs[-1] for run in self.runs)
        ]
        return fmean(per_epoch)


def collect_results(experiment: Experiment, file: Path, seeds: int | None = None) -> list[CellResult]:
    """Find in the log what has been run for each cell. No data set is needed.

    Args:
        experiment: The recipe.
        file: The log. Without such a file, nothing has been run.
        seeds: Seeds to look for; None is the recipe's number.
    """
    return [_result(experiment, cell, file, seeds or experiment.seeds) for cell in experiment.cells]


def tuning_configs(experiment: Experiment, cell: Cell) -> list[RunConfig]:
    """List the trials of a cell, or of the cell that it is tuned as. Empty if its settings are given."""
    searched = experiment.cell(cell.row, cell.tuned_as) if cell.tuned_as else cell
    tuning = experiment.tuning
    if tuning is None:
        return []
    epochs = min(tuning.epochs, searched.config.epochs)
    trial = replace(searched.config, epochs=epochs, seed=tuning.seed)
    return [_with_settings(trial, point) for point in searched.grid]


def with_best_settings(experiment: Experiment, cell: Cell, trials: Sequence[Run]) -> RunConfig:
    """Give the cell's run the settings of the trial that scored best on held-out data.

    Args:
        experiment: The recipe.
        cell: The cell.
        trials: The finished runs of :func:`tuning_configs`, in its order.
    """
    if not trials:
        return cell.config
    searched = experiment.cell(cell.row, cell.tuned_as) if cell.tuned_as else cell
    _, best = max(zip(trials, searched.grid, strict=True), key=lambda pair: _merit(pair[0]))
    return _with_settings(cell.config, best)


def _with_settings(config: RunConfig, point: Mapping[str, float]) -> RunConfig:
    """Set fields of the run by name; what is not a field is an option of the method."""
    known = {field.name for field in fields(RunConfig)}
    own: dict[str, Any] = {name: value for name, value in point.items() if name in known}
    options = {name: value for name, value in point.items() if name not in known}
    return replace(config, **own, options={**config.options, **options})


def _result(experiment: Experiment, cell: Cell, file: Path, seeds: int) -> CellResult:
    held_out = RunLog(file, _data_key(cell.data, "held-out images"))
    tried = [held_out.run(config) for config in tuning_configs(experiment, cell)]
    if not all(run.complete for run in tried):
        return CellResult(cell, None, (), tuple(tried))
    config = with_best_settings(experiment, cell, tried)
    log = RunLog(file, _data_key(cell.data, "test images"))
    runs: list[Run] = []
    for seed in range(seeds):
        run = log.run(replace(config, seed=seed))
        if not run.complete:
            break
        runs.append(run)
    return CellResult(cell, config, tuple(runs), tuple(tried))


def _data_key(data: DataConfig, evaluated_on: str) -> dict[str, Any]:
    """Give the part of a log line that identifies its data, as far as the recipe decides it."""
    sizes = {"train_size": data.train_size}
    if evaluated_on == "test images":
        sizes["test_size"] = data.test_size
    known = {name: size for name, size in sizes.items() if size is not None}
    return {"dataset": data.dataset, "evaluated_on": evaluated_on, **known}


def _merit(run: Run) -> tuple[float, float]:
    """Compare by score, then by low loss. A diverged run is worse than all others."""
    last = run.epochs[-1]
    return (-1e9, 0.0) if last.diverged else (last.test_accuracy, -last.test_loss)
