"""The numbers of an audit, against BackPACK, against torch.func.hessian, and against a matrix that is known."""

from __future__ import annotations

import copy
from math import sqrt

import pytest
import torch
from backpack import backpack, extend
from backpack.extensions import DiagHessian
from torch import Tensor, nn
from torch.func import functional_call, hessian
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from sgdph_fx import audit, prepare
from tests.audits.models import Everything, batch_of, everything, quadratic

MATRIX = torch.tensor([[4.0, 1.0, 0.0], [1.0, 3.0, -2.0], [0.0, -2.0, 0.0]], dtype=torch.float64)
NOTHING = (torch.zeros(1, 1, dtype=torch.float64), MATRIX)


def block(net: nn.Module, name: str, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The whole block, by torch.func's forward over reverse."""
    parameters = {key: value.detach() for key, value in net.named_parameters()}
    buffers = {key: value.clone() for key, value in net.named_buffers()}

    def loss_of(own: Tensor) -> Tensor:
        out = functional_call(net, {**parameters, **buffers, name: own}, (batch[0],))
        return cross_entropy(out, batch[1])

    with sdpa_kernel(SDPBackend.MATH):
        return hessian(loss_of)(parameters[name])


def without_running_statistics() -> Everything:
    """Batch norm counts its batches in place, which torch.func refuses."""
    net = everything()
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        setattr(net.norm, name, None)
    net.norm.track_running_stats = False
    return net


def test_diagonals_are_those_that_backpack_finds_by_its_own_backpropagation() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(20, 6), nn.Tanh(), nn.Linear(6, 4),
    ).double()  # fmt: skip
    images, labels = torch.randn(7, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 1, 0, 2])
    found = audit(net, cross_entropy, (images, labels))
    other, criterion = extend(copy.deepcopy(net)), extend(nn.CrossEntropyLoss())
    with backpack(DiagHessian()):
        criterion(other(images), labels).backward()
    expected = {name: p.diag_h for name, p in other.named_parameters() if name.endswith("bias")}
    assert [row.name for row in found.rows] == list(expected)
    for row in found.rows:
        diagonal = torch.tensor(row.diagonal, dtype=torch.float64)
        torch.testing.assert_close(diagonal, expected[row.name], rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("chunk", [1, 5])
def test_every_number_is_that_of_the_block_which_torch_func_finds(chunk: int) -> None:
    net, batch = without_running_statistics(), batch_of()
    found = audit(net, cross_entropy, batch, chunk=chunk)
    assert [row.name for row in found.rows] == [n for n, p in net.named_parameters() if p.dim() == 1]
    for row in found.rows:
        whole = block(net, row.name, batch)
        diagonal, scale = whole.diag(), whole.abs().max().item() + 1e-12
        close = {"rtol": 1e-9, "atol": 1e-12 * scale + 1e-18}
        torch.testing.assert_close(torch.tensor(row.diagonal, dtype=torch.float64), diagonal, **close)
        torch.testing.assert_close(torch.tensor(row.ones, dtype=torch.float64), whole.sum(1), **close)
        if row.empty == "flat":
            continue
        off = (whole - diagonal.diag()).norm() / diagonal.norm()
        assert row.off_diagonal == pytest.approx(off.item(), rel=1e-9)
        assert row.ones_error == pytest.approx(
            ((whole.sum(1) - diagonal).norm() / diagonal.norm()).item(), rel=1e-9
        )


def test_a_sample_of_channels_has_the_numbers_of_the_whole_there() -> None:
    net, batch = everything(), batch_of()
    whole = {row.name: row for row in audit(net, cross_entropy, batch).rows}
    found = audit(net, cross_entropy, batch, sample=4, channels=3, seed=5)
    assert len(found.rows) == 4
    # All but the weights of the convolution and of three linear layers.
    assert found.parameters == len(whole) == 8
    for row in found.rows:
        full = whole[row.name]
        assert len(row.channels) == 3
        assert row.diagonal == pytest.approx([full.diagonal[c] for c in row.channels], rel=1e-9, abs=1e-20)
        assert row.ones == pytest.approx([full.ones[c] for c in row.channels], rel=1e-9, abs=1e-15)


def test_shares_and_errors_of_a_matrix_by_hand() -> None:
    (row,) = audit(nn.Linear(1, 3).double(), quadratic, NOTHING).rows
    assert row.diagonal == pytest.approx((4, 3, 0), abs=1e-15)
    assert row.ones == pytest.approx((5, 2, -2), abs=1e-15)
    # Twice 1² and twice (−2)² off the diagonal, 4² + 3² on it; the row sums are off by 1, −1 and −2.
    assert row.off_diagonal == pytest.approx(sqrt(10) / 5)
    assert row.ones_error == pytest.approx(sqrt(6) / 5)
    assert row.empty is None


def test_the_error_of_one_draw_is_the_off_diagonal_share_and_falls_with_the_root_of_the_draws() -> None:
    (row,) = audit(nn.Linear(1, 3).double(), quadratic, NOTHING, draws=4000).rows
    assert row.one_draw_error == pytest.approx(sqrt(10) / 5, rel=0.03)
    assert row.rademacher_error == pytest.approx(0, abs=4 * sqrt(10) / 5 / sqrt(4000))


def test_one_draw_is_exact_where_the_block_is_diagonal_as_2_says() -> None:
    diagonal = torch.tensor([2.0, -1.0, 5.0], dtype=torch.float64).diag()
    (row,) = audit(nn.Linear(1, 3).double(), quadratic, (NOTHING[0], diagonal), draws=1).rows
    assert row.off_diagonal == 0
    assert row.ones_error == row.rademacher_error == row.one_draw_error == 0


def test_a_prepared_model_is_audited_with_its_gains() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4)).double()
    prepared, batch = prepare(net), batch_of()
    found = audit(prepared, cross_entropy, batch)
    assert [row.name for row in found.rows] == ["0.gain", "0.bias", "3.bias"]
    gain = torch.tensor(found.rows[0].diagonal, dtype=torch.float64)
    torch.testing.assert_close(gain, block(prepared.model, "0.gain", batch).diag(), rtol=1e-9, atol=1e-14)


def test_the_same_arguments_give_the_same_audit_and_another_seed_another_sample() -> None:
    net, batch = everything(), batch_of()
    first, again, other = (audit(net, cross_entropy, batch, sample=3, channels=2, seed=s) for s in (1, 1, 2))
    assert first == again
    assert [(r.name, r.channels) for r in first.rows] != [(r.name, r.channels) for r in other.rows]
