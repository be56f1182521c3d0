"""The whole command, on the real pipeline."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from click.testing import Result

from sgdph_fx.cli.load import load_model
from sgdph_fx.plan.plan import Plan
from sgdph_fx.transform.decouple import restore

Write = Callable[..., Path]
Convert = Callable[..., Result]


def test_the_report_says_what_was_decoupled(net: Path, convert: Convert) -> None:
    result = convert(net, "--full")
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


def test_by_default_equal_rows_are_one_and_bare_ones_come_first(write: Write, convert: Convert) -> None:
    source = "from torch import nn\n" + (
        "block = lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Tanh())\n"
        "net = nn.Sequential(*(block() for _ in range(9)))\n"
    )
    lines = [line.split() for line in convert(write(source)).stdout.splitlines()]
    start = lines.index(["Convolutions", "(18)"])
    assert [line[:3] for line in lines[start + 2 : start + 4]] == [
        ["{0..8}.2", "×9", "bare"],
        ["{0..8}.0", "×9", "normalized"],
    ]
    assert ["norm.weight", "×9", "second-order", "36", "BatchNorm2d"] in lines


def test_quiet_prints_nothing(net: Path, convert: Convert, tmp_path: Path) -> None:
    result = convert(net, "--quiet", "--output", tmp_path / "out")
    assert (result.exit_code, result.output) == (0, "")
    assert (tmp_path / "out" / "plan.json").is_file()


def test_forms_exclude_each_other(net: Path, convert: Convert) -> None:
    for pair in (("--json", "--markdown"), ("--dot", "--json"), ("--full", "--quiet")):
        result = convert(net, *pair)
        assert result.exit_code == 2
        assert "each say how to print the result; give one of them" in result.stderr
    assert convert("diff", net, net, "--json", "--markdown").exit_code == 2


def test_help_has_examples_and_every_exit_code(convert: Convert) -> None:
    text = convert("--help").stdout
    assert "sgdph-convert model.py:small --input 1,3,32,32 --output converted" in text
    assert [int(code) for code in re.findall(r"^ +(\d+)  \w", text, re.MULTILINE)] == [*range(9), 130]


def test_version(convert: Convert) -> None:
    assert re.fullmatch(r"sgdph-convert, version \d+\.\d+\.\d+\S*\n", convert("--version").stdout)


def test_a_model_without_a_forward_is_told_what_to_give_instead(
    write: Callable[..., Path], convert: Convert
) -> None:
    """As most LightningModules: training_step calls a network inside."""
    path = write(
        "from torch import nn\n\n\nclass Lit(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.net = nn.Conv2d(3, 4, 3)\n"
    )
    for more in ((), ("--input", "2,3,8,8")):
        result = convert(path, *more)
        assert result.exit_code == 4
        assert result.stderr.startswith(
            "Error: Lit has no forward, so it cannot be called. Prepare the network"
        )
        assert "guessed" not in result.stderr
        assert "takes" not in result.stderr
