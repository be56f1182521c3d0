"""What :func:`sgdph_fx.prepare` returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from sgdph_fx.plan.param_groups import ParamGroup
from sgdph_fx.plan.wording import counted
from sgdph_fx.report.report import Report

__all__ = ["Prepared"]


class Prepared(NamedTuple):
    """What :func:`sgdph_fx.prepare` returns.

    Args:
        model: The model, of your own class, in which bare convolutions have been decoupled.
        param_groups: Ordinary parameter groups for :class:`sgdph_fx.SGDPH`, or for any torch optimizer.
        report: What was decided and why; print it to read it.

    >>> from sgdph_fx import prepare
    >>> prepare(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()))
    Prepared(
        model=<Sequential: 1 of 1 convolution decoupled>,
        param_groups=<3 groups: 2 of 3 parameters second-order>,
        report=<print it to read it>,
    )
    """

    model: nn.Module
    param_groups: list[ParamGroup]
    report: Report

    def __repr__(self) -> str:
        plan = self.report.plan
        convolutions = f"{len(plan.decoupled)} of {counted(len(plan.convolutions), 'convolution')} decoupled"
        orders = f"{len(plan.second_order)} of {counted(len(plan.parameters), 'parameter')} second-order"
        return (
            "Prepared(\n"
            f"    model=<{type(self.model).__name__}: {convolutions}>,\n"
            f"    param_groups=<{counted(len(self.param_groups), 'group')}: {orders}>,\n"
            "    report=<print it to read it>,\n"
            ")"
        )
