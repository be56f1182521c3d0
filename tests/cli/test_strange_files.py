"""Files that are not what they should be: damaged, foreign, hostile. One message, the documented code, nothing run."""

import pickle
import random
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from click.testing import Result

from sgdph_fx.cli.load import load_model
from sgdph_fx.plan.plan import Plan
from tests.cli.conftest import COMMAND, ENVIRONMENT

Convert = Callable[..., Result]


@pytest.fixture
def state(net: Path) -> dict[str, Any]:
    return dict(load_model(str(net)).state_dict())


def refused(convert: Convert, *arguments: str | Path, code: int = 5) -> str:
    result = convert(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    assert "Unexpected" not in line
    return line


class Runs:
    """A pickle that would leave a file behind."""

    def __reduce__(self) -> Any:
        return open, ("ran", "w")


def strange(state: dict[str, Any]) -> dict[str, Any]:
    """What torch.save wrote, with the words that say what is wrong with it."""
    long = {key: value.long() for key, value in state.items()}
    return {
        "a state with numbers for names": (
            {0: torch.zeros(1), 1: torch.zeros(2)},
            "its keys are names, but here is 0",
        ),
        "names of both kinds": ({**state, 3: torch.zeros(1)}, "its keys are names, but here is 3"),
        "a name of 300 letters": ({**state, "n" * 300: torch.zeros(1)}, "unexpected nnn"),
        "names that a terminal obeys": (
            {**state, "\x1b[31m\u202e": torch.zeros(1)},
            r"unexpected \x1b[31m\u202e",
        ),
        "integers": (long, "holds integer numbers where the model has real ones"),
        "complex numbers": (
            {**state, "head.weight": state["head.weight"].cfloat()},
            "head.weight holds complex numbers where the model has real ones",
        ),
        "booleans": ({**state, "head.bias": state["head.bias"] > 0}, "holds boolean numbers"),
        "text for numbers": ({**state, "head.bias": "three"}, "head.bias is str where the model has 3"),
        "nothing": ({}, "missing stem.weight"),
        "a number": (3.0, "holds a float, no state_dict"),
        "a set": ({"a", "b"}, "holds a set, no state_dict"),
        "None": (None, "holds a NoneType, no state_dict"),
        "code": (Runs(), "holds more than tensors"),
        "a model": (torch.nn.Linear(2, 2), "holds more than tensors"),
        "sparse numbers": ({**state, "head.bias": torch.eye(3).to_sparse()}, "head.bias is 3x3"),
        "a nested state with numbers for names": ({"state_dict": {1: torch.zeros(1)}}, "but here is 1"),
    }


NAMES = [*strange({"head.weight": torch.zeros(1), "head.bias": torch.zeros(3)})]


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_a_strange_kind_are_one_message(
    name: str, net: Path, state: dict[str, Any], convert: Convert, tmp_path: Path
) -> None:
    content, words = strange(state)[name]
    torch.save(content, tmp_path / "w.pt")
    assert words in refused(convert, net, "--weights", tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


FOREIGN = {
    "text.pt": b"epoch 3, loss 0.2\n" * 20,
    "text.safetensors": b"epoch 3, loss 0.2\n" * 20,
    "page.pt": b"<!doctype html><title>404</title>" * 40,
    "pointer.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "empty.pt": b"",
    "zeros.pt": bytes(4096),
    "zeros.safetensors": bytes(4096),
    "archive.pt": b"PK\x03\x04" + bytes(200),
    "image.pt": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "pickle.pt": pickle.dumps(Runs()),
    "old.pt": pickle.dumps({"a": [1, 2]}),
    "length.safetensors": (2**62).to_bytes(8, "little") + b"{}",
    "header.safetensors": (8).to_bytes(8, "little") + b"not json",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_another_kind_is_one_message(
    name: str, net: Path, convert: Convert, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(FOREIGN[name])
    assert name in refused(convert, net, "--weights", tmp_path / name)
    assert name in refused(convert, "audit", net, "--data", tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_damaged_file_is_one_message_or_loads_whatever_was_damaged(
    suffix: str, net: Path, state: dict[str, Any], convert: Convert, tmp_path: Path
) -> None:
    whole = tmp_path / f"whole{suffix}"
    torch.save(state, whole) if suffix == ".pt" else safetensors.torch.save_file(state, whole)
    data, draw = whole.read_bytes(), random.Random(0)
    path = tmp_path / f"damaged{suffix}"
    for round in range(60):
        damaged = bytearray(data)
        if round % 2:
            del damaged[draw.randrange(len(data)) :]
        else:
            for _ in range(draw.randrange(1, 30)):
                damaged[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(damaged)
        result = convert(net, "--weights", path, "--quiet")
        # A number may have become another one, or NaN, which has its own error.
        assert result.exit_code in (0, 5, 6), (round, result.output)
        assert "Unexpected" not in result.output


def test_a_plan_of_a_strange_kind_is_one_message(net: Path, convert: Convert, tmp_path: Path) -> None:
    texts = [
        "",
        "[]",
        "null",
        "{",
        "[" * 100_000,
        '{"version": ' + "9" * 5000 + "}",
        '{"version": 1}',
        "\x00",
        "é" * 9,
    ]
    path = tmp_path / "plan.json"
    for text in texts:
        path.write_text(text, encoding="utf-8")
        for command in (("diff", path, net), (net, "--check", path)):
            assert "plan.json" in refused(convert, *command, code=6)
    path.write_bytes(b"\xff\xfe\x00plan")
    assert "could not be read" in refused(convert, "diff", path, net, code=6)


def test_a_report_is_told_from_a_plan(net: Path, convert: Convert, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(convert(net, "--json").stdout)
    message = refused(convert, net, "--check", "report.json", code=6)
    assert (
        "It is a report, as --json prints it: write a plan with --output, or save its part 'plan' alone."
        in message
    )


def test_a_missing_plan_has_one_code_wherever_it_is_missing(
    net: Path, convert: Convert, tmp_path: Path
) -> None:
    torch.save({}, tmp_path / "epoch.pt")
    (tmp_path / "folder.json").mkdir()
    for plan in ("nowhere.json", "folder.json", "n" * 300 + ".json"):
        for command in (
            ("diff", plan, net),
            ("diff", net, plan),
            (net, "--check", plan),
            ("restore", "epoch.pt", "--plan", plan, "--output", "out.pt"),
        ):
            assert "could not be read" in refused(convert, *command, code=6)


def test_names_that_no_system_takes_are_one_message(net: Path, convert: Convert) -> None:
    assert "is neither a file nor the name of a module" in refused(convert, "n" * 300 + "/net", code=3)
    assert "There is no module nnn" in refused(convert, "n" * 300 + ".pt", code=3)
    assert "There is no file" in refused(convert, "n" * 300 + ".py", code=3)
    assert "could not be written" in refused(convert, net, "--output", "n" * 300, code=7)
    assert convert(net, "--weights", "n" * 300 + ".pt").exit_code == 2


@pytest.mark.parametrize("name", ["plain.pt", "plain.safetensors"])
def test_a_full_disk_leaves_the_weights_that_were_there(
    name: str, net: Path, convert: Convert, tmp_path: Path
) -> None:
    assert convert(net, "--output", "out", "--quiet").exit_code == 0
    plan = Plan.from_json((tmp_path / "out" / "plan.json").read_text())
    trained = plan.apply(load_model(str(net))).state_dict()
    torch.save({**trained, "more": torch.zeros(100_000)}, tmp_path / "epoch.pt")
    (tmp_path / name).write_text("old")
    done = subprocess.run(
        [*COMMAND, "restore", "epoch.pt", "--plan", "out/plan.json", "--output", name],
        # The limit would cut compiled modules short, too, and Python leaves them so for whoever imports them next.
        cwd=tmp_path, env={**ENVIRONMENT, "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    assert f"{name} could not be written" in done.stderr
    assert (tmp_path / name).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_names_of_a_model_that_a_terminal_obeys_are_shown_escaped(
    write: Callable[..., Path], convert: Convert
) -> None:
    path = write(
        "from torch import nn\nnet = nn.Sequential()\n"
        "net.add_module('\\x1b[31m\\x07\\x00\\x9b\\u202ered', nn.Conv2d(3, 3, 1))\n"
    )
    for form in ((), ("--full",), ("--markdown",), ("--dot",), ("--json",)):
        result = convert(path, *form)
        assert result.exit_code == 0
        assert "red" in result.output
        assert not {*"\x1b\x07\x00\x9b\u202e"} & {*result.output}
    message = refused(convert, path, "--rule", "other=keep", code=6)
    assert not {*"\x1b\x07\x00\x9b\u202e"} & {*message}
