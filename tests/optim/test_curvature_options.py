"""Which options of curvature, probe and sign go together, and what states and compiled models make of them."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sgdph_fx import compile_between_refreshes, load, prepare, save
from sgdph_fx.errors import OptimizerError
from sgdph_fx.optim import SGDPH
from tests.optim.training import train

GN: Any = {"curvature": "gauss-newton"}


@pytest.fixture
def _nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def one(**options: Any) -> SGDPH:
    return SGDPH([{"params": [nn.Parameter(torch.ones(1))], "order": 2}], 0.1, **options)


def test_each_curvature_has_its_own_usual_probe() -> None:
    assert one().param_groups[0]["probe"] == "ones"
    assert one(**GN).param_groups[0]["probe"] == "rademacher"
    assert one(probe="exact", **GN).param_groups[0]["probe"] == "exact"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"curvature": "fisher"}, "curvature='fisher' is not known; choose one of 'hessian', 'gauss-newton'"),
        ({"curvature": ["hessian"]}, r"curvature=\['hessian'\] is not known"),
        ({"negative_curvature": "ignore"}, "not known; choose one of 'absolute', 'average', 'zero'"),
        ({**GN, "probe": "ones"}, "probe='ones' reads no Gauss-Newton matrix.*'rademacher', 'exact'"),
        ({**GN, "probe": "gradient"}, "probe='gradient' reads no Gauss-Newton matrix"),
        ({**GN, "negative_curvature": "zero"}, "curvature='gauss-newton' is never negative"),
        ({"probe": "gradient", "negative_curvature": "average"}, "probe='gradient' is never negative"),
    ],
)
def test_what_does_not_go_together_is_refused(options: Any, says: str) -> None:
    with pytest.raises(OptimizerError, match=says):
        one(**options)


def test_one_group_cannot_have_a_curvature_of_its_own() -> None:
    with pytest.raises(
        OptimizerError, match="asks for curvature='gauss-newton', the optimizer is of curvature"
    ):
        SGDPH([{"params": [nn.Parameter(torch.ones(1))], "order": 2, **GN, "probe": "exact"}], 0.1)


OLDER = ("curvature", "negative_curvature", "refresh")


def test_a_state_from_before_these_options_is_one_of_hessians(
    small: Any, make_batches: Any, make_groups: Any
) -> None:
    data, whole, half, other = make_batches(12), small(), small(), small(seed=3)
    train(whole, SGDPH(make_groups(whole), 0.05), data)
    optimizer = SGDPH(make_groups(half), 0.05)
    train(half, optimizer, data[:5])
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        for key in OLDER:
            del group[key]
    other.load_state_dict(half.state_dict())
    resumed = SGDPH(make_groups(other), 9.9)
    resumed.load_state_dict(state)
    train(other, resumed, data[5:])
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), other.parameters(), strict=True))
    with pytest.raises(OptimizerError, match="saved with curvature='hessian' and has 'gauss-newton' here"):
        SGDPH(make_groups(small()), 0.05, **GN).load_state_dict(state)


def test_a_pickle_from_before_these_options_steps(small: Any, make_batches: Any, make_groups: Any) -> None:
    nets, data = [small(), small()], make_batches(9)
    optimizers = [SGDPH(make_groups(net), 0.05) for net in nets]
    for group in optimizers[1].param_groups:
        for key in OLDER:
            del group[key]
    nets[1], optimizers[1] = pickle.loads(pickle.dumps((nets[1], optimizers[1])))
    for net, optimizer in zip(nets, optimizers, strict=True):
        train(net, optimizer, data)
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


@pytest.mark.parametrize(
    ("saved", "here"),
    [(GN, {}), ({}, GN), ({"negative_curvature": "zero"}, {}), ({}, {"negative_curvature": "average"})],
)
def test_a_state_of_other_options_is_refused(small: Any, make_groups: Any, saved: Any, here: Any) -> None:
    state = SGDPH(make_groups(small()), 0.05, **saved).state_dict()
    with pytest.raises(OptimizerError, match=r"was saved with .*same groups and options"):
        SGDPH(make_groups(small()), 0.05, **here).load_state_dict(state)


@pytest.mark.parametrize("options", [GN, {"negative_curvature": "zero", "max_preconditioner": 1.0}])
@pytest.mark.parametrize("own", [False, True])
def test_a_file_of_a_whole_training_goes_on_with_the_same_bits(
    tmp_path: Path, options: Any, own: bool
) -> None:
    def network() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3))

    def go_on(model: nn.Module, optimizer: Any, first: int, last: int) -> None:
        for t in range(first, last):
            g = torch.Generator().manual_seed(t)
            x, y = torch.randn(6, 2, 5, 5, generator=g), torch.randint(3, (6,), generator=g)
            optimizer.zero_grad()
            optimizer.backward(nn.functional.cross_entropy(model(x), y))
            optimizer.step()

    x = torch.randn(2, 2, 5, 5)
    prepared = prepare(network(), x)
    optimizer = SGDPH(prepared.param_groups, 0.05, **options)
    go_on(prepared.model, optimizer, 0, 4)
    save(tmp_path / "run.safetensors", prepared, optimizer)
    go_on(prepared.model, optimizer, 4, 9)
    if own:
        other = prepare(network(), x)
        found = load(tmp_path / "run.safetensors", other.model, SGDPH(other.param_groups, 0.05, **options))
    else:
        found = load(tmp_path / "run.safetensors", network())
    go_on(found.model, found.optimizer, 4, 9)
    for p, q in zip(prepared.model.parameters(), found.model.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.usefixtures("_nothing_compiled")
def test_between_refreshes_compiled_code_runs_and_the_run_is_the_eager_one(
    small: Any, make_batches: Any, make_groups: Any
) -> None:
    nets = [small(), small()]
    plain, mixed = (SGDPH(make_groups(net), 0.05, hessian_interval=3, **GN) for net in nets)
    forward = compile_between_refreshes(nets[1], mixed, backend="aot_eager")
    for x, y in make_batches(10):
        train(nets[0], plain, [(x, y)])
        mixed.zero_grad()
        mixed.backward(nn.functional.cross_entropy(forward(x), y))
        mixed.step()
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("_nothing_compiled")
def test_compiled_code_that_torch_runs_backward_twice_is_as_good_as_the_model(
    small: Any, make_batches: Any, make_groups: Any
) -> None:
    nets, ((x, y),) = [small(), small()], make_batches(1)
    optimizers = [SGDPH(make_groups(net), 0.05, without_curvature="raise", **GN) for net in nets]
    optimizers[0].backward(nn.functional.cross_entropy(torch.compile(nets[0], backend="aot_eager")(x), y))
    optimizers[1].backward(nets[1].loss((x, y)))
    for optimizer in optimizers:
        optimizer.step()
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


def test_its_options_go_through_a_safe_load(small: Any, make_groups: Any) -> None:
    file = io.BytesIO()
    torch.save(SGDPH(make_groups(small()), 0.05, **GN).state_dict(), file)
    file.seek(0)
    assert torch.load(file, weights_only=True)["param_groups"][0]["curvature"] == "gauss-newton"


def test_it_draws_nothing_from_torchs_generators(small: Any, make_batches: Any, make_groups: Any) -> None:
    net, (batch,) = small(), make_batches(1)
    optimizer, before = SGDPH(make_groups(net), 0.05, **GN), torch.get_rng_state()
    train(net, optimizer, [batch])
    assert torch.equal(torch.get_rng_state(), before)
