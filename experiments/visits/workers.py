"""Processes that do jobs on one device, and the loop that hands jobs out until the time is over."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from experiments.visits.jobs import Job, Row, described, is_ready, settings_of
from experiments.visits.perform import Laboratory
from experiments.visits.tasks import Task

__all__ = ["Visit", "run_visit"]

FIRST_GUESS = 10.0
ATTEMPTS = 2


@dataclass
class Visit:
    """What is to be done, what is done, and until when.

    Args:
        jobs: All jobs, the most important first.
        tasks: The tasks by name.
        rows: Rows of the log, those of earlier visits too.
        deadline: When to stop, by ``time.monotonic()``.
        record: Takes each new row at once.
    """

    jobs: Sequence[Job]
    tasks: dict[str, Task]
    rows: list[Row]
    deadline: float
    record: Callable[[Row], object]
    started: set[Job] = field(default_factory=set)

    def next_job(self) -> tuple[Job, dict[str, float]] | None:
        """Choose the most important job that can begin and is likely to end in time, and mark it as begun."""
        done = {Job.of(row) for row in self.rows}
        for job in self.jobs:
            if job in self.started or job in done or not is_ready(job, self.tasks[job.task], done):
                continue
            settings = settings_of(job, self.tasks[job.task], self.rows)
            if settings is None or time.monotonic() + self._guess(job) > self.deadline:
                continue
            self.started.add(job)
            return job, settings
        return None

    def take(self, row: Row) -> None:
        """Write a row down."""
        self.rows.append(row)
        self.record(row)

    def _guess(self, job: Job) -> float:
        """Take the longest time of a job like it, so far."""
        alike = [
            row["seconds"]
            for row in self.rows
            if (row["task"], row["phase"]) == (job.task, job.phase) and "error" not in row
        ]
        return max(alike, default=FIRST_GUESS)


def perform(laboratory: Laboratory, job: Job, task: Task, settings: dict[str, float]) -> dict[str, Any]:
    """Do a job, and give its row. One that fails gives a row with its ``error``."""
    try:
        return described(job, settings=settings, **laboratory.perform(job, task, settings))
    except Exception as error:  # one training that fails must not end the others
        told = f"{type(error).__name__}: {error}"[:500]
        where = traceback.format_exc(limit=-4)[-1500:]
        return described(job, settings=settings, error=told, traceback=where, seconds=0.0)


def run_visit(visit: Visit, data: Path, device: torch.device, workers: int) -> None:
    """Do jobs until all are done or the time is over. Jobs that still run then are dropped.

    Args:
        visit: The jobs.
        data: Folder of the data.
        device: The device that all share.
        workers: Number of processes; 0 does the jobs one by one in this process.
    """
    if workers:
        _run_in_processes(visit, data, device, workers)
        return
    laboratory = Laboratory(data, device)
    while (chosen := visit.next_job()) is not None:
        visit.take(perform(laboratory, chosen[0], visit.tasks[chosen[0].task], chosen[1]))


@dataclass
class _Worker:
    """One process, and the job that it does."""

    process: BaseProcess
    pipe: Connection
    job: Job | None = None


def _run_in_processes(visit: Visit, data: Path, device: torch.device, count: int) -> None:
    workers = [_start(data, device) for _ in range(count)]
    failures = 0
    try:
        while time.monotonic() < visit.deadline:
            for worker in workers:
                _give(worker, visit)
            busy = [worker for worker in workers if worker.job is not None]
            if not busy:
                break
            left = max(0.0, visit.deadline - time.monotonic())
            for ready in wait([worker.pipe for worker in busy], timeout=left):
                worker = next(worker for worker in workers if worker.pipe is ready)
                if not _collect(worker, visit):
                    failures += 1
                    workers.remove(worker)
                    if failures <= ATTEMPTS * count:
                        workers.append(_start(data, device))
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join(timeout=5)


def _start(data: Path, device: torch.device) -> _Worker:
    context = get_context("spawn")
    own, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, data, str(device)), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, own)


def _give(worker: _Worker, visit: Visit) -> None:
    if worker.job is None and (chosen := visit.next_job()) is not None:
        job, settings = chosen
        worker.job = job
        worker.pipe.send((job, visit.tasks[job.task], settings))


def _collect(worker: _Worker, visit: Visit) -> bool:
    """Take the worker's row; False if it died, or a fault of the device has made it useless."""
    job, worker.job = worker.job, None
    assert job is not None
    try:
        row = worker.pipe.recv()
    except (EOFError, OSError):
        visit.take(described(job, settings={}, error="the process died", seconds=0.0))
        return False
    visit.take(row)
    if "CUDA" not in row.get("error", ""):
        return True
    worker.process.kill()
    return False


def _work(pipe: Connection, data: Path, device: str) -> None:
    torch.set_num_threads(1)
    laboratory = Laboratory(data, torch.device(device))
    while True:
        try:
            job, task, settings = pipe.recv()
        except EOFError:
            return
        pipe.send(perform(laboratory, job, task, settings))
