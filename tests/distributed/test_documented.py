"""The page on more than one process runs from top to bottom."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.distributed.conftest import ROOT


def test_the_page_runs_under_torchrun(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    checks = """
weights = [torch.empty_like(p.full_tensor()) for p in model.parameters()]
for p, mine in zip(model.parameters(), weights):
    mine.copy_(p.full_tensor())
    theirs = mine.clone()
    dist.broadcast(theirs, 0)
    assert torch.equal(mine, theirs)
assert optimizer.param_groups[0]["step"] == 3
__import__("pathlib").Path(f"held-{dist.get_rank()}").touch()
dist.barrier()
dist.destroy_process_group()
"""
    lines = "\n".join(blocks)
    assert lines.count("dist.destroy_process_group()\n") == 1
    script = tmp_path / "train.py"
    script.write_text(lines.replace("dist.destroy_process_group()\n", checks), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(script),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    # As in conftest.py, the exit code does not tell.
    assert {file.name for file in tmp_path.glob("held-*")} == {"held-0", "held-1"}, done.stderr
