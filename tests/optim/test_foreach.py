"""Multi-tensor calls and the plain loop give the same bits, on mixed dtypes and half-filled states too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sgdph_fx.optim import SGDPH


@pytest.mark.parametrize("variant", ["authors", "paper"])
@pytest.mark.parametrize("decay", [0.0, 0.02])
@pytest.mark.parametrize("maximize", [False, True])
def test_the_same_bits(
    small: Any, make_batches: Any, make_groups: Any, variant: Any, decay: float, maximize: bool
) -> None:
    nets = [small().float(), small().float()]
    data = [(x.float(), y) for x, y in make_batches(20)]
    for net, foreach in zip(nets, (True, False), strict=True):
        optimizer = SGDPH(
            make_groups(net), 0.02, variant=variant, weight_decay=decay, maximize=maximize, foreach=foreach
        )
        for step, batch in enumerate(data):
            optimizer.zero_grad()
            # Its momentum starts two steps after the others'.
            net.norm2.weight.requires_grad_(step >= 2)
            optimizer.backward(net.loss(batch))
            optimizer.step()
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.isfinite(p).all()
        assert torch.equal(p, q)


@pytest.mark.parametrize("variant", ["authors", "paper"])
def test_parameters_of_two_dtypes_in_one_group(variant: Any) -> None:
    finals = []
    for foreach in (True, False):
        torch.manual_seed(0)
        params = [
            nn.Parameter(torch.randn(3, dtype=d)) for d in (torch.float32, torch.float64, torch.float32)
        ]
        optimizer = SGDPH([{"params": params, "order": 2}], 0.1, variant=variant, foreach=foreach)
        for _ in range(7):
            optimizer.zero_grad()
            optimizer.backward(sum((p.double() ** 4).sum() for p in params))  # type: ignore[arg-type]
            optimizer.step()
        finals.append(params)
    for p, q in zip(*finals, strict=True):
        assert p.dtype == q.dtype
        assert torch.equal(p, q)
