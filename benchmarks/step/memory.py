"""Peak memory of training by a process that does nothing else, and, run as a module, that process."""

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


def peak_megabytes(contender: str, network: str, width: int, batch: int, device: str = "cpu") -> float:
    """The peak over three steps from the start, the first of which refreshes the lowest layer, the dearest one.

    Of the whole process; on a GPU of what torch's allocator gave out.
    """
    given = (contender, network, str(width), str(batch), device)
    command = [sys.executable, "-W", "ignore", "-m", __name__, *given]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(done.stdout)


def _main(contender: str, network: str, width: str, batch: str, device: str) -> None:
    torch.set_num_threads(1)
    lane, data = trainer(contender, network, int(width), device), batch_of(int(batch), device)
    for _ in range(3):
        lane.step(data)
    print(_peak_of_process() if device == "cpu" else torch.cuda.max_memory_allocated() / 2**20)


def _peak_of_process() -> float:
    # Linux counts into a child's ru_maxrss what its parent held when it started it; the status file does not.
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
    if found is not None:
        return int(found[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    _main(*sys.argv[1:])
