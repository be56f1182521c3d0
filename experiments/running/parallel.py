"""Train several runs at once, in processes that share one device and one log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.console import Console

from experiments.running.experiment_runner import ExperimentRunner
from experiments.running.recipe_files import Cell, DataConfig, Experiment
from experiments.running.results import tuning_configs, with_best_settings
from experiments.running.run_log import Run
from experiments.training.config import RunConfig

__all__ = ["Job", "run_in_parallel"]


@dataclass(frozen=True, slots=True)
class Job:
    """One run on its data."""

    data: DataConfig
    held_out: bool
    config: RunConfig


def run_in_parallel(
    experiment: Experiment,
    cells: Sequence[Cell],
    seeds: int,
    runner: ExperimentRunner,
    jobs: int,
    threads: int | None,
    on_done: Callable[[Run], object],
) -> None:
    """Train the cells' runs, ``jobs`` at a time: first all trials, then all seeds.

    Seed 0 of every cell comes before seed 1 of any. What the log holds is skipped, and interrupted runs resume.
    Times of runs that share a device can be compared within one launch only.

    Args:
        experiment: The recipe.
        cells: The cells to run, in this order.
        seeds: Number of seeds.
        runner: Where data, results and device are. Each process makes one like it.
        jobs: Number of processes.
        threads: Processor threads of each; None is torch's choice.
        on_done: Called with each run that is complete.
    """
    settings = (runner.data, runner.out, runner.device, runner.workers, threads)
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _start, settings) as pool:
        try:
            trials = _unique(
                Job(cell.data, True, config) for cell in cells for config in tuning_configs(experiment, cell)
            )
            tried = _run_all(pool, trials, on_done)
            _run_all(pool, _unique(_final_jobs(experiment, cells, seeds, trials, tried)), on_done)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _final_jobs(
    experiment: Experiment, cells: Sequence[Cell], seeds: int, trials: list[Job], tried: list[Run]
) -> Iterator[Job]:
    configs = []
    for cell in cells:
        own = [Job(cell.data, True, config) for config in tuning_configs(experiment, cell)]
        runs = [tried[trials.index(job)] for job in own]
        configs.append((cell, with_best_settings(experiment, cell, runs)))
    for seed in range(seeds):
        for cell, config in configs:
            yield Job(cell.data, False, replace(config, seed=seed))


def _run_all(pool: ProcessPoolExecutor, jobs: list[Job], on_done: Callable[[Run], object]) -> list[Run]:
    futures = [pool.submit(_run, job) for job in jobs]
    for future in as_completed(futures):
        on_done(future.result())
    return [future.result() for future in futures]


def _unique(jobs: Iterator[Job]) -> list[Job]:
    """Drop repeated jobs: a cell tuned as another has the other's trials, and at a small scale perhaps its runs."""
    found: list[Job] = []
    for job in jobs:
        if job not in found:
            found.append(job)
    return found


_runners: list[ExperimentRunner] = []
"""In a worker process, its own one."""


def _start(data: Path, out: Path, device: torch.device, workers: int, threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = True
    _runners.append(ExperimentRunner(data, out, device, Console(quiet=True), workers))


def _run(job: Job) -> Run:
    (run,) = _runners[0].runner(job.data, job.held_out).run([job.config], _runners[0].console)
    return run
