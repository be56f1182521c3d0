"""The step benchmark on a GPU: the clock and the allocator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks.step.__main__ import main

pytestmark = pytest.mark.gpu


def test_the_command_measures_there(device: torch.device, tmp_path: Path) -> None:
    file = tmp_path / "step.json"
    arguments = ["--device", "cuda", "--width", "2", "--batch", "4", "--sample", "3", "--out", str(file)]
    done = CliRunner().invoke(main, [*arguments, "--only", "SGD-PH"])
    assert done.exit_code == 0, done.output
    assert torch.cuda.get_device_name() in done.output
    sgd, ph = json.loads(file.read_text())["rows"]
    assert 1.2 < ph["arithmetic"] < 1.5
    # The weights of so narrow a network are 700 kB; a process that uses a GPU is much larger.
    assert 0.5 < sgd["megabytes"] < 200
    assert sgd["milliseconds"] > 0
