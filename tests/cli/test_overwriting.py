"""A command refuses to write over a file that it reads, before it does anything."""

import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sgdph_fx import prepare
from sgdph_fx.cli.load import load_model
from tests.cli.conftest import Convert

RANDOM = ("--input", "2,3,6,6")


@pytest.fixture
def files(net: Path) -> Path:
    """A folder with the model, its weights, a plan, a checkpoint and a batch."""
    prepared = prepare(load_model(str(net)))
    Path("plan.json").write_text(prepared.report.plan.to_json(), encoding="utf-8")
    torch.save({"model": prepared.model.state_dict(), "epoch": 3}, "epoch.pt")
    save_file(load_model(str(net)).state_dict(), "model.safetensors")
    torch.save((torch.zeros(2, 3, 6, 6), torch.zeros(2, dtype=torch.long)), "batch.pt")
    os.link("epoch.pt", "link.pt")
    return net.parent


@pytest.mark.parametrize(
    "command",
    [
        "restore epoch.pt --plan plan.json --output epoch.pt",
        "restore epoch.pt --plan plan.json --output link.pt",
        "restore epoch.pt --plan plan.json --output plan.json",
        "convert net.py --weights model.safetensors --output .",
        "audit net.py --data batch.pt --plot batch.pt",
        "audit net.py --data batch.pt --weights model.safetensors --json model.safetensors",
        "audit net.py:Net --data batch.pt --json net.py",
        "audit net.py --data batch.pt --json a.svg --plot a.svg",
    ],
)
def test_what_a_command_reads_is_not_written_over(command: str, files: Path, convert: Convert) -> None:
    before = {path: path.read_bytes() for path in files.iterdir() if path.is_file()}
    result = convert(*command.split())
    assert result.exit_code == 2
    assert "Choose another name" in result.stderr
    assert {path: path.read_bytes() for path in files.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("options", [("--output", ""), ("--check", ""), ("--weights", "")])
def test_an_empty_name_is_not_the_current_folder(
    options: tuple[str, str], net: Path, convert: Convert
) -> None:
    before = [*net.parent.iterdir()]
    result = convert("net.py", *options)
    assert result.exit_code == 2
    assert "The name is empty." in result.stderr
    assert [*net.parent.iterdir()] == before


def test_older_results_are_replaced_as_before(files: Path, convert: Convert) -> None:
    Path("plain.pt").write_bytes(b"older")
    assert convert("restore", "epoch.pt", "--plan", "plan.json", "--output", "plain.pt").exit_code == 0
    assert torch.load("plain.pt").keys() == load_model("net.py").state_dict().keys()
    for _ in range(2):
        done = convert("net.py", "--weights", "model.safetensors", "--output", "out", "--quiet")
        assert done.exit_code == 0, done.stderr


def test_a_plot_without_matplotlib_is_refused_before_the_audit(
    net: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = convert("audit", "net.py", *RANDOM, "--plot", "a.png")
    assert result.exit_code == 6
    assert "A plot needs matplotlib" in result.stderr
    assert result.stdout == ""
