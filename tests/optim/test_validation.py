"""Every refusal of the constructor names what it found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sgdph_fx import prepare
from sgdph_fx.errors import OptimizerError
from sgdph_fx.optim import SGDPH


def parameter() -> nn.Parameter:
    return nn.Parameter(torch.ones(2))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"lr": -1.0}, r"lr=-1\.0 \(τ\) must be a number ≥ 0"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"lr": torch.ones(2)}, r"lr=tensor\(\[1\., 1\.\]\)"),
        ({"lr": "0.1"}, "lr='0.1'"),
        ({"second_order_lr": -1e-3}, r"second_order_lr=-0\.001 \(τ_SO\)"),
        ({"momentum": 1.0}, r"momentum=1\.0 \(β\) must be a number in \[0, 1\) for variant='authors'"),
        ({"momentum": 0.0, "variant": "paper"}, r"must be a number in \(0, 1\] for variant='paper'"),
        ({"hessian_momentum": 1.5}, r"hessian_momentum=1\.5 \(α\)"),
        ({"weight_decay": -0.1}, r"weight_decay=-0\.1 \(η\)"),
        ({"weight_decay": float("inf")}, "weight_decay=inf"),
        ({"eps": 0.0}, r"eps=0\.0 \(ε\) must be a number > 0"),
        ({"variant": "printed"}, "variant='printed' is not known; choose one of 'authors', 'paper'"),
        ({"maximize": 1}, "maximize=1 must be one of True, False"),
        ({"foreach": "yes"}, "foreach='yes' must be one of True, False, None"),
    ],
)
def test_numbers_out_of_range(given: dict[str, Any], says: str) -> None:
    with pytest.raises(OptimizerError, match=says):
        SGDPH([parameter()], **{"lr": 0.1, **given})
    if "variant" not in given:
        with pytest.raises(OptimizerError, match=r"param_groups\[0\]: " + says):
            SGDPH([{"params": [parameter()], **given}], lr=0.1)


@pytest.mark.parametrize("key", ["momentum", "hessian_momentum"])
def test_the_ends_of_the_ranges_that_mean_something(key: str) -> None:
    p = parameter()
    for variant, value in (("authors", 0.0), ("paper", 1.0)):
        optimizer = SGDPH([{"params": [p, parameter()], "order": 2}], 0.1, **{"variant": variant, key: value})  # type: ignore[arg-type]
        optimizer.backward((p**2).sum())
        optimizer.step()
        assert torch.isfinite(p).all()


@pytest.mark.parametrize(
    ("group", "says"),
    [
        ({"order": 3}, r"param_groups\[0\]: order=3 must be 1"),
        ({"order": True}, "order=True must be 1"),
        ({"variant": "paper"}, "asks for variant='paper', the optimizer is of variant 'authors'"),
        ({"index": [0, 1]}, r"param_groups\[0\]\['index'\] is \[0, 1\]; it must list one int for each"),
        ({"index": ["a"]}, "one int for each"),
    ],
)
def test_groups_that_mean_nothing(group: dict[str, Any], says: str) -> None:
    with pytest.raises(OptimizerError, match=says):
        SGDPH([{"params": [parameter()], **group}], 0.1)


def test_what_is_no_group_at_all() -> None:
    with pytest.raises(OptimizerError, match=r"has no 'params'; it has 'parameters'"):
        SGDPH([{"parameters": [parameter()]}], 0.1)
    with pytest.raises(OptimizerError, match=r"param_groups\[1\] is a Parameter"):
        SGDPH([{"params": [parameter()]}, parameter()], 0.1)  # type: ignore[arg-type]


def test_one_place_for_two_parameters() -> None:
    with pytest.raises(OptimizerError, match=r"gives place 4 that another"):
        SGDPH([{"params": [parameter(), parameter()], "index": [4, 4]}], 0.1)
    optimizer = SGDPH([{"params": [parameter()], "index": [4], "order": 2}], 0.1)
    with pytest.raises(OptimizerError, match=r"param_groups\[1\]\['index'\] gives place 4"):
        optimizer.add_param_group({"params": [parameter()], "index": [4], "order": 2})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("variant", ["authors", "paper"])
@pytest.mark.parametrize("foreach", [False, True])
def test_complex_parameters_take_first_order_steps(variant: Any, foreach: bool) -> None:
    """|z - 1|² + p²: torch's gradient by z is 2 (z - 1); the second-order one beside it keeps its Hessian."""
    z = nn.Parameter(torch.tensor([2 + 1j, 1 - 3j], dtype=torch.complex128))
    p = nn.Parameter(torch.ones(2, dtype=torch.float64))
    groups = [{"params": [p, parameter()], "order": 2}, {"params": [z], "order": 1}]
    optimizer = SGDPH(groups, 0.1, variant=variant, momentum=0.5, foreach=foreach)
    start = z.detach().clone()
    optimizer.backward((z - 1).abs().square().sum() + (p**2).sum())
    optimizer.step()
    weight = 1.0 if variant == "authors" else 0.5
    torch.testing.assert_close(z.detach(), start - 0.1 * weight * 2 * (start - 1), rtol=1e-12, atol=0)
    assert "hessian_average" in optimizer.state[p]
    assert "hessian_average" not in optimizer.state[z]


def test_all_that_prepare_returned_and_a_model_are_told_what_to_pass() -> None:
    prepared = prepare(nn.Linear(2, 2))
    with pytest.raises(OptimizerError, match=r"all that `prepare` returned.*SGDPH\(prepared\.param_groups"):
        SGDPH(prepared, 0.1)  # type: ignore[arg-type]
    with pytest.raises(OptimizerError, match=r"This Linear is a model.*sgdph_fx\.param_groups\(model\)"):
        SGDPH(prepared.model, 0.1)  # type: ignore[arg-type]


def test_a_first_group_may_be_empty() -> None:
    p, last = parameter(), parameter()
    optimizer = SGDPH([{"params": []}, {"params": [p, last], "order": 2, "index": [0, 1]}], 0.1)
    optimizer.backward((p**3).sum())
    optimizer.step()
    # ∂²p³ = 6 p at p = 1.
    torch.testing.assert_close(optimizer.state[p]["hessian_average"], torch.full((2,), 0.6))


def test_complex_sparse_and_non_leaf_parameters_by_name() -> None:
    complex_one = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    named = [("head.weight", parameter()), ("head.phase", complex_one)]
    with pytest.raises(OptimizerError, match=r"Parameter 'head\.phase' is complex .* order=2"):
        SGDPH([{"params": named, "order": 2}], 0.1)
    with pytest.raises(OptimizerError, match=r"param_groups\[0\]\['params'\]\[1\] is complex"):
        SGDPH([{"params": [parameter(), complex_one], "order": 2}], 0.1)
    sparse = torch.eye(2).to_sparse().requires_grad_()
    with pytest.raises(OptimizerError, match="Parameter 'table' is sparse"):
        SGDPH([("table", sparse)], 0.1)
    with pytest.raises(ValueError, match="non-leaf"):
        SGDPH([parameter() * 2], 0.1)
