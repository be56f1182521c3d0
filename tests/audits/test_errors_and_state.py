"""An audit changes nothing, and says clearly why where it cannot be made."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sgdph_fx import audit, prepare
from sgdph_fx.errors import AuditError, NoCurvatureError
from tests.audits.models import batch_of, everything
from tests.once import Cut


class Dropping(nn.Module):
    """Batch norm, dropout, and a buffer of its own that every run changes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(5)
        self.drop = nn.Dropout(0.5)
        self.frozen = nn.Dropout(0.5).eval()
        self.head = nn.Linear(5, 3)
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        out: Tensor = self.head(self.frozen(self.drop(torch.tanh(self.norm(x)))))
        return out


def small_batch() -> tuple[Tensor, Tensor]:
    return torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3


@pytest.mark.parametrize("training", [True, False])
def test_buffers_gradients_modes_and_random_numbers_are_as_before(training: bool) -> None:
    net, batch = Dropping(), small_batch()
    if not training:
        net.eval()
    cross_entropy(net(batch[0]), batch[1]).backward()
    modes = {name: module.training for name, module in net.named_modules()}
    state = {name: value.clone() for name, value in net.state_dict().items()}
    gradients = {name: (p.grad, p.grad.clone()) for name, p in net.named_parameters() if p.grad is not None}
    random = torch.get_rng_state()
    with torch.no_grad():
        found = audit(net, cross_entropy, batch)
    assert found.training is training
    assert {name: module.training for name, module in net.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    for name, parameter in net.named_parameters():
        kept, value = gradients[name]
        assert parameter.grad is kept
        assert torch.equal(kept, value)
        assert parameter.requires_grad


def test_dropout_draws_the_same_masks_as_the_next_run_of_the_person() -> None:
    net, batch = Dropping(), small_batch()
    value = audit(net, cross_entropy, batch).value
    assert cross_entropy(net(batch[0]), batch[1]).item() == value


def test_inputs_may_be_one_tensor_several_or_keywords() -> None:
    net, (images, labels) = everything(), batch_of()
    one, several, keywords = (
        audit(net, cross_entropy, (inputs, labels), sample=1) for inputs in (images, (images,), {"x": images})
    )
    assert one == several == keywords


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, lambda net: torch.compile(net, backend="eager")], ids=["parallel", "compiled"]
)
def test_a_wrapped_model_is_audited_as_what_is_inside(wrap: Callable[[nn.Module], nn.Module]) -> None:
    net = nn.Linear(5, 3)
    assert audit(wrap(net), cross_entropy, small_batch()) == audit(net, cross_entropy, small_batch())


def test_progress_counts_every_product_once() -> None:
    told: list[tuple[int, int]] = []
    audit(nn.Linear(5, 3), cross_entropy, small_batch(), draws=4, progress=lambda *pair: told.append(pair))
    assert told[-1] == (3 + 1 + 4, 3 + 1 + 4)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def integers(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
    return audit(prepare(net), cross_entropy, (batch[0].to(torch.uint8), batch[1]))


def frozen_later(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
    prepared = prepare(net)
    prepared.model.get_parameter("bias").requires_grad_(False)
    return audit(prepared, cross_entropy, batch)


def frozen_all(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
    return audit(net.requires_grad_(False), cross_entropy, batch)


def no_reduction(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
    return audit(net, lambda out, y: cross_entropy(out, y, reduction="none"), batch)


def detached(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
    return audit(net, lambda out, y: cross_entropy(out.detach(), y), batch)


def not_finite(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
    return audit(net, lambda out, y: out.sum() / 0, batch)


def bent_without_bound(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
    """d²/db² of |b|^1.5 is 0.75 / √|b|, which is infinite at b = 0."""
    nn.init.zeros_(net.bias)  # type: ignore[arg-type]
    return audit(net, lambda out, y: net.bias[:2].abs().pow(1.5).sum() + out.exp().sum(), batch)  # type: ignore[index]


def wrong_labels(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
    return audit(net, cross_entropy, (batch[0], torch.full((8,), 17)))


def no_pair(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
    return audit(net, cross_entropy, batch[0])  # type: ignore[arg-type]


def no_draws(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
    return audit(net, cross_entropy, batch, draws=0)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            integers,
            r"Linear does not run on the batch \(uint8 of shape \(8, 5\); its parameters are float32\)",
        ),
        (frozen_later, r"bias is second-order by its plan but frozen now.*Unfreeze it, or prepare"),
        (frozen_all, r"Linear has no second-order parameter"),
        (no_reduction, r"The loss is float32 of shape \(8,\), where one real number is needed.*Reduce it"),
        (detached, r"The loss carries no graph.*frozen.*detaches"),
        (not_finite, r"The loss on this batch is -?inf|nan"),
        (bent_without_bound, r"The Hessian of bias is not finite on this batch, at [23] of 3 numbers"),
        (wrong_labels, r"The loss function fails on.*float32 of shape \(8, 3\).*int64 of shape \(8,\)"),
        (no_pair, r"The batch is a Tensor; pass a pair"),
        (no_draws, r"draws=0 was asked for"),
    ],
)
def test_what_cannot_be_audited_is_refused_with_its_reason(
    case: Callable[[nn.Module, tuple[Tensor, Tensor]], Any], message: str
) -> None:
    with pytest.raises(AuditError, match=message):
        case(nn.Linear(5, 3), small_batch())


def test_an_operation_without_second_derivative_is_refused_by_the_name_of_the_parameter() -> None:
    net = nn.Linear(5, 3)
    with pytest.raises(
        NoCurvatureError, match=r"^The Hessian of bias cannot be audited.*no second derivative"
    ):
        audit(net, lambda out, y: Cut.apply(out).exp().sum(), small_batch())


def test_json_holds_every_number_and_reads_back() -> None:
    found = audit(everything(), cross_entropy, batch_of())
    data = json.loads(found.to_json())
    assert data["version"] == 1
    assert [row["name"] for row in data["rows"]] == [row.name for row in found.rows]
    by_name = {row["name"]: row for row in data["rows"]}
    assert by_name["conv.bias"]["empty"] == "flat"
    assert by_name["conv.bias"]["ones_error"] is None
    row = found.rows[1]
    assert by_name[row.name]["ones_error"] == row.ones_error
    assert by_name[row.name]["rademacher_error"] == row.rademacher_error
    assert tuple(by_name[row.name]["diagonal"]) == row.diagonal


def test_text_and_markdown_have_a_line_for_each_parameter_and_count_the_empty_ones() -> None:
    found = audit(everything(), cross_entropy, batch_of())
    # Flat: conv.bias. Row sums of zero: out.bias before the layer norm, classifier.bias before the softmax.
    assert "Parameters on which ones finds nothing: 3 (1 flat, 2 shift)." in str(found)
    assert "8 of 8 second-order parameters audited, in training mode, in float64" in str(found)
    for row in found.rows:
        assert re.search(rf"^{re.escape(row.name)} ", str(found), re.MULTILINE)
        assert f"| {row.name.replace('_', chr(92) + '_')} |" in found.to_markdown()


def test_a_notebook_shows_the_first_rows_and_says_where_the_others_are() -> None:
    net = nn.Sequential(*(nn.Linear(5, 5) for _ in range(60)), nn.Linear(5, 3))
    found = audit(net, cross_entropy, small_batch(), channels=1, draws=1)
    assert len(found.rows) == 61
    assert "11 more: see <code>audit.to_markdown()</code>" in found._repr_html_()


def test_the_plot_is_saved_and_shows_every_measurable_parameter(tmp_path: Path) -> None:
    found = audit(everything(), cross_entropy, batch_of())
    fig = found.plot(tmp_path / "audit.png")
    left, right = fig.axes
    ones, one_draw, share = left.lines
    shown = [row for row in found.rows if row.empty != "flat"]
    assert list(ones.get_ydata()) == pytest.approx([100 * (row.ones_error or 0) for row in shown])
    assert list(one_draw.get_ydata()) == pytest.approx([100 * (row.one_draw_error or 0) for row in shown])
    assert list(share.get_ydata()) == pytest.approx([100 * (row.off_diagonal or 0) for row in shown])
    assert len(right.lines[0].get_xdata()) == sum(len(row.channels) for row in shown)
    assert (tmp_path / "audit.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_in_a_format_that_nobody_writes_is_refused(tmp_path: Path) -> None:
    found = audit(everything(), cross_entropy, batch_of())
    with pytest.raises(AuditError, match=r"matplotlib writes no 'xyz'. It writes .*pdf, .*png, .*svg"):
        found.plot(tmp_path / "audit.xyz")
    assert not list(tmp_path.iterdir())
    found.plot(tmp_path / "audit.PDF")
    assert (tmp_path / "audit.PDF").read_bytes().startswith(b"%PDF")


def test_a_plot_of_nothing_is_refused() -> None:
    linear = audit(nn.Linear(3, 4), lambda out, y: out.sum(), (torch.ones(1, 3), None))
    assert "None of them has a Hessian diagonal" in str(linear)
    with pytest.raises(AuditError, match="nothing to draw"):
        linear.plot()
