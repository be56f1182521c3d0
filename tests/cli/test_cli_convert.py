"""The whole command, on the real pipeline."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from click.testing import Result

from sgdph_fx.cli.load import load_model
from sgdph_fx.plan.plan import Plan
from sgdph_fx.transform.decouple import restore

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


def test_the_report_says_what_was_decoupled(net: Path, convert: Convert) -> None:
    result = convert(net)
    assert result.exit_code == 0, result.output
    assert "net.Net: 1 of 2 convolutions was decoupled" in result.stdout
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line}
    assert rows["stem"][1:5] == ["Conv2d", "normalized", "kept", "norm"]
    assert rows["head"][1:5] == ["Conv2d", "bare", "decoupled", "-"]
    # norm.weight, norm.bias, head.gain and head.bias, of 4 + 4 + 3 + 3 = 14 numbers, among
    # these, the stem's 4 * 3 * 9 = 108 and the head's direction of 12.
    assert (
        "4 of 6 trainable parameters get Hessian treatment, which is 14 of 134 numbers (10%)" in result.stdout
    )


def test_with_example_inputs_a_real_run_is_recorded(net: Path, convert: Convert) -> None:
    assert json.loads(convert(net, "--input", "2,3,8,8", "--json").stdout)["plan"]["way"] == "recorded"
    assert json.loads(convert(net, "--json").stdout)["plan"]["way"] == "symbolic"


def test_the_rewritten_weights_were_checked(net: Path, convert: Convert) -> None:
    check = json.loads(convert(net, "--json").stdout)["check"]
    assert check["max_relative_difference"] < 1e-6


def test_inputs_that_the_model_does_not_take_exit_with_4(net: Path, convert: Convert) -> None:
    error_of(convert(net, "--input", "2,5,8,8"), 4)


def test_json_is_all_that_standard_output_holds(write: Write, net: Path, convert: Convert) -> None:
    path = write(net.read_text() + "\nprint('loading...')\n", "chatty.py")
    result = convert(path, "--json")
    data = json.loads(result.stdout)
    assert "loading..." in result.stderr
    assert data["summary"]["decoupled"] == 1
    assert [(row["name"], row["verdict"]) for row in data["plan"]["convolutions"]] == [
        ("stem", "normalized"),
        ("head", "bare"),
    ]


def test_policy_and_rules_reach_the_plan(write: Write, net: Path, convert: Convert) -> None:
    result = convert(
        net, "--policy", "direct", "--rule", "head=keep", "--rule", "norm.*=first-order", "--json"
    )
    plan = json.loads(result.stdout)["plan"]
    assert plan["policy"] == "direct"
    assert [row["decouple"] for row in plan["convolutions"]] == [False, False]
    assert {row["name"]: row["order"] for row in plan["parameters"]}["norm.weight"] == 1


def test_output_can_be_read_back_into_a_fresh_model(net: Path, convert: Convert, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    torch.manual_seed(17)
    original = load_model(str(net))
    torch.save(original.state_dict(), weights)
    folder = tmp_path / "out"
    result = convert(net, "--weights", weights, "--output", folder)
    assert result.exit_code == 0, result.output
    assert f"to {folder}." in result.stderr

    plan = Plan.from_json((folder / "plan.json").read_text())
    fresh = plan.apply(load_model(str(net)))
    fresh.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(fresh.eval()(x), original.eval()(x))
    torch.testing.assert_close(restore(fresh).state_dict(), original.state_dict())


def test_output_groups_hold_each_trainable_parameter_once(
    net: Path, convert: Convert, tmp_path: Path
) -> None:
    assert convert(net, "--output", tmp_path / "out").exit_code == 0
    groups = json.loads((tmp_path / "out" / "param_groups.json").read_text())["groups"]
    plan = Plan.from_json((tmp_path / "out" / "plan.json").read_text())
    orders = {name: group["order"] for group in groups for name in group["params"]}
    assert orders == {row.name: row.order for row in plan.parameters}
    assert sum(len(group["params"]) for group in groups) == len(plan.parameters)
    assert all({"order", "role", "name", "index"} <= group.keys() for group in groups)


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


def test_anything_unexpected_exits_with_1(
    net: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("one\ntwo")

    monkeypatch.setattr("sgdph_fx.cli.convert.prepare", fail)
    message = error_of(convert(net), 1)
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


def run(
    arguments: list[str], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sgdph_fx.cli.main", *arguments],
        cwd=folder,
        env={**environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def environment() -> dict[str, str]:
    kept = ("PATH", "PYTHONPATH", "HOME")
    return {"COLUMNS": "40", **{key: os.environ[key] for key in kept if key in os.environ}}


def test_a_real_pipe_gets_whole_lines_without_colour_and_the_same_files_each_time(
    net: Path, environment: dict[str, str]
) -> None:
    one, two = (run(["net.py", "--output", folder], net.parent, environment) for folder in ("one", "two"))
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    assert one.stdout == two.stdout
    assert "\x1b[" not in one.stdout
    assert max(map(len, one.stdout.splitlines())) > 80
    files = sorted(path.name for path in (net.parent / "one").iterdir())
    assert len(files) == 5
    for name in files:
        assert (net.parent / "one" / name).read_bytes() == (net.parent / "two" / name).read_bytes()


def test_a_pipe_without_greek_letters_gets_them_escaped(
    write: Write, net: Path, environment: dict[str, str]
) -> None:
    source = net.read_text().replace("self.head", "self.γ").replace("Net", "Netz")
    path = write(source, "greek.py")
    done = run([path.name], path.parent, {**environment, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\\u03b3 +Conv2d +bare", done.stdout, re.MULTILINE)


def test_a_reader_that_stops_early_is_no_error(net: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "sgdph_fx.cli.main", "net.py", "--json"]
    process = subprocess.Popen(
        command, cwd=net.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait()


def test_a_real_failure_has_its_code_and_one_line(net: Path, environment: dict[str, str]) -> None:
    done = run(["net.py:nix"], net.parent, environment)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "Error: net.py:nix: there is no 'nix'. Models there: Net (class).\n"


def test_help_has_examples_and_every_exit_code(convert: Convert) -> None:
    text = convert("--help").stdout
    assert "sgdph-convert model.py:small --input 1,3,32,32 --output converted" in text
    assert [int(code) for code in re.findall(r"^ +(\d)  \w", text, re.MULTILINE)] == [0, 1, 2, 3, 4, 5, 6]


def test_version(convert: Convert) -> None:
    assert re.fullmatch(r"sgdph-convert, version \d+\.\d+\.\d+\S*\n", convert("--version").stdout)
