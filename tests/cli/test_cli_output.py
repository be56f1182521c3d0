"""Writing the results, from a prepared model made by hand. Needs no tracing."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from sgdph_fx.cli.errors import CliError
from sgdph_fx.cli.output import FILES, write
from sgdph_fx.plan.entries import ParameterEntry
from sgdph_fx.plan.plan import Plan
from sgdph_fx.report import Report
from sgdph_fx.report.prepared import Prepared

PLAN = Plan(
    model="torch.nn.Linear",
    policy="see-through",
    way="symbolic",
    convolutions=(),
    parameters=(
        ParameterEntry("weight", (3, 2), 1, "weight", "Linear", "mixes channels"),
        ParameterEntry("bias", (3,), 2, "bias", "Linear", "one number for each channel"),
    ),
)


def prepared(model: nn.Module, groups: list[dict[str, Any]] | None = None) -> Prepared:
    return Prepared(model, groups or [], Report(PLAN))


def test_everything_can_be_read_back(tmp_path: Path) -> None:
    model = nn.Linear(2, 3)
    write(prepared(model), tmp_path / "a" / "b")
    folder = tmp_path / "a" / "b"
    assert {path.name for path in folder.iterdir()} == set(FILES)
    assert Plan.from_json((folder / "plan.json").read_text()) == PLAN
    state = safetensors.torch.load_file(folder / "model.safetensors")
    assert torch.equal(state["weight"], model.weight)
    assert "torch.nn.Linear" in (folder / "report.md").read_text()


@pytest.mark.parametrize("style", ["named", "param_names"])
def test_groups_are_written_with_names_for_tensors(style: str, tmp_path: Path) -> None:
    model = nn.Linear(2, 3)
    named = [("weight", model.weight), ("bias", model.bias)]
    tensors = (
        {"params": named}
        if style == "named"
        else {"params": [p for _, p in named], "param_names": [n for n, _ in named]}
    )
    write(prepared(model, [{**tensors, "order": 1, "role": "weight", "name": "first", "index": 0}]), tmp_path)
    assert json.loads((tmp_path / "param_groups.json").read_text()) == {
        "version": 1,
        "groups": [{"params": ["weight", "bias"], "order": 1, "role": "weight", "name": "first", "index": 0}],
    }


def test_shared_and_strided_tensors_keep_all_their_keys(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model[0].bias = nn.Parameter(torch.arange(6.0)[::2])
    write(prepared(model), tmp_path)
    fresh = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    fresh[1].weight = fresh[0].weight
    fresh.load_state_dict(safetensors.torch.load_file(tmp_path / "model.safetensors"))
    state = fresh.state_dict()
    assert torch.equal(state["1.weight"], model.state_dict()["0.weight"])
    assert state["0.bias"].tolist() == [0, 2, 4]


def test_files_of_these_names_are_replaced_and_others_left_alone(tmp_path: Path) -> None:
    for name in (*FILES, "notes.txt"):
        (tmp_path / name).write_text("old")
    write(prepared(nn.Linear(2, 3)), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, "notes.txt"}
    assert (tmp_path / "notes.txt").read_text() == "old"
    assert all((tmp_path / name).read_bytes() != b"old" for name in FILES)


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    class Odd(nn.Linear):
        def get_extra_state(self) -> str:
            return "no tensor"

    (tmp_path / "plan.json").write_text("old")
    with pytest.raises(CliError, match="more than tensors"):
        write(prepared(Odd(2, 3)), tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("plan.json", "old")]
    with pytest.raises(CliError, match="more than tensors"):
        write(prepared(Odd(2, 3)), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CliError, match="could not be written"):
        write(prepared(nn.Linear(2, 3)), tmp_path / "file" / "below")


def test_all_files_are_equally_readable(tmp_path: Path) -> None:
    write(prepared(nn.Linear(2, 3)), tmp_path)
    assert len({stat.S_IMODE((tmp_path / name).stat().st_mode) for name in FILES}) == 1
