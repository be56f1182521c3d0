"""`maximize=True` is the descent of -loss, whatever curvature divides the steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sgdph_fx.optim import SGDPH

pytestmark = pytest.mark.usefixtures("one_thread")

X = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0])
GN: dict[str, Any] = {"curvature": "gauss-newton"}
OPTIONS: dict[str, dict[str, Any]] = {
    "row sums": {},
    "a negative average is none": {"negative_curvature": "zero"},
    "random signs, a negative average is none": {"probe": "rademacher", "negative_curvature": "zero"},
    "averaged with its sign": {"probe": "exact", "negative_curvature": "average"},
    "gradient": {"probe": "gradient", "refresh": "all"},
    "Gauss-Newton": {**GN, "probe": "exact"},
    "Gauss-Newton, of all": {**GN, "refresh": "all"},
}


def trained(sign: int, options: dict[str, Any], *, by_graph: bool = False) -> Tensor:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 3)).double()
    named = list(net.named_parameters())
    groups: list[dict[str, Any]] = [
        {"params": [(name, p) for name, p in named if (p.dim() == 1) == (order == 2)], "order": order}
        for order in (1, 2)
    ]
    optimizer = SGDPH(groups, 0.05, maximize=sign < 0, without_curvature="raise", **options)
    for _ in range(9):
        optimizer.zero_grad()
        loss = sign * F.cross_entropy(net(X), LABELS)
        if by_graph:
            loss.backward(create_graph=True)  # type: ignore[no-untyped-call]
        else:
            optimizer.backward(loss)
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize("variant", ["authors", "paper"])
@pytest.mark.parametrize("blocks", ["diagonal", "affine"])
@pytest.mark.parametrize("case", OPTIONS)
def test_to_climb_the_loss_is_to_descend_its_negative(case: str, blocks: str, variant: str) -> None:
    if (case, blocks) == ("gradient", "affine"):
        blocks = "diagonal"
    options = {**OPTIONS[case], "blocks": blocks, "variant": variant}
    assert torch.equal(trained(1, options), trained(-1, options))


@pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True:UserWarning")
def test_so_it_is_by_gradients_with_a_graph() -> None:
    options = {"negative_curvature": "zero"}
    assert torch.equal(trained(1, options, by_graph=True), trained(-1, options, by_graph=True))


@pytest.mark.parametrize("refresh", ["cycle", "all"])
def test_one_loss_that_some_descend_and_others_climb(refresh: Any) -> None:
    """L = 2 p² - 3 q²: p descends, and A = 4; q climbs, and A = 6."""
    p, q = (nn.Parameter(torch.tensor([0.5], dtype=torch.float64)) for _ in range(2))
    groups: list[dict[str, Any]] = [
        {"params": [("p", p)], "order": 2},
        {"params": [("q", q)], "order": 2, "maximize": True},
    ]
    optimizer = SGDPH(
        groups, 0.0, variant="paper", probe="exact", hessian_momentum=1.0, refresh=refresh, **GN
    )
    for _ in range(2):
        optimizer.zero_grad()
        optimizer.backward((2 * p.square() - 3 * q.square()).sum())
        optimizer.step()
    assert optimizer.state[p]["hessian_average"].item() == pytest.approx(4, rel=1e-14)
    assert optimizer.state[q]["hessian_average"].item() == pytest.approx(6, rel=1e-14)
