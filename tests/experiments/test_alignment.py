"""How much of H·1 is −g: exactly all of it where the loss does not change with a scale, and torch.func's elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn
from torch.func import functional_call, hessian
from torch.nn.functional import cross_entropy

from experiments import alignment
from experiments.alignment import measure
from sgdph_fx import prepare
from tests.experiments.dataset_files import smallest_training

X = torch.randn(6, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 1, 0, 2])


def _network(tracked: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3, eps=1e-30, track_running_stats=tracked), nn.ReLU(),
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, eps=1e-30, track_running_stats=tracked), nn.Flatten(),
        nn.Linear(16, 3),
    ).double()  # fmt: skip


def test_at_the_start_the_product_of_a_scale_that_a_norm_follows_is_the_gradient() -> None:
    found = {each.parameter: each for each in measure(prepare(_network()), X, Y)}
    gamma = found["1.weight"]
    assert gamma.cosine == pytest.approx(1)
    assert gamma.ratio == pytest.approx(1)
    assert gamma.invariance == pytest.approx(0, abs=1e-9)
    # The second norm feeds the classifier, so scaling it changes the loss.
    last = found["4.weight"]
    assert last.invariance is not None
    assert last.invariance > 0.1
    assert found["6.bias"].invariance is None


def test_cosines_and_ratios_are_those_of_the_dense_hessian() -> None:
    net = _network(tracked=False)
    for name in ("1.weight", "1.bias", "4.weight", "4.bias"):
        nn.init.uniform_(net.get_parameter(name), 0.5, 1.5)
    prepared = prepare(net)
    found = {each.parameter: each for each in measure(prepared, X, Y, step=7)}
    for name in ("1.bias", "4.weight", "6.bias"):
        value = prepared.model.get_parameter(name).detach()

        def loss_of(own: Tensor, name: str = name) -> Tensor:
            return cross_entropy(functional_call(net, {name: own}, (X,)), Y)

        product = hessian(loss_of)(value).sum(1)
        gradient = torch.func.grad(loss_of)(value)
        cosine = -(product @ gradient) / (product.norm() * gradient.norm())
        sizes = (product.abs() @ gradient.abs()) / (product.norm() * gradient.norm())
        if name != "6.bias":  # whose row sums are zero, so their direction is rounding noise
            assert found[name].cosine == pytest.approx(cosine.item(), rel=1e-6)
            assert found[name].cosine_of_sizes == pytest.approx(sizes.item(), rel=1e-6)
        assert found[name].ratio == pytest.approx(
            (product.norm() / gradient.norm()).item(), rel=1e-6, abs=1e-9
        )
        assert found[name].step == 7


def test_measuring_leaves_the_network_as_it_was() -> None:
    prepared = prepare(_network())
    before = {name: value.clone() for name, value in prepared.model.state_dict().items()}
    measure(prepared, X, Y)
    after = prepared.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(p.grad is None for p in prepared.model.parameters())


def test_the_command_measures_on_the_way(tmp_path: Path) -> None:
    arguments = [*smallest_training(tmp_path), "--batch", "8", "--at", "0", "--at", "2"]
    done = CliRunner().invoke(alignment.main, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "resnet18.json").read_text())
    # 20 batch norms with scale and shift, and the classifier's bias.
    assert [sum(row["step"] == step for row in found) for step in (0, 1, 2)] == [41, 0, 41]
    scales = [r for r in found if r["step"] == 0 and r["parameter"].endswith("residual.1.weight")]
    assert len(scales) == 8
    assert "| norm.weight, scale-invariant |" in done.output
