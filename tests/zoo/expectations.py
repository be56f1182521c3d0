"""All hand-derived expectations of torchvision's models, by family in the modules beside this one."""

from __future__ import annotations

from tests.zoo.attention import ATTENTION
from tests.zoo.dense import DENSE
from tests.zoo.expectation import Expectation
from tests.zoo.mobile import MOBILE
from tests.zoo.plain import PLAIN
from tests.zoo.residual import RESIDUAL

__all__ = ["EXPECTATIONS"]

EXPECTATIONS: tuple[Expectation, ...] = PLAIN + RESIDUAL + MOBILE + ATTENTION + DENSE
