"""Rules that a person adds, and what other libraries' modules are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sgdph_fx import (
    analyze,
    check_optimizer,
    prepare,
    register_conv,
    register_norm,
    register_transparent,
    restore,
)
from sgdph_fx.errors import ConfigError, ModelError
from sgdph_fx.rules.modules import MODULES, rule_of


@pytest.fixture(autouse=True)
def _tables_as_they_were() -> Iterator[None]:
    before = dict(MODULES)
    yield
    MODULES.clear()
    MODULES.update(before)


class MyNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.shift = nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        y = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)
        return y * self.scale[:, None, None] + self.shift[:, None, None]


class Subclassed(MyNorm):
    pass


def test_own_norm() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Subclassed())
    assert [row.verdict for row in analyze(model).convolutions] == ["bare"]
    register_norm(MyNorm, statistics="batch", weight="scale", bias="shift")
    plan = analyze(model)
    assert [(row.verdict, row.norm) for row in plan.convolutions] == [("normalized", "1")]
    assert {p.name: p.role for p in plan.parameters if p.name[0] == "1"} == {
        "1.scale": "norm.weight",
        "1.shift": "norm.bias",
    }


class MyConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.rand(4, 3, 3, 3))
        self.offset = nn.Parameter(torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.conv2d(x, self.kernel, self.offset)


def test_own_convolution() -> None:
    register_conv(MyConv, dims=2, weight="kernel", bias="offset")
    model = nn.Sequential(MyConv(), nn.ReLU())
    prepared, _, report = prepare(model)
    assert {p.name: p.role for p in report.plan.parameters} == {
        "0.kernel_direction": "direction", "0.kernel_gain": "gain", "0.offset": "bias",
    }  # fmt: skip
    x = torch.rand(1, 3, 5, 5)
    assert torch.equal(prepared(x), model(x))
    assert list(restore(prepared).state_dict()) == ["0.kernel", "0.offset"]


class Halve(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x / 2, x)


def test_own_transparent_operation() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Halve(), nn.BatchNorm2d(4))
    assert len(analyze(model).bare) == 1
    register_transparent(Halve)
    assert len(analyze(model).bare) == 0


def test_choices_that_do_not_exist_are_refused_and_register_nothing() -> None:
    class Unknown(nn.Module): ...

    choices: list[tuple[Callable[[], None], str]] = [
        (lambda: register_norm(Unknown, statistics="batchnorm"), "statistics='batchnorm' is not known"),  # type: ignore[arg-type]
        (lambda: register_conv(Unknown, dims=4), "dims=4 is not known"),  # type: ignore[arg-type]
        (lambda: register_transparent(Unknown, role="slope"), "role='slope' is not known"),  # type: ignore[arg-type]
    ]
    for register, message in choices:
        with pytest.raises(ConfigError, match=message):
            register()
    assert rule_of(Unknown()) is None


def test_only_classes_of_modules_are_registered() -> None:
    with pytest.raises(ConfigError, match="none"):
        register_norm(nn.BatchNorm2d(3), statistics="batch")  # type: ignore[arg-type]


@pytest.mark.parametrize("inputs", [None, torch.rand(1, 3, 5, 5)], ids=["symbolic", "recorded"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchs_weight_norm_is_tagged_and_not_decoupled_again(inputs: Tensor | None) -> None:
    for wrap in (torch.nn.utils.parametrizations.weight_norm, torch.nn.utils.weight_norm):
        model = nn.Sequential(wrap(nn.Conv2d(3, 4, 3)), nn.ReLU())
        plan = analyze(model, inputs)
        (row,) = plan.convolutions
        assert (row.verdict, row.decouple) == ("bare", False)
        assert "reparameterization" in row.reason
        tags = {p.role: (p.order, p.shape) for p in plan.parameters}
        assert tags["gain"] == (2, (4, 1, 1, 1))
        assert tags["direction"] == (1, (4, 3, 3, 3))


def test_data_parallel_and_compiled_models_are_unwrapped() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    for wrapped in (nn.DataParallel(net), torch.compile(net), torch.compile(nn.DataParallel(net))):
        prepared, _, report = prepare(wrapped)
        assert type(prepared) is nn.Sequential
        assert [h.code for h in report.plan.hints] == ["unwrapped"]
        assert [n for n, _ in prepared.named_parameters()] == ["0.direction", "0.gain", "0.bias"]
    assert type(net[0]) is nn.Conv2d


@pytest.mark.parametrize("inputs", [None, torch.rand(2, 3, 5, 5)], ids=["symbolic", "recorded"])
def test_wrapped_parts_of_a_model_are_read_through(inputs: Tensor | None) -> None:
    in_place = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    in_place.compile()
    model = nn.Sequential(
        torch.compile(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())),
        in_place,
        nn.DataParallel(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())),
        nn.BatchNorm2d(3),
    )
    prepared, _, report = prepare(model, inputs)
    assert {row.name: row.norm for row in report.plan.convolutions} == {
        "0._orig_mod.0": None,
        "1.0": "1.1",
        "2.module.0": "3",
    }
    assert list(restore(prepared).state_dict()) == list(model.state_dict())


@pytest.fixture
def _one_process(tmp_path: Path) -> Iterator[None]:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("inputs", [None, torch.rand(1, 3, 5, 5)], ids=["symbolic", "recorded"])
def test_distributed_models_are_unwrapped_and_wrapped_again(inputs: Tensor | None) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False), nn.BatchNorm2d(2))
    wrapped = DistributedDataParallel(net)
    prepared, groups, report = prepare(wrapped, inputs)
    (hint,) = report.plan.hints
    assert (hint.code, "the Sequential inside DistributedDataParallel" in hint.message) == ("unwrapped", True)
    assert [row.name for row in report.plan.bare] == ["0"]
    assert wrapped.module is net
    assert type(net[0]) is nn.Conv2d
    with pytest.raises(
        ModelError, match=r"never average their gradients over ranks\. Prepare the model first"
    ):
        prepare(wrapped, inputs, inplace=True)

    x = torch.rand(2, 3, 5, 5)
    again = DistributedDataParallel(prepared)
    again(x).square().mean().backward()
    check_optimizer(again, torch.optim.SGD(groups, lr=0.1))
    averaged = {name: p.grad for name, p in prepared.named_parameters()}
    alone = copy.deepcopy(prepared)
    alone.zero_grad()
    alone(x).square().mean().backward()
    assert set(averaged) == {n for n, _ in alone.named_parameters()}
    for name, p in alone.named_parameters():
        assert averaged[name] is not None
        assert torch.allclose(averaged[name], p.grad), name


def test_sharded_models_are_refused() -> None:
    class FSDPModule:
        """Stands for the class that torch's fully_shard mixes in."""

    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    model.__class__ = type("FSDPSequential", (FSDPModule, nn.Sequential), {})
    with pytest.raises(ModelError, match="Prepare it first, then shard it"):
        prepare(model)
