"""Where the probe ``ones`` finds nothing, each case by a proof of its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sgdph_fx import AuditRow, audit
from tests.audits.models import batch_of, everything

EITHER = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def rows(net: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, AuditRow]:
    return {row.name: row for row in audit(net, cross_entropy, batch).rows}


@EITHER
def test_the_classifiers_bias_under_cross_entropy_has_row_sums_of_zero(dtype: torch.dtype) -> None:
    """Its Hessian is the mean of diag(p) − ppᵀ, and the probabilities p add up to one."""
    net, batch = everything(dtype), batch_of(dtype)
    row = rows(net, batch)["classifier.bias"]
    p = net(batch[0]).softmax(1).detach().double()
    assert row.empty == "shift"
    assert row.ones_error == pytest.approx(1, abs=1e-5)
    assert row.diagonal == pytest.approx((p * (1 - p)).mean(0).tolist(), rel=1e-4)
    assert "softmax" in row.reason


@EITHER
def test_a_bias_that_batch_norm_absorbs_is_flat_and_the_norm_is_named(dtype: torch.dtype) -> None:
    row = rows(everything(dtype), batch_of(dtype))["conv.bias"]
    assert row.empty == "flat"
    assert row.flat == tuple(range(6))
    assert row.reason.startswith("flat: the loss does not change with it, as norm subtracts the mean")
    assert row.off_diagonal is row.ones_error is row.one_draw_error is row.rademacher_error is None


@EITHER
def test_the_biases_of_attention_keys_are_flat_inside_a_bias_of_all_three(dtype: torch.dtype) -> None:
    """A shift of the keys adds one number to all scores of a query, which softmax takes out."""
    row = rows(everything(dtype), batch_of(dtype))["qkv.bias"]
    assert row.flat == tuple(range(6, 12))
    assert row.empty is None
    assert "attention keys" in row.reason
    assert row.off_diagonal is not None


def test_a_few_keys_in_a_sample_are_known_by_the_name_of_their_layer() -> None:
    audits = (audit(everything(), cross_entropy, batch_of(), channels=4, seed=seed) for seed in range(20))
    found = [row for one in audits for row in one.rows if row.name == "qkv.bias"]
    for row in found:
        assert row.flat == tuple(channel for channel in row.channels if 6 <= channel < 12)
        assert ("attention keys" in row.reason) == bool(row.flat)
    assert {len(row.flat) for row in found} >= {1, 2}


@EITHER
def test_a_bias_that_only_a_layer_norm_reads_has_row_sums_of_zero(dtype: torch.dtype) -> None:
    """The norm subtracts the mean over channels, and with it what is added to all of them alike."""
    row = rows(everything(dtype), batch_of(dtype))["out.bias"]
    assert row.empty == "shift"
    assert row.off_diagonal is not None
    assert "layer norm" in row.reason


@EITHER
def test_living_parameters_are_not_called_empty(dtype: torch.dtype) -> None:
    found = rows(everything(dtype), batch_of(dtype))
    alive = {name for name, row in found.items() if row.empty is None and not row.flat}
    assert alive == {"norm.weight", "norm.bias", "layer_norm.weight", "layer_norm.bias"}


@EITHER
def test_a_small_sample_knows_a_flat_parameter_by_the_rest_of_the_model(dtype: torch.dtype) -> None:
    """With the absorbed bias alone audited there is no other block to compare it with."""
    net, batch = everything(dtype), batch_of(dtype)
    alone = next(
        found
        for found in (audit(net, cross_entropy, batch, sample=1, seed=s) for s in range(50))
        if found.rows[0].name == "conv.bias"
    )
    assert alone.rows[0].empty == "flat"


def test_a_parameter_behind_a_tiny_factor_is_small_but_not_flat() -> None:
    """LayerScale starts at 1e-6: the branch behind it counts for little, and is alive."""
    torch.manual_seed(0)
    branch = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch, self.head = branch, nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(x + 1e-6 * self.branch(x))
            return out

    found = rows(Scaled(), (torch.randn(9, 6), torch.arange(9) % 4))
    for name in ("branch.0.bias", "branch.2.bias"):
        assert found[name].empty is None
        assert found[name].flat == ()


def test_rare_classes_among_a_steep_loss_are_small_but_not_flat() -> None:
    """Behind a steep norm, unlikely classes have a bias of tiny gradient and Hessian, which float32 still resolves."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 40))
    with torch.no_grad():
        net[0].weight.mul_(1e-3)
        net[2].bias[4:] = -9
    row = rows(net, (torch.randn(9, 6), torch.arange(9) % 4))["2.bias"]
    assert max(row.diagonal[4:]) < 1e-4
    assert row.flat == ()
    assert row.empty == "shift"


def test_dead_units_are_flat_channels() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4))
    with torch.no_grad():
        net[0].bias.copy_(torch.tensor([1.0, -100.0, 1.0, 1.0, -100.0, 1.0]))
    row = rows(net, (torch.randn(8, 5), torch.arange(8) % 4))["0.bias"]
    assert row.flat == (1, 4)
    assert row.empty is None
    assert "2 of 6 channels" in row.reason


def test_a_loss_linear_in_a_parameter_is_told_from_one_that_does_not_change_with_it() -> None:
    net = nn.Linear(3, 4)
    (row,) = audit(
        net, lambda out, targets: (out * targets).sum(), (torch.randn(2, 3), torch.ones(2, 4))
    ).rows
    assert row.empty == "linear"
    assert row.off_diagonal is None


def test_a_parameter_that_the_loss_does_not_use_is_said_to_be_unused() -> None:
    net = nn.ModuleDict({"used": nn.Linear(3, 4), "aside": nn.Linear(3, 4)})
    net.forward = lambda x: net["used"](x) + 0 * net["aside"](x).detach()  # type: ignore[method-assign]
    found = rows(net, (torch.randn(4, 3), torch.arange(4)))
    assert found["aside.bias"].empty == "unused"
    assert found["used.bias"].empty == "shift"


def test_nothing_but_unused_parameters_is_no_reason_to_fail() -> None:
    net = nn.Linear(3, 4)
    (row,) = audit(net, lambda out, targets: net.weight.square().sum(), (torch.randn(4, 3), None)).rows
    assert row.empty == "unused"
