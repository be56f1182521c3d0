"""What a rule does not understand it declines, in the forward sweep, before any gradient is written."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sgdph_fx.curvature.forward_over_reverse.fallback import FALLBACK
from sgdph_fx.curvature.forward_over_reverse.registry import RULES, rule_of
from sgdph_fx.curvature.forward_over_reverse.rule import ForwardNode, GiveUp, Tensors, saved, saved_ints

X = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
BAGS = torch.tensor([[1, 2], [3, 0]])


def pushed(output: Tensor) -> Tensors:
    """What the rule of the last operation makes of tangents of ones."""
    node: Any = output.grad_fn
    edges = node.next_functions
    tangents = [
        None if child is None else torch.ones(child._input_metadata[number].shape, dtype=torch.float64)
        for child, number in edges
    ]
    active = tuple(t is not None for t in tangents)
    rule = rule_of(node)
    assert rule is not FALLBACK
    return rule.jvp(ForwardNode(node, rule, active, tangents, [False] * len(edges)))


def given() -> Tensor:
    return X.clone().requires_grad_()


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("sparse gradients", lambda: F.embedding(BAGS, given(), sparse=True)),
        ("sparse", lambda: F.embedding_bag(BAGS, given(), sparse=True)),
        ("padding", lambda: F.embedding_bag(BAGS, given(), padding_idx=1)),
        (
            "weights for each index",
            lambda: F.embedding_bag(
                BAGS, given(), mode="sum", per_sample_weights=X[:2, :2].clone().requires_grad_()
            ),
        ),
    ],
)
def test_an_operation_is_declined_by_name(name: str, output: Any) -> None:
    with pytest.raises(GiveUp, match=name):
        pushed(output())


@pytest.mark.parametrize(
    "output",
    [
        lambda: torch.native_layer_norm(given(), (6,), None, None, 1e-5)[0],
        lambda: torch.native_group_norm(given(), None, None, 4, 6, 1, 2, 1e-5)[0],
        lambda: torch.native_batch_norm(given(), None, None, None, None, True, 0.1, 1e-5)[0],
    ],
)
def test_tangents_of_statistics_are_not_made_up(output: Any) -> None:
    """Mean and 1/σ are outputs as well: the product gives up where one is used, as its tangent is not among these."""
    assert len(pushed(output())) == 1


@pytest.mark.parametrize(
    "output",
    [
        lambda z: z * z,
        lambda z: z @ z.mT,
        lambda z: z.sum(),
        lambda z: torch.exp(z),
        lambda z: z.abs(),
        lambda z: torch.view_as_real(z),
    ],
)
def test_complex_numbers_are_left_to_torch(output: Any) -> None:
    z = torch.complex(given(), given())
    node = output(z).grad_fn
    assert rule_of(node) is FALLBACK


def test_negative_integers_are_read_as_they_were_given() -> None:
    node: Any = given()[:, -3:-1].grad_fn
    assert (saved(node, "start"), saved(node, "end")) == (-3, -1)
    assert saved_ints(given().sum((0, -1)).grad_fn, "dim") == [0, -1]  # type: ignore[arg-type]
    assert saved_ints(given().sum((), keepdim=True).grad_fn, "dim") == []  # type: ignore[arg-type]


def test_what_another_version_of_torch_does_not_save_is_declined() -> None:
    with pytest.raises(GiveUp, match=r"torch .* saves no approximation for SimpleNamespace"):
        saved(SimpleNamespace(), "approximation")  # type: ignore[arg-type]


def test_rules_are_of_operations_that_some_torch_has() -> None:
    """A misspelt name would leave an operation to torch in silence."""
    known = {name for name in dir(torch._C._functions) if "Backward" in name}
    elsewhere = {"CopyBackwards"}
    since_2_12 = {"AminmaxBackward0", "NarrowCopyBackward0", "UpsampleLanczos2DAaBackward0"}
    views = ("View", "UnsafeView", "ReshapeAlias", "ReshapeCopy", "Squeeze", "Unsqueeze", "Alias")
    numbered = {name for name in RULES if name.startswith(views)}
    unknown = RULES.keys() - known - elsewhere - numbered
    if not known & since_2_12:
        unknown -= since_2_12
    assert unknown <= {name for name in RULES if name.endswith("_copy")}
