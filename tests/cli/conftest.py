import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from click.testing import CliRunner, Result

from sgdph_fx.cli.main import main

NET = '''
import torch
from torch import nn


class Net(nn.Module):
    """One convolution of either verdict: stem is followed by a batch norm, head by nothing."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Conv2d(4, classes, 1)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.stem(x)))).mean((2, 3))
'''


COMMAND = [sys.executable, "-m", "sgdph_fx"]
KEPT = ("PATH", "PYTHONPATH", "HOME", "LANG", "LC_ALL", "OMP_NUM_THREADS")
ENVIRONMENT = {"COLUMNS": "40", **{key: os.environ[key] for key in KEPT if key in os.environ}}


class Convert(Protocol):
    def __call__(self, *arguments: str | Path) -> Result: ...


def forget(folder: Path) -> None:
    """Take what was imported from ``folder`` out of this process."""
    for name, module in [*sys.modules.items()]:
        if str(folder) in (getattr(module, "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Write a Python file into a folder of its own, the current one; afterwards nothing of it is imported any more."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)

    def write(source: str, name: str = "net.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
        return path

    yield write
    forget(tmp_path)


@pytest.fixture
def net(write: Callable[..., Path]) -> Path:
    return write(NET)


@pytest.fixture
def convert() -> Convert:
    """Run ``sgdph-convert`` in this process."""

    def convert(*arguments: str | Path) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="sgdph-convert")

    return convert


class Program(Protocol):
    def __call__(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Run ``sgdph-convert`` as a shell does, in the folder of the test's files."""

    def program(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        pipes = {} if "stdout" in options else {"stdout": subprocess.PIPE}
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=120,
            **{"env": ENVIRONMENT, **pipes, **options},
        )

    return program
