"""A sample of torch's database of operations, in the three positions; the whole of it is a command."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from benchmarks.operations.__main__ import main, sweep
from benchmarks.operations.database import database
from benchmarks.operations.judge import judge
from benchmarks.operations.positions import Position

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = (
    *(
        "add",
        "cat",
        "clamp",
        "cumprod",
        "einsum",
        "fft.rfft",
        "index_put",
        "linalg.eigh",
        "linalg.norm",
        "logcumsumexp",
    ),
    *(
        "masked_scatter",
        "matmul",
        "max",
        "native_batch_norm",
        "native_layer_norm",
        "nn.functional.conv_transpose2d",
    ),
    *(
        "nn.functional.cross_entropy",
        "nn.functional.group_norm",
        "nn.functional.interpolate",
        "nn.functional.l1_loss",
    ),
    *(
        "nn.functional.max_pool2d",
        "nn.functional.scaled_dot_product_attention",
        "polar",
        "pow",
        "prod",
        "slice",
    ),
    *("sort", "sparse.mm", "sparse.sampled_addmm", "std_mean", "svd", "tensor_split", "unfold", "where"),
)


def numbers() -> dict[str, int]:
    found: dict[str, int] = {}
    for number, operation in enumerate(database()):
        if operation.name in NAMES:
            found.setdefault(operation.name, number)
    return found


def test_every_product_of_the_sample_is_right_or_refused_by_name() -> None:
    found = numbers()
    assert sorted(found) == sorted(NAMES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = [row for number in found.values() for row in sweep(number, 2)]
    bad = [row for row in rows if row["verdict"] in ("wrong", "crashed")]
    assert bad == []
    refused = {row["operation"] for row in rows if row["verdict"] == "refused"}
    # Torch itself has no second derivative of these, or none of a gradient that the loss holds.
    assert refused <= {
        *("native_batch_norm", "native_layer_norm", "nn_functional_conv_transpose2d", "sparse_sampled_addmm"),
        *("nn_functional_scaled_dot_product_attention", "sparse_mm_reduce"),
    }
    assert sum(row["verdict"] == "right" for row in rows) > 150


def test_the_judge_tells_right_from_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    cube = Position("cube", lambda p: ((p + 1) ** 3).sum(), rounds=False)
    assert judge(cube).verdict == "right"
    assert judge(Position("constant", lambda p: p.detach().sum(), rounds=False)).verdict == "constant"
    monkeypatch.setattr("benchmarks.operations.judge.backward_with_product", lambda loss, p, v, on_give_up: v)
    assert judge(cube).verdict == "wrong"

    def failing(*_: object, **__: object) -> None:
        raise IndexError("of our own")

    monkeypatch.setattr("benchmarks.operations.judge.backward_with_product", failing)
    outcome = judge(cube)
    assert (outcome.verdict, outcome.detail) == ("crashed", "IndexError: of our own")


class _HalfSecond(torch.autograd.Function):
    """x³, whose backward takes one of the two factors of x² for a constant, as torch does with what is saved."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, x.clone())
        return x**3

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        x, constant = ctx.saved_tensors
        return 3 * g * x * constant


@pytest.mark.parametrize(
    ("position", "verdict"),
    [
        (Position("half of it", lambda p: _HalfSecond.apply(p + 1).sum(), rounds=False), "wrong"),  # type: ignore[no-untyped-call]
        (Position("a staircase", lambda p: ((p + 1).half() ** 2).sum().double(), rounds=True), "right"),
        (Position("a kink", lambda p: ((p + 1) ** 2 * (1 + (p > 0))).sum(), rounds=False), "right"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_torchs_double_backward_is_believed_only_if_finite_differences_agree(
    position: Position, verdict: str
) -> None:
    """Where they can tell: beside a staircase or a jump they say nothing, and torch's convention counts."""
    outcome = judge(position)
    assert outcome.verdict == verdict
    assert (outcome.oracle == "finite differences") == (verdict == "wrong")


def test_the_command_counts_what_came_out(tmp_path: Path) -> None:
    out = tmp_path / "log.jsonl"
    done = CliRunner().invoke(
        main, ["--only", "nn_functional_softshrink", "--samples", "1", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["verdict"] for row in rows} == {"begun", "right"}
    assert "right:" in done.output
    assert torch.is_grad_enabled()
