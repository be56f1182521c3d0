"""Loading weights. Needs no tracing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from sgdph_fx import prepare
from sgdph_fx.cli.errors import WeightsError
from sgdph_fx.cli.plain_weights import write_plain_weights
from sgdph_fx.cli.weights import load_weights

State = dict[str, Tensor]


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def saved_by_torch(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def saved_by_safetensors(content: State, path: Path) -> Path:
    path = path.with_suffix(".safetensors")
    safetensors.torch.save_file(content, path)
    return path


def equal(left: State, right: State) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def refused(model: nn.Module, path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        load_weights(model, path)
    assert caught.value.exit_code == 5
    return str(caught.value.message)


@pytest.mark.parametrize("save", [saved_by_torch, saved_by_safetensors])
def test_both_formats_are_loaded(save: Callable[[Any, Path], Path], tmp_path: Path) -> None:
    source, target = net(), net()
    load_weights(target, save(source.state_dict(), tmp_path / "weights.pt"))
    assert equal(target.state_dict(), source.state_dict())


@pytest.mark.parametrize("nest", ["state_dict", "model_state_dict", "model"])
def test_a_training_checkpoint_is_looked_into(nest: str, tmp_path: Path) -> None:
    source, target = net(), net()
    content = {"epoch": 3, nest: source.state_dict(), "optimizer": {"state": {}}}
    load_weights(target, saved_by_torch(content, tmp_path / "checkpoint.pth"))
    assert equal(target.state_dict(), source.state_dict())


WRAPPERS: dict[str, Callable[[nn.Module], Any]] = {
    "data parallel": nn.DataParallel,
    "compiled": torch.compile,
    "compiled inside": lambda model: nn.DataParallel(torch.compile(model)),  # type: ignore[arg-type]
    "compiled outside": lambda model: torch.compile(nn.DataParallel(model)),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_the_prefixes_of_torch_s_wrappers_are_taken_off(
    wrap: Callable[[nn.Module], Any], tmp_path: Path
) -> None:
    source, target = net(), net()
    load_weights(target, saved_by_torch(wrap(source).state_dict(), tmp_path / "wrapped.pt"))
    assert equal(target.state_dict(), source.state_dict())


class Holder(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.module(x)
        return result


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("decoupled", [True, False], ids=["decoupled", "nothing decoupled"])
@pytest.mark.parametrize("inside", [True, False], ids=["a child named module", "no such child"])
def test_restore_takes_off_the_prefixes_of_wrappers_alone(
    wrap: Callable[[nn.Module], Any], decoupled: bool, inside: bool, tmp_path: Path
) -> None:
    plain = net()[:2] if not decoupled else nn.Sequential(*net()[:2], nn.Conv2d(4, 4, 1))
    model = Holder(plain) if inside else plain
    prepared = prepare(model, torch.rand(2, 3, 6, 6))
    (tmp_path / "plan.json").write_text(prepared.report.plan.to_json())
    own = saved_by_torch(prepared.model.state_dict(), tmp_path / "own.pt")
    wrapped = saved_by_torch(wrap(prepared.model).state_dict(), tmp_path / "wrapped.pt")
    for file in (own, wrapped):
        write_plain_weights(file, tmp_path / "plan.json", tmp_path / "plain.pt")
        found = torch.load(tmp_path / "plain.pt")
        assert found.keys() == model.state_dict().keys()
        assert all(torch.allclose(found[key], value, atol=1e-6) for key, value in model.state_dict().items())


def test_a_model_with_a_child_named_module_keeps_its_prefix(tmp_path: Path) -> None:
    source, target = nn.DataParallel(net()), nn.DataParallel(net())
    load_weights(target, saved_by_torch(source.state_dict(), tmp_path / "own.pt"))
    assert equal(target.state_dict(), source.state_dict())


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_programs_in_place_of_weights_are_named(tmp_path: Path) -> None:
    convolution, x = nn.Conv2d(3, 4, 3), torch.rand(1, 3, 6, 6)
    torch.jit.trace(convolution, x).save(tmp_path / "script.pt")
    torch.export.save(torch.export.export(convolution, (x,)), tmp_path / "program.pt2")
    for file, kind in (("script.pt", "a TorchScript archive"), ("program.pt2", "an exported program")):
        message = refused(convolution, tmp_path / file)
        assert f"it is {kind}; save model.state_dict(), not the model itself" in message
        assert "weights_only" not in message  # not what torch advises, which would run the file's code


def test_missing_unexpected_and_reshaped_keys_are_named(tmp_path: Path) -> None:
    state = net().state_dict()
    del state["1.bias"]
    state["2.scale"] = torch.zeros(2)
    state["0.weight"] = torch.zeros(4, 3, 5, 5)
    message = refused(net(), saved_by_torch(state, tmp_path / "other.pt"))
    assert message == (
        f"The weights in {tmp_path / 'other.pt'} don't fit the model: missing 1.bias; unexpected 2.scale; "
        "0.weight is 4x3x5x5 where the model has 4x3x3x3."
    )


def test_a_long_list_is_cut_with_its_length(tmp_path: Path) -> None:
    message = refused(nn.Linear(1, 1), saved_by_torch(net().state_dict(), tmp_path / "other.pt"))
    # Five buffers and parameters of the norm, two of the convolution, two of the linear layer: 9.
    assert "missing weight, bias;" in message
    assert "unexpected 0.weight, 0.bias, 1.weight, 1.bias, 1.running_mean and 4 more" in message


def test_converted_weights_are_recognised(tmp_path: Path) -> None:
    state = net().state_dict()
    state["0.direction"], state["0.gain"] = state.pop("0.weight"), torch.ones(4)
    assert "These look like converted weights" in refused(net(), saved_by_torch(state, tmp_path / "c.pt"))


def test_a_pickled_model_is_not_run(tmp_path: Path) -> None:
    message = refused(net(), saved_by_torch(net(), tmp_path / "whole.pt"))
    assert "Only tensors are loaded" in message


@pytest.mark.parametrize("name", ["noise.pt", "noise.safetensors", "empty.pt", "empty.safetensors"])
def test_a_file_of_another_kind_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"" if "empty" in name else b"noise, not weights" * 50)
    assert str(path) in refused(net(), path)


def test_a_list_is_no_state_dict(tmp_path: Path) -> None:
    assert "holds a list, no state_dict" in refused(net(), saved_by_torch([torch.ones(1)], tmp_path / "l.pt"))


def test_weights_under_a_name_of_ones_own_are_pointed_at(tmp_path: Path) -> None:
    path = saved_by_torch({"epoch": 3, "net": net().state_dict()}, tmp_path / "nested.pt")
    assert "What net holds is not looked into: save it alone, or under state_dict" in refused(net(), path)
