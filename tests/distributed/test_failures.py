"""A rank that dies or hangs ends the job within the timeout of its process group, and nothing saved is lost."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tests.distributed.conftest import ROOT
from tests.distributed.worker import Task

TIMEOUT = 10


def started(task: Task, folder: Path) -> list[subprocess.Popen[str]]:
    """Two processes with nobody who watches over them, unlike torchrun's."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.distributed.worker", str(folder), json.dumps(asdict(task))]
    return [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **where, "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def fail(name: str, fails: str, folder: Path) -> None:
    """Lose rank 1 in the middle of a job, and see the other one end."""
    task = Task((name,), checkpoints=str(folder), saved=(name,), fails=fails, timeout=TIMEOUT)
    survivor, failing = started(task, folder)
    try:
        while not (folder / f"{name}-6" / ".metadata").exists():
            assert survivor.poll() is None, survivor.communicate()[1]
            time.sleep(0.05)
        begun = time.monotonic()
        _, errors = survivor.communicate(timeout=TIMEOUT + 60)
    finally:
        failing.kill()
        failing.communicate()
    # The steps between, and the end of a process, take their time on a busy machine.
    assert time.monotonic() - begun < TIMEOUT + 30
    assert survivor.returncode != 0
    assert re.search("connection" if fails == "dies" else "timed out", errors, re.IGNORECASE), errors


def test_the_others_end_by_themselves_and_the_run_resumes_with_the_same_bits(
    launch: Any, two: Any, tmp_path: Path
) -> None:
    fail("fsdp", "dies", tmp_path)
    fail("ddp", "hangs", tmp_path)
    found = launch(2, Task(("fsdp", "ddp"), start=6, checkpoints=str(tmp_path)))
    for name, resumed in found.items():
        torch.testing.assert_close(resumed, two[name], rtol=0, atol=0)
