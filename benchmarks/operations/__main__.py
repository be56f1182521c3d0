"""``python -m benchmarks.operations``: sweep the database in processes of their own, and write what came out."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import click
import torch

from benchmarks.operations.database import database
from benchmarks.operations.judge import judge
from benchmarks.operations.positions import positions

__all__ = ["main"]

DTYPES = (torch.float64, torch.complex128)


def sweep(number: int, most: int) -> Iterator[dict[str, object]]:
    """All outcomes for one operation of the database, by its number."""
    operation = database()[number]
    for dtype in DTYPES:
        if not operation.supports_dtype(dtype, "cpu") or not operation.supports_autograd:
            continue
        if dtype not in operation.supported_backward_dtypes("cpu"):
            continue
        torch.manual_seed(0)
        samples = operation.sample_inputs("cpu", dtype, requires_grad=True)
        for place, sample in enumerate(islice(samples, most)):
            what = {"operation": operation.formatted_name, "dtype": str(dtype), "sample": place}
            try:
                found = list(positions(operation, sample))
            except Exception as error:
                yield {**what, "position": "under", "verdict": "unmade", "detail": str(error)[:200]}
                continue
            for position in found:
                yield {**what, "position": position.name, **asdict(judge(position))}


@click.command()
@click.option("--samples", default=4, show_default=True, help="Samples of each operation and dtype.")
@click.option("--only", multiple=True, help="Operations whose name contains this.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("operations.jsonl"), show_default=True)
@click.option("--numbers", hidden=True, help="Sweep these operations, in this process.")
def main(samples: int, only: tuple[str, ...], out: Path, numbers: str | None) -> None:
    """Take products through every operation of torch's database, and say what is right, refused or wrong."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    operations = database()
    if numbers is not None:
        for number in map(int, numbers.split(",")):
            _append(out, {"operation": operations[number].formatted_name, "verdict": "begun"})
            for row in sweep(number, samples):
                _append(out, row)
        return
    out.write_text("")
    left = [n for n, op in enumerate(operations) if not only or any(o in op.formatted_name for o in only)]
    while left:
        before = _begun(out)
        words = ["--numbers", ",".join(map(str, left)), "--samples", str(samples), "--out", str(out)]
        done = subprocess.run([sys.executable, "-m", "benchmarks.operations", *words], check=False)
        begun = _begun(out) - before
        if done.returncode:
            last = operations[left[max(begun, 1) - 1]].formatted_name
            _append(out, {"operation": last, "verdict": "died", "detail": f"exit code {done.returncode}"})
        left = left[max(begun, 1) :]
    _show(out)


def _append(out: Path, row: dict[str, object]) -> None:
    with out.open("a") as file:
        file.write(json.dumps(row) + "\n")


def _begun(out: Path) -> int:
    return sum(json.loads(line)["verdict"] == "begun" for line in out.read_text().splitlines())


def _show(out: Path) -> None:
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    for verdict, count in Counter(row["verdict"] for row in rows).most_common():
        names = {row["operation"] for row in rows if row["verdict"] == verdict}
        click.echo(f"{verdict}: {count} positions of {len(names)} operations")
    for row in rows:
        if row["verdict"] in ("wrong", "crashed", "died"):
            click.echo(json.dumps(row))


if __name__ == "__main__":
    main()
