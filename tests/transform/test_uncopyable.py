"""A model whose copy would still use the original is refused with the way out."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch.nn.functional as F
from torch import nn

from sgdph_fx import prepare
from sgdph_fx.errors import UncopyableModelError
from tests.trace.states import state_of
from tests.transform.test_copying import X, all_are_trained, net

NAMED = net()


def test_a_function_that_names_the_original_is_refused_with_the_way_out() -> None:
    NAMED[0].forward = lambda x: F.conv2d(x, NAMED[0].weight, NAMED[0].bias)
    before = state_of(NAMED)
    with pytest.raises(UncopyableModelError, match=r"the function .*<lambda>.*Pass inplace=True"):
        prepare(NAMED, X)
    assert state_of(NAMED) == before
    prepared, groups, _ = prepare(NAMED, X, inplace=True)
    assert all_are_trained(prepared, groups)


def test_a_cached_function_is_refused() -> None:
    model = net()
    conv = model[0]
    kept = functools.lru_cache(lambda: conv)
    model[1].register_forward_hook(lambda module, args, result: result + kept().weight.sum())
    with pytest.raises(UncopyableModelError, match="Pass inplace=True"):
        prepare(model, X)


class Holder:
    """Says that its copies are itself."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __deepcopy__(self, memo: Any) -> Holder:
        return self


def test_an_object_that_leads_to_the_original_is_refused() -> None:
    model = net()
    model.holder = Holder(model[0])
    with pytest.raises(UncopyableModelError, match=r"an attribute leads to a part of it.*inplace=True"):
        prepare(model)


class Shared(nn.Conv2d):
    def __deepcopy__(self, memo: Any) -> Shared:
        return self


def test_a_part_that_copies_share_is_not_rewritten_in_the_copy_alone() -> None:
    model = nn.Sequential(Shared(3, 4, 3), nn.ReLU())
    before = state_of(model)
    with pytest.raises(UncopyableModelError, match="shared by the model and its copy"):
        prepare(model)
    assert state_of(model) == before
    frozen = nn.Sequential(Shared(3, 3, 1).requires_grad_(False), nn.Conv2d(3, 4, 3))
    prepared = prepare(frozen).model  # a teacher, say: shared, and left alone
    assert prepared[0] is frozen[0]


class Remembers(nn.Module):
    """Keeps what it computed, as many do to look at it later."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.seen = net(), {}

    def forward(self, x: Any) -> Any:
        self.seen["first"] = [self.body[0](x)]
        return self.body[1:](self.seen["first"][0])


def test_an_attribute_that_holds_a_result_with_its_graph_is_named() -> None:
    model = nn.Sequential(Remembers())
    model(X)
    with pytest.raises(
        UncopyableModelError, match=r"attribute '0\.seen' holds a computed tensor.*Set it to None"
    ):
        prepare(model, X)
    assert prepare(model, X, inplace=True).report.plan.decoupled
