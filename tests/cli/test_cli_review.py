"""Plans under review, and checkpoints made plain: diff, --check, restore."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pydot
import pytest
import safetensors.torch
import torch
from click.testing import Result

from sgdph_fx.cli.load import load_model
from sgdph_fx.plan.plan import Plan

Convert = Callable[..., Result]
Write = Callable[..., Path]


@pytest.fixture
def converted(net: Path, convert: Convert, tmp_path: Path) -> Path:
    assert convert("net", "--output", tmp_path / "converted").exit_code == 0
    return tmp_path / "converted"


def without_norm(net: Path) -> str:
    return net.read_text().replace("self.norm = nn.BatchNorm2d(4)", "self.norm = nn.Identity()")


def test_two_models_of_one_file_are_classes_of_one_module(net: Path, convert: Convert) -> None:
    assert convert("diff", f"{net}:Net", f"{net}:Net").stdout == "Nothing is treated otherwise.\n"


def test_the_reviewed_plan_still_holds(converted: Path, convert: Convert) -> None:
    result = convert("net", "--check", converted / "plan.json")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "as in the reviewed plan" in result.stderr


def test_code_that_no_longer_matches_exits_with_1_and_the_difference(
    write: Write, net: Path, converted: Path, convert: Convert, tmp_path: Path
) -> None:
    write(without_norm(net), "other.py")
    result = convert("other.py", "--check", converted / "plan.json", "--output", tmp_path / "new")
    assert result.exit_code == 1
    assert re.search(
        r"^convolution +stem +normalized by norm, kept +bare, decoupled", result.stdout, re.MULTILINE
    )
    assert "differences to the reviewed plan" in result.stderr
    assert not (tmp_path / "new").exists()


def test_another_name_of_the_class_is_no_difference_in_treatment(
    write: Write, net: Path, converted: Path, convert: Convert
) -> None:
    write(net.read_text().replace("Net", "Renamed"), "renamed.py")
    result = convert("renamed", "--check", converted / "plan.json")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "Its class was net.Net and is renamed.Renamed, which decides nothing." in result.stderr
    text = convert("diff", converted / "plan.json", "renamed").stdout
    assert text == "Nothing is treated otherwise.\nIts class was net.Net and is renamed.Renamed.\n"


def test_diff_takes_plans_and_models_and_prints_three_forms(
    write: Write, net: Path, converted: Path, convert: Convert
) -> None:
    plan = converted / "plan.json"
    same = convert("diff", plan, "net")
    assert (same.exit_code, same.stdout) == (0, "Nothing is treated otherwise.\n")
    write(without_norm(net), "other.py")
    data = json.loads(convert("diff", plan, "other.py", "--json").stdout)
    changed = [(change["what"], change["name"]) for change in data["changes"]]
    assert changed[:2] == [("model", ""), ("convolution", "stem")]
    assert {name for what, name in changed if what == "parameter"} == {
        "stem.weight",
        "stem.direction",
        "stem.gain",
        "norm.weight",
        "norm.bias",
    }
    table = convert("diff", plan, "other.py", "--markdown").stdout
    assert "| convolution | stem | normalized by norm, kept | bare, decoupled |" in table


def test_a_file_that_is_no_plan_exits_with_6(write: Write, net: Path, convert: Convert) -> None:
    write("{}", "no.json")
    for name, words in (("no.json", "no plan of version 1"), ("nowhere.json", "could not be read")):
        result = convert("diff", name, net)
        assert result.exit_code == 6
        assert words in result.stderr


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_restore_gives_the_plain_models_weights(
    suffix: str, net: Path, converted: Path, convert: Convert, tmp_path: Path
) -> None:
    plan = Plan.from_json((converted / "plan.json").read_text())
    torch.manual_seed(3)
    original = load_model(str(net))
    prepared = plan.apply(original)
    trained = {f"module.{key}": value for key, value in prepared.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": trained}, tmp_path / "epoch.pt")
    output = tmp_path / f"plain{suffix}"
    result = convert("restore", "epoch.pt", "--plan", converted / "plan.json", "--output", output)
    assert result.exit_code == 0, result.stderr
    plain = safetensors.torch.load_file(output) if suffix == ".safetensors" else torch.load(output)
    torch.testing.assert_close(plain, dict(original.state_dict()))


def test_restore_refuses_what_is_plain_already(
    net: Path, converted: Path, convert: Convert, tmp_path: Path
) -> None:
    torch.save(load_model(str(net)).state_dict(), tmp_path / "plain.pt")
    result = convert("restore", "plain.pt", "--plan", converted / "plan.json", "--output", "out.pt")
    assert result.exit_code == 5
    assert "head.direction, head.gain are missing. It holds plain weights already." in result.stderr


def test_restore_keeps_what_is_no_tensor_where_the_format_can(
    net: Path, converted: Path, convert: Convert, tmp_path: Path
) -> None:
    plan = Plan.from_json((converted / "plan.json").read_text())
    state = plan.apply(load_model(str(net))).state_dict()
    torch.save({**state, "head._extra_state": "three"}, tmp_path / "epoch.pt")
    assert (
        convert("restore", "epoch.pt", "--plan", converted / "plan.json", "--output", "out.pt").exit_code == 0
    )
    assert torch.load("out.pt")["head._extra_state"] == "three"


def test_restore_refuses_a_checkpoint_of_other_shapes(
    net: Path, converted: Path, convert: Convert, tmp_path: Path
) -> None:
    plan = Plan.from_json((converted / "plan.json").read_text())
    state = plan.apply(load_model(str(net))).state_dict()
    torch.save({**state, "head.gain": torch.ones(7)}, tmp_path / "epoch.pt")
    result = convert("restore", "epoch.pt", "--plan", converted / "plan.json", "--output", "out.pt")
    assert result.exit_code == 5
    assert "head.gain has the shape (7,) where the plan has (3,)" in result.stderr


def test_of_two_plans_the_one_that_is_none_is_named(converted: Path, write: Write, convert: Convert) -> None:
    write("{}", "no.json")
    assert "The plan no.json cannot be used: " in convert("diff", converted / "plan.json", "no.json").stderr


def test_a_long_markdown_table_is_folded(write: Write, convert: Convert) -> None:
    write("from torch import nn\nnet = nn.Sequential(*(nn.Linear(2, 2) for _ in range(30)))\n")
    text = convert("net.py", "--markdown").stdout
    assert text.count("<details>") == text.count("</details>") == 2


def test_dot_is_a_graph(net: Path, convert: Convert) -> None:
    (graph,) = pydot.graph_from_dot_data(convert(net, "--dot").stdout)
    assert len(graph.get_edges()) == 6  # input, stem, norm, relu, head, mean, output


def test_hints_can_be_silenced(write: Write, convert: Convert) -> None:
    write("from torch import nn\nnet = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))\n")
    assert "absorbed-bias" in convert("net.py").stdout
    assert "absorbed-bias" not in convert("net.py", "--silence", "absorbed-bias").stdout
    assert convert("net.py", "--silence", "nothing").exit_code == 2
