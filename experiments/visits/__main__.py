"""``python -m experiments.visits --minutes 5 --data DIR --out DIR``: as much as fits into a few minutes of a GPU."""

from __future__ import annotations

import fnmatch
import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import torch

from experiments.files import append_line
from experiments.visits.jobs import Job, plan, read_rows
from experiments.visits.scales import log_name, tasks_at
from experiments.visits.workers import Visit, run_visit

__all__ = ["main"]

TRAINING = ("trial", "seed", "alignment")
RACE = ("trial", "seed")
SCALES = {"full": TRAINING, "core": RACE, "deep": RACE, "smoke": ("trial",), "tiny": TRAINING}
"""Scale → which phases it runs. ``smoke`` takes the first trial of each contender."""


@click.command(
    help="Tune and train every contender of every task, several at once on one device, the most important first. "
    "Each finished run is a line in gpu-visit.jsonl; core and deep have logs of their own. The same command "
    "goes on with what is not in there; what was running when the time was over is begun again."
)
@click.option("--minutes", type=float, default=5.0, show_default=True, help="Stop after so long.")
@click.option("--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/gpu-visit"), show_default=True)
@click.option("--workers", type=click.IntRange(0), default=8, show_default=True, help="Trainings at once.")
@click.option("--device", help="[default: cuda if there is a GPU, else cpu]")
@click.option("--scale", type=click.Choice(list(SCALES)), default="full", show_default=True)
@click.option("--only", multiple=True, default=("*",), help="TASK/CONTENDER to run, with wildcards.")
@click.option(
    "--timing", is_flag=True, help="Measure the time of a step instead, with the GPU for itself; --workers 1."
)
def main(
    minutes: float,
    data: Path,
    out: Path,
    workers: int,
    device: str | None,
    scale: str,
    only: tuple[str, ...],
    timing: bool,
) -> None:
    """Run the jobs, and say how far they came."""
    started = time.monotonic()
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    tasks = tasks_at(scale)
    jobs = [job for job in plan(tasks, ("timing",) if timing else SCALES[scale]) if _fits(job, only)]
    if scale == "smoke":
        jobs = [job for job in jobs if job.number == 0]
    out.mkdir(parents=True, exist_ok=True)
    log, machine = out / log_name(scale), _machine(chosen)

    def record(row: Mapping[str, Any]) -> None:
        append_line(log, json.dumps({**row, **machine, "scale": scale}))
        number = row.get("score", row.get("milliseconds"))
        shown = row.get("error") or ("diverged" if number is None else f"{number:.3f}")
        passed = time.monotonic() - started
        click.echo(
            f"{passed:6.1f} s  {row['task']} {row['contender']} {row['phase']} {row['number']}: {shown}"
        )

    before = [row for row in read_rows(log) if "error" not in row and row["scale"] == scale]
    visit = Visit(jobs, tasks, list(before), started + 60 * minutes, record)
    run_visit(visit, data, chosen, 1 if timing and workers else workers)
    done = {Job.of(row) for row in visit.rows if "error" not in row}
    click.echo(f"{len(done & set(jobs))} of {len(jobs)} jobs are done, {len(visit.rows) - len(before)} now.")


def _fits(job: Job, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(f"{job.task}/{job.contender}", pattern) for pattern in patterns)


def _machine(device: torch.device) -> dict[str, str]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"device": name, "torch": torch.__version__}


if __name__ == "__main__":
    main()
