"""``sgdph-convert audit``: from a file and a shape, or a saved batch, to numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from torch.nn.functional import cross_entropy

from sgdph_fx import audit, prepare
from sgdph_fx.cli.load import load_model
from tests.cli.conftest import NET

Convert = Callable[..., Result]
SHAPE = ("--input", "1,3,6,6", "--batch", "7")


def numbers(convert: Convert, *arguments: str | Path) -> dict[str, Any]:
    result = convert("audit", *arguments, "--json", "audit.json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(Path("audit.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture
def batch(net: Path) -> tuple[Any, Any]:
    """Ten samples, saved as batch.pt beside the model's file, the current folder."""
    pair = torch.randn(10, 3, 6, 6), torch.arange(10) % 3
    torch.save(pair, "batch.pt")
    return pair


def test_it_prints_a_line_for_each_second_order_parameter(net: Path, convert: Convert) -> None:
    result = convert("audit", net, *SHAPE)
    assert result.exit_code == 0, result.output
    assert "4 of 4 second-order parameters audited, in training mode, in float32, at a cross-entropy of" in (
        result.stdout
    )
    names = [line.split()[0] for line in result.stdout.splitlines() if " norm." in line or " gain " in line]
    assert names == ["norm.weight", "norm.bias", "head.gain"]
    assert "Hessian-vector products" not in result.output


def test_a_saved_batch_gives_what_the_library_gives_on_it(
    net: Path, convert: Convert, batch: tuple[Any, Any]
) -> None:
    found = numbers(convert, net, "--data", "batch.pt", "--batch", "6", "--seed", "3", "--draws", "2")
    torch.manual_seed(0)
    model = prepare(load_model(str(net)), batch[0][:6])
    expected = audit(model, cross_entropy, (batch[0][:6], batch[1][:6]), seed=3, draws=2)
    assert found["value"] == expected.value
    assert found["rows"] == json.loads(expected.to_json())["rows"]


def test_the_same_command_gives_the_same_numbers_and_another_seed_others(net: Path, convert: Convert) -> None:
    first, again, other = (numbers(convert, net, *SHAPE, "--seed", seed) for seed in "001")
    assert first == again
    assert first["value"] != other["value"]


def test_samples_losses_and_precision_can_be_chosen(net: Path, convert: Convert) -> None:
    found = numbers(convert, net, *SHAPE, "--sample", "2", "--channels", "1", "--loss", "mse", "--double")
    assert (found["loss"], found["dtype"], found["parameters"]) == ("mse", "float64", 4)
    assert [len(row["channels"]) for row in found["rows"]] == [1, 1]


def test_a_loss_of_ones_own_is_called_with_outputs_and_targets(net: Path, convert: Convert) -> None:
    Path("own.py").write_text(
        "def double(out, targets):\n    assert targets is None\n    return 2 * (out**2).mean()\n"
    )
    assert numbers(convert, net, *SHAPE, "--loss", "own.py:double")["loss"] == "double"


def test_a_model_left_in_evaluation_mode_is_audited_as_it_trains(net: Path, convert: Convert) -> None:
    net.write_text(net.read_text() + "\n\nquiet = Net().eval()\n", encoding="utf-8")
    assert numbers(convert, "net.py:quiet", *SHAPE)["training"] is True


def test_a_plot_is_drawn(net: Path, convert: Convert) -> None:
    assert convert("audit", net, *SHAPE, "--plot", "audit.png").exit_code == 0
    assert Path("audit.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "A batch is needed: --input SHAPE for random numbers, or --data FILE"),
        (("--input", "2,3,6,6", "--data", "batch.pt"), 2, "give one of them"),
        (
            (*SHAPE, "--loss", "hinge"),
            2,
            "'hinge' is not known; choose cross-entropy or mse, or write FILE.py:NAME",
        ),
        ((*SHAPE, "--loss", "net.py:nothing"), 3, "nothing"),
        ((*SHAPE, "--sample", "0"), 2, "--sample"),
        (("--data", "net.py"), 5, "holds more than tensors, or is no file of torch.save"),
        (("--data", "empty.pt"), 5, "empty.pt could not be read as a file of torch.save: it ends too early"),
        ((*SHAPE, "--loss", "torch.nn:MSELoss"), 3, "torch.nn:MSELoss is a class, no function"),
        (("--data", "alone.pt"), 5, "holds a Tensor; a batch is a pair"),
        (("--input", "2,4,6,6"), 4, "expected input"),
        ((*SHAPE, "--plot", "audit.xyz"), 6, "matplotlib writes no 'xyz'. It writes"),
        ((*SHAPE, "--json", "nowhere/audit.json"), 2, "There is no folder nowhere to write audit.json into"),
    ],
)
def test_what_makes_no_sense_is_one_message_with_its_exit_code(
    net: Path, convert: Convert, batch: tuple[Any, Any], arguments: tuple[str, ...], code: int, message: str
) -> None:
    torch.save(batch[0], "alone.pt")
    Path("empty.pt").touch()
    result = convert("audit", net, *arguments)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_an_audit_that_cannot_be_written_is_shown_all_the_same(
    net: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("sgdph_fx.audits.Audit.plot", full)
    result = convert("audit", net, *SHAPE, "--channels", "1", "--draws", "1", "--plot", "audit.png")
    assert result.exit_code == 7
    assert "could not be written: No space left on device" in result.stderr
    assert "4 of 4 second-order parameters audited" in result.stdout


def test_what_it_costs_is_told_beforehand_with_how_to_take_less(
    net: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By hand: 4 + 4 + 3 + 3 columns, and for each of the 4 parameters the probe ones and 8 draws.
    words = "50 Hessian-vector products, about "
    assert words not in convert("audit", net, *SHAPE).stderr
    monkeypatch.setattr("sgdph_fx.cli.auditing.FEW_SECONDS", 0.0)
    told = convert("audit", net, *SHAPE).stderr
    assert words in told
    assert "--sample K audits K of the parameters, --channels K measures K numbers of each" in told


def test_every_column_is_explained(net: Path, convert: Convert) -> None:
    text = convert("audit", net, *SHAPE).stdout
    head = next(line for line in text.splitlines() if line.startswith("name "))
    for word in ("measured", "off-diagonal", "ones", "one-draw", "average"):
        assert word in head.split()
        assert f"\n{word}: " in text
    kinds = {line.split()[8] for line in text.splitlines() if line.startswith(("head.", "norm."))} - {"-"}
    for kind in kinds:
        assert f"\nempty, {kind}: " in text


def test_a_loss_that_can_tell_nothing_is_refused(net: Path, convert: Convert) -> None:
    result = convert("audit", f"{net}:Net", "--arg", "classes=1", *SHAPE)
    assert result.exit_code == 6
    words = " ".join(result.stderr.split())
    assert "there is only one: the loss would be 0 whatever the weights are. Take --loss mse" in words
    assert convert("audit", f"{net}:Net", "--arg", "classes=1", *SHAPE, "--loss", "mse").exit_code == 0


def test_a_loss_by_name_takes_the_logits_of_what_a_model_returns(net: Path, convert: Convert) -> None:
    def returning(what: str) -> int:
        net.write_text(
            NET.replace("return self.head", f"return {what}(self.head").replace(
                ".mean((2, 3))", ".mean((2, 3)))"
            )
        )
        return convert("audit", net, *SHAPE, "--channels", "1").exit_code

    assert returning("(lambda y: {'logits': y})") == 0
    assert returning("(lambda y: __import__('types').SimpleNamespace(logits=y, hidden=None))") == 0
    assert returning("(lambda y: [y])") == 6


def test_a_batch_that_the_model_does_not_take_is_no_reason_to_guess_another(
    net: Path, convert: Convert
) -> None:
    torch.save((torch.randn(2, 5, 6, 6), torch.arange(2)), "wide.pt")
    result = convert("audit", net, "--data", "wide.pt")
    assert result.exit_code == 4
    assert "to have 3 channels, but got 5 channels instead" in result.stderr
    assert "guessed" not in result.stderr


def test_a_loss_in_the_models_own_file_knows_the_models_classes(
    write: Callable[..., Path], convert: Convert
) -> None:
    """The file is imported once: a second copy would have a class `Scores` of its own."""
    path = write(
        NET + "\n\nclass Scores(dict):\n    pass\n\n\nclass Scored(Net):\n"
        "    def forward(self, x):\n        return Scores(logits=super().forward(x))\n\n\n"
        "model = Scored()\n\n\n"
        "def loss(out, target):\n    assert isinstance(out, Scores)\n    return out['logits'].square().mean()\n",
        "scored.py",
    )
    found = numbers(convert, f"{path}:model", *SHAPE, "--loss", f"{path}:loss")
    assert found["model"] == "scored.Scored"
