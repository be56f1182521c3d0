"""What a model is called with is as it was afterwards, whoever makes the call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sgdph_fx import prepare
from tests.trace.test_inputs import InPlace


class Unpacks(nn.Module):
    """Takes its input out of a dictionary, and puts its output in, as models of molecules and points do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        x = batch.pop("x").requires_grad_()
        batch["sizes"].append(len(x))
        batch["y"] = self.conv(x)
        return batch


@pytest.mark.parametrize("form", range(3))
def test_a_dictionary_that_the_model_changes_is_put_back(form: int) -> None:
    x = torch.rand(2, 3, 4, 4)
    batch = {"x": x, "sizes": [1]}
    inputs: list[Any] = [(batch,), {"batch": batch}, lambda m: m(batch)["y"].sum()]
    report = prepare(Unpacks(), inputs[form]).report
    assert report.check is not None
    assert report.check.what == "outputs in evaluation mode"
    assert list(batch) == ["x", "sizes"]
    assert batch["sizes"] == [1]
    assert batch["x"] is x
    assert not x.requires_grad


def test_a_callable_that_computes_its_input_anew() -> None:
    encoder, x = nn.Conv2d(3, 3, 1), torch.rand(2, 3, 4, 4)
    for make in (lambda: encoder(x), lambda: x[:1], lambda: encoder(x)[:1]):
        assert len(prepare(InPlace(), lambda m, make=make: m(make())).report.plan.convolutions) == 1
