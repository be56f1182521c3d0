"""``python -m benchmarks.gpu``: time training steps on a GPU."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path

import click
import torch

from benchmarks.gpu.loops import LOOPS, LoopKind, is_available
from benchmarks.gpu.measure import Kernels, measure
from benchmarks.gpu.results import Result, markdown
from benchmarks.gpu.workloads import WORKLOADS
from sgdph_fx.transform import fused

__all__ = ["main"]

PARTS = tuple(dict.fromkeys(kind.part for kind in LOOPS))


@click.command(help="Time training steps on a GPU in bfloat16 autocast, as ratios to SGD's in the same run.")
@click.option("--network", "networks", type=click.Choice([*WORKLOADS]), multiple=True, default=[*WORKLOADS])
@click.option(
    "--what",
    "parts",
    type=click.Choice(PARTS),
    multiple=True,
    default=["main"],
    show_default=True,
    help="main: SGD and SGD-PH, eager and captured.",
)
@click.option(
    "--sample",
    type=click.IntRange(1),
    default=6,
    show_default=True,
    help="Refreshes that stand for a Hessian cycle.",
)
@click.option("--rounds", type=click.IntRange(1), default=2, show_default=True, help="The best counts.")
@click.option(
    "--seconds",
    type=click.FloatRange(0),
    default=None,
    help="Start no measurement after so many; all of them by default.",
)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/gpu.jsonl"), show_default=True)
@click.option("--profiles", type=click.Path(path_type=Path), help="Write the longest kernels to this file.")
def main(
    networks: tuple[str, ...],
    parts: tuple[str, ...],
    sample: int,
    rounds: int,
    seconds: float | None,
    device: str,
    out: Path,
    profiles: Path | None,
) -> None:
    """Append a line of JSON for each figure to a new file, and print a Markdown table of them."""
    started = time.monotonic()
    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError(
            "--device cuda: torch finds no GPU here (torch.cuda.is_available() is False); try --device cpu."
        )
    # The search for algorithms would be measured along with the first steps.
    torch.backends.cudnn.benchmark = False
    for file in filter(None, (out, profiles)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("", encoding="utf-8")
    results: list[Result] = []
    left_out: list[str] = []
    for network in networks:
        for kind in LOOPS:
            if kind.part not in parts:
                continue
            name = f"{network}, {kind.optimizer}, {kind.form}"
            late = seconds is not None and time.monotonic() - started > seconds
            why = "no time left" if late else "" if is_available(kind) else "pytorch_optimizer is missing"
            try:
                if not why:
                    _free()
                    for result in _measured(network, kind, torch.device(device), sample, rounds, profiles):
                        result.append_to(out)
                        results.append(result)
                        click.echo(f"{network}, {result.name}: {result.milliseconds:.2f} ms", err=True)
            except Exception as error:  # whatever it is, the next one may go well, and what is there is shown
                why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if why:
                left_out.append(f"{name}: {why}")
    click.echo(markdown(results))
    click.echo(_how(device, sample, rounds))
    if fused.failure():
        click.echo(f"Without Triton's kernels: {fused.failure()}")
    for line in left_out:
        click.echo(f"Not measured: {line}")


def _measured(
    network: str, kind: LoopKind, device: torch.device, sample: int, rounds: int, profiles: Path | None
) -> Iterator[Result]:
    workload = WORKLOADS[network]
    loop = kind.make(workload.network(device), workload.data(device))
    for each in measure(loop, device, sample=sample, rounds=rounds, captured=kind.form == "captured"):
        result = Result.of(network, kind.optimizer, kind.form, each)
        if profiles is not None and each.kernels is not None:
            _write_profile(profiles, f"{network}, {result.name}", each.kernels)
        yield result


def _write_profile(file: Path, title: str, kernels: Kernels) -> None:
    lines = [f"{ms:8.3f} ms {number:7.1f}  {name[:150]}" for name, ms, number in kernels.longest]
    with file.open("a", encoding="utf-8") as out:
        out.write("\n".join([title, *lines, "", ""]))


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _how(device: str, sample: int, rounds: int) -> str:
    machine = "CPU" if device == "cpu" else f"CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}"
    return (
        f"torch {torch.__version__}, {machine}; bfloat16 autocast, cudnn.benchmark off; {sample} refreshes stand for a "
        f"Hessian cycle, best of {rounds} rounds. Memory: the most that was allocated; of captured steps, what was "
        "reserved."
    )


if __name__ == "__main__":
    main()
