"""What a step could divide by: by hand where the Hessian is diagonal, by the dense Hessian elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian
from torch.nn.functional import cosine_similarity, cross_entropy, layer_norm, mse_loss

from experiments import divisors
from experiments.divisors import EPSILON, PAIRS, Comparison, compare, summary
from sgdph_fx import prepare
from tests.experiments.dataset_files import write_cifar10_binary
from tests.experiments.text_files import write_text_files


def _cosine(one: Tensor, two: Tensor) -> float:
    return float(cosine_similarity(one.detach(), two.detach(), 0))


def test_where_the_output_is_linear_gauss_newton_is_the_hessian_and_all_is_known_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    prepared = prepare(nn.Sequential(nn.LayerNorm(5)).double())
    # One sample to a batch: the mean squared error of γ x̂ + β has the diagonal Hessian 2/5 x̂² for γ.
    batches = [tuple(torch.randn(2, 1, 5, generator=generator).double()) for _ in range(4)]
    found = {(each.parameter, each.pair): each for each in compare(prepared, mse_loss, batches, step=4)}  # type: ignore[arg-type]
    normal = [layer_norm(x[0], (5,)) for x, _ in batches]
    bend = torch.stack([2 / 5 * n.square() for n in normal])
    gradients = torch.stack([2 / 5 * (n - y[0]) * n for n, (_, y) in zip(normal, batches, strict=True)])
    mean = gradients.mean(0)
    one, two = (bend[0] + bend[2]) / 2, (gradients[1].abs() + gradients[3].abs()) / 2
    for pair in PAIRS[:2]:
        own = found["0.weight", pair]
        assert (own.step, own.role) == (4, "norm.weight")
        assert own.divisors == pytest.approx(_cosine(one, two))
        assert own.steps == pytest.approx(_cosine(mean / (one + EPSILON), mean / (two + EPSILON)))
        assert own.ratio == pytest.approx(float(one.norm() / two.norm()))
        assert own.alignment == pytest.approx(_cosine(bend.mean(0), -mean))
    for pair in (PAIRS[2], ("H·1", "H·1"), ("Gauss-Newton", "Gauss-Newton")):
        again = (bend[1] + bend[3]) / 2
        assert found["0.weight", pair].divisors == pytest.approx(_cosine(one, again))
        assert found["0.weight", pair].ratio == pytest.approx(float(one.norm() / again.norm()))


def test_products_are_the_row_sums_of_the_dense_hessian_on_each_batch() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)).double()
    batches = [(torch.randn(8, 3).double(), torch.randint(2, (8,))) for _ in range(2)]
    prepared = prepare(net)
    value = prepared.model.get_parameter("1.weight").detach()
    products, gradients = [], []
    for x, y in batches:

        def loss_of(own: Tensor, x: Tensor = x, y: Tensor = y) -> Tensor:
            return cross_entropy(functional_call(prepared.model, {"1.weight": own}, (x,)), y)

        products.append(hessian(loss_of)(value).sum(1).detach())
        gradients.append(grad(loss_of)(value).detach())
    product, size = products[0].abs(), gradients[1].abs()
    (own,) = (
        e
        for e in compare(prepared, cross_entropy, batches)
        if (e.parameter, e.pair) == ("1.weight", PAIRS[0])
    )
    assert own.divisors == pytest.approx(_cosine(product, size))
    assert own.ratio == pytest.approx(float(product.norm() / size.norm()))


def test_the_network_is_left_as_it_was() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))
    prepared = prepare(net)
    before = {name: value.clone() for name, value in prepared.model.state_dict().items()}
    compare(prepared, cross_entropy, [(torch.randn(6, 2, 6, 6), torch.tensor([0, 1, 2, 1, 0, 2]))])
    after = prepared.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(p.grad is None for p in prepared.model.parameters())


def test_a_table_has_the_median_of_each_role_with_its_range() -> None:
    found = [
        Comparison(step, name, "gain", pair, 0.5, 0.9, ratio, -0.25)
        for step in (0, 9)
        for name, ratio in (("a", 1.0), ("b", 2.0), ("c", 6.0))
        for pair in PAIRS
    ]
    text = summary(found)
    assert "| gain | 3 | H·1 and g, ratio of D | 2.00 (1.00 to 6.00) | 2.00 (1.00 to 6.00) |" in text
    assert "| gain | 3 | H·1 and −g, cosine | -0.25 (-0.25 to -0.25) |" in text


@pytest.mark.parametrize(
    ("network", "roles"), [("vgg11", {"gain", "bias"}), ("language", {"gain", "norm.weight"})]
)
def test_the_command_measures_images_and_text(network: str, roles: set[str], tmp_path: Path) -> None:
    write_cifar10_binary(tmp_path, 8)
    write_text_files(tmp_path, b"the cat sat on the mat. " * 800)
    small = ["--at", "0", "--at", "1", "--batches", "2", "--batch", "4", "--data", str(tmp_path)]
    command = [*small, "--network", network, "--width", "4", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(divisors.main, command)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / f"{network}.json").read_text())
    assert {row["role"] for row in found} == roles
    assert [{row["step"] for row in found}] == [{0, 1}]
    assert all(0 <= row["divisors"] <= 1 + 1e-9 for row in found)
