"""How the command ends when it cannot do what was asked: its exit code, and one paragraph."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from sgdph_fx.cli.load import load_model

Write = Callable[..., Path]
Convert = Callable[..., Result]

UNTRACEABLE = """
from torch import nn

class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)  # without a convolution there is no input to guess from

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else x
"""


def error_of(result: Result, code: int) -> str:
    """The message of a failed run, after checking that it is one paragraph on standard error."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    return lines[0]


def test_inputs_that_the_model_does_not_take_exit_with_4_and_what_it_takes(
    net: Path, convert: Convert
) -> None:
    message = error_of(convert(net, "--input", "2,5,8,8"), 4)
    assert f"Its forward takes (x), as in: sgdph-convert {net} --input x=2,3,32,32." in message


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["net.py", "--input", "1,3,x"],
        ["net.py", "--policy", "loose"],
        ["net.py", "--rule", "head=drop"],
        ["net.py", "--weights", "nowhere.pt"],
        ["net.py", "--output", "net.py"],
        ["net.py", "--no-such-option"],
    ],
)
def test_usage_errors_exit_with_2(arguments: list[str], net: Path, convert: Convert) -> None:
    result = convert(*arguments)
    assert result.exit_code == 2
    assert "Usage: sgdph-convert" in result.stderr


def test_a_missing_model_exits_with_3(net: Path, convert: Convert) -> None:
    assert "There is no file nowhere.py" in error_of(convert("nowhere.py"), 3)
    assert "there is no 'nix'" in error_of(convert(f"{net}:nix"), 3)


def test_an_untraceable_model_exits_with_4(write: Write, convert: Convert) -> None:
    error_of(convert(write(UNTRACEABLE)), 4)


def test_weights_that_do_not_fit_exit_with_5(net: Path, convert: Convert, tmp_path: Path) -> None:
    torch.save({"stem.weight": torch.zeros(4, 3, 5, 5)}, tmp_path / "w.pt")
    message = error_of(convert(net, "--weights", tmp_path / "w.pt"), 5)
    assert "stem.weight is 4x3x5x5 where the model has 4x3x3x3" in message


@pytest.mark.parametrize(
    "source",
    ["net = nn.ReLU()", "net = nn.Linear(2, 2).requires_grad_(False)", "net = nn.LazyLinear(2)"],
)
def test_a_refused_model_exits_with_6(source: str, write: Write, convert: Convert) -> None:
    error_of(convert(write(f"from torch import nn\n{source}\n")), 6)


def test_weights_that_are_not_finite_exit_with_6(net: Path, convert: Convert, tmp_path: Path) -> None:
    state = load_model(str(net)).state_dict()
    state["head.weight"][0] = torch.nan
    torch.save(state, tmp_path / "w.pt")
    assert "head.weight" in error_of(convert(net, "--weights", tmp_path / "w.pt"), 6)


def test_a_rule_that_matches_nothing_exits_with_6(net: Path, convert: Convert) -> None:
    assert "haed" in error_of(convert(net, "--rule", "haed=keep"), 6)


def test_anything_unexpected_exits_with_8(
    net: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("one\ntwo")

    monkeypatch.setattr("sgdph_fx.cli.convert._prepared", fail)
    message = error_of(convert(net), 8)
    assert "Unexpected ZeroDivisionError: one two" in message


def test_traceback_shows_where_and_keeps_the_code(write: Write, convert: Convert) -> None:
    result = convert(write("def net():\n    return 1 / 0\n"), "--traceback")
    assert result.exit_code == 3
    assert "Traceback (most recent call last)" in result.stderr
    assert re.search(r'File ".*net\.py", line 2, in net', result.stderr)
    assert result.stderr.strip().splitlines()[-1].startswith("Error: Calling ")


def test_a_failure_writes_nothing(write: Write, convert: Convert, tmp_path: Path) -> None:
    assert convert(write(UNTRACEABLE), "--output", tmp_path / "out").exit_code == 4
    assert not (tmp_path / "out").exists()
