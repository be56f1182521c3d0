"""Measure peak memory by a process that only trains. Run as a module, this is that process."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.step.workload import batch_of, trainer

__all__ = ["peak_megabytes"]

ROOT = Path(__file__).parents[2]


def peak_megabytes(candidate: str, network: str, width: int, batch: int, device: str = "cpu") -> float:
    """Measure the peak over the first three steps. The first one refreshes the lowest layer, which costs most.

    It is the peak of the whole process; on a GPU, of the memory that torch's allocator gave out.

    Args:
        candidate: A key of :data:`benchmarks.step.candidates.CANDIDATES`.
        network: A key of :data:`experiments.networks.NETWORKS`.
        width: Its width.
        batch: Images in a batch.
        device: ``"cpu"`` or ``"cuda"``.
    """
    given = (candidate, network, str(width), str(batch), device)
    command = [sys.executable, "-W", "ignore", "-m", __name__, *given]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(done.stdout)


def _main(candidate: str, network: str, width: str, batch: str, device: str) -> None:
    torch.set_num_threads(1)
    own, data = trainer(candidate, network, int(width), device), batch_of(int(batch), device)
    for _ in range(3):
        own.step(data)
    print(_peak_of_process() if device == "cpu" else torch.cuda.max_memory_allocated() / 2**20)


def _peak_of_process() -> float:
    # Linux's ru_maxrss of a child includes what its parent held at the start. The status file does not.
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
    if found is not None:
        return int(found[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    _main(*sys.argv[1:])
