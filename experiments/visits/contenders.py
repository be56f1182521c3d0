"""Who competes: methods with the ranges that tuning searches, the same number of trials for each."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from experiments.visits.tasks import Task
from sgdph_fx import SGDPH

__all__ = ["CONTENDERS", "PLAIN_LINEARS", "TRIALS", "Contender", "available", "trial_settings"]

# A Latin design: each setting takes each of its six values once, and no two go up together.
DESIGN = ((0, 3, 1), (1, 0, 4), (2, 4, 2), (3, 1, 5), (4, 5, 0), (5, 2, 3))
TRIALS = len(DESIGN)

Range = tuple[float, float]

SGD: Mapping[str, dict[str, Range]] = {
    "plain": {"lr": (0.003, 0.1), "weight_decay": (1e-4, 2e-3)},
    "normalized": {"lr": (0.01, 0.3), "weight_decay": (3e-4, 6e-3)},
    "large batch": {"lr": (0.04, 1.2), "weight_decay": (3e-4, 6e-3)},
    "speedrun": {"lr": (0.05, 1.5), "weight_decay": (3e-4, 6e-3)},
    "text": {"lr": (0.01, 0.3), "weight_decay": (1e-6, 2e-5)},
    "equation": {"lr": (0.01, 0.3), "weight_decay": (1e-7, 2e-6)},
}
"""By :attr:`Task.ranges`: learning rates span a factor of about 30, decays one of 20."""

ADAM: dict[str, Range] = {"lr": (3e-4, 1e-2), "weight_decay": (1.5e-2, 3e-1)}
SOAP: dict[str, Range] = {**ADAM, "lr": (1e-3, 3e-2)}
MUON: dict[str, Range] = {"lr": (1e-3, 3e-2), "adamw_lr": (5e-4, 1e-2), "weight_decay": (1.5e-2, 3e-1)}
# With Muon, AdamW's rate is a fixed third of Muon's where SGD-PH's rate is searched, so that there are three to search.
MIXED: dict[str, Range] = {
    "lr": (1e-3, 3e-2),
    "channelwise_lr": (2e-5, 4e-4),
    "weight_decay": (1.5e-2, 3e-1),
}
ADAMW_SHARE = 1 / 3


@dataclass(frozen=True, slots=True)
class Contender:
    """A method and what is searched for it.

    Args:
        label: What tables call it.
        method: A key of :data:`experiments.training.methods.METHODS`.
        options: Fixed options of the method.
        extra: Ranges to search beside SGD's.
        own: Ranges to search in place of SGD's.
        faster: Factor on the range of the channel-wise parameters' rate.
        tuned_as: The contender whose best settings it takes, without trials of its own.
        equal_time: Whether it trains longer, by :attr:`Task.time_ratio`, with the schedule stretched.
    """

    label: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Range] = field(default_factory=dict)
    own: Mapping[str, Range] | None = None
    tuned_as: str = ""
    faster: float = 1.0
    equal_time: bool = False

    def ranges(self, task: Task) -> dict[str, Range]:
        """Give the searched settings, the most important first."""
        if self.own is not None:
            found = {name: task.searched.get(name, bounds) for name, bounds in self.own.items()}
            low, high = found.get("channelwise_lr", (0.0, 0.0))
            return {**found, "channelwise_lr": (low * self.faster, high * self.faster)} if high else found
        sgd = SGD[task.ranges]
        return {"lr": sgd["lr"], **self.extra, "weight_decay": sgd["weight_decay"]}


TAU = {"second_order_lr": (5e-4, 1e-2)}
EVERY_FIFTH = {"curvature": "gauss-newton", "refresh": "all", "hessian_interval": 5}


def _sgd_ph(label: str, **options: Any) -> Contender:
    return Contender(label, "sgd-ph", options, TAU)


def _with_settings_of(other: str, label: str, **options: Any) -> Contender:
    return replace(_sgd_ph(label, **options), tuned_as=other)


def _mixed(label: str, **options: Any) -> Contender:
    return Contender(label, "muon-ph", options, own=MIXED)


CONTENDERS: Mapping[str, Contender] = {
    "sgdm": Contender("SGDM", "sgdm"),
    "sgdm-longer": Contender("SGDM, for SGD-PH's time", "sgdm", tuned_as="sgdm", equal_time=True),
    "sgdm-wn": Contender("SGDM, decoupled", "sgdm-wn"),
    "sgd-ph": _sgd_ph("SGD-PH, ones", probe="ones"),
    "sgd-ph-rademacher": _sgd_ph("SGD-PH, rademacher", probe="rademacher"),
    "sgd-ph-rademacher-4": _with_settings_of(
        "sgd-ph-rademacher", "SGD-PH, mean of four rademacher, with the settings of one", probe="rademacher-4"
    ),
    "rademacher-as-ones": _with_settings_of(
        "sgd-ph", "SGD-PH, rademacher, with the settings of ones", probe="rademacher"
    ),
    "gradient": _sgd_ph("By gradient, one at a time", probe="gradient"),
    "gradient-as-ones": _with_settings_of(
        "sgd-ph", "By gradient, with the settings of ones", probe="gradient"
    ),
    "gradient-as-rademacher": _with_settings_of(
        "sgd-ph-rademacher", "By gradient, with the settings of rademacher", probe="gradient"
    ),
    "gradient-as-gauss-newton": _with_settings_of(
        "gauss-newton", "By gradient, with the settings of Gauss-Newton", probe="gradient"
    ),
    "ones-as-rademacher": _with_settings_of(
        "sgd-ph-rademacher", "SGD-PH, ones, with the settings of rademacher", probe="ones"
    ),
    "gauss-newton-as-rademacher": _with_settings_of(
        "sgd-ph-rademacher", "Gauss-Newton, with the settings of rademacher", curvature="gauss-newton"
    ),
    "gradient-all": _sgd_ph("By gradient, all at once", probe="gradient", refresh="all"),
    "gauss-newton": _sgd_ph("Gauss-Newton, one at a time", curvature="gauss-newton"),
    "gauss-newton-all": _sgd_ph("Gauss-Newton, all, every 5th step", **EVERY_FIFTH),
    "gauss-newton-affine": _sgd_ph(
        "Gauss-Newton, 2×2 blocks, every 5th step", **EVERY_FIFTH, blocks="affine"
    ),
    "signed": _sgd_ph("SGD-PH, ones, signed average", negative_curvature="average"),
    "clamped": _sgd_ph("SGD-PH, ones, negative is none", negative_curvature="zero", max_preconditioner=1.0),
    "signed-as-ones": _with_settings_of(
        "sgd-ph", "SGD-PH, signed average, with the settings of ones", negative_curvature="average"
    ),
    "ones-bounded": _with_settings_of(
        "sgd-ph", "SGD-PH, ones, factor at most 1, with the settings of ones", max_preconditioner=1.0
    ),
    "gradient-bounded": _with_settings_of(
        "sgd-ph",
        "By gradient, factor at most 1, with the settings of ones",
        probe="gradient",
        max_preconditioner=1.0,
    ),
    "adam-channelwise": Contender(
        "SGDM, Adam on channel-wise", "adam-channelwise", {}, {"channelwise_lr": (2e-4, 4e-3)}
    ),
    "adamw": Contender("AdamW", "adamw", own=ADAM),
    "adamw-wn": Contender("AdamW, decoupled", "adamw-wn", own=ADAM),
    "soap": Contender("SOAP", "soap", own=SOAP),
    "soap-wn": Contender("SOAP, decoupled", "soap-wn", own=SOAP),
    "soap-as-wn": Contender("SOAP, with the settings of decoupled", "soap", own=SOAP, tuned_as="soap-wn"),
    "muon-adamw": Contender("Muon, AdamW on the rest", "muon-adamw", own=MUON),
    "muon-adamw-wn": Contender("Muon, AdamW, decoupled", "muon-adamw-wn", own=MUON),
    "muon-adamw-as-wn": Contender(
        "Muon, AdamW, with the settings of decoupled", "muon-adamw", own=MUON, tuned_as="muon-adamw-wn"
    ),
    "muon-adamw-wn-as-plain": Contender(
        "Muon, AdamW, decoupled, with the settings of plain", "muon-adamw-wn", own=MUON, tuned_as="muon-adamw"
    ),
    "muon-ph": _mixed("Muon, SGD-PH on channel-wise", probe="ones"),
    "muon-gradient": _mixed("Muon, by gradient, one at a time", probe="gradient"),
    "muon-gradient-all": _mixed("Muon, by gradient, all at once", probe="gradient", refresh="all"),
    "muon-gauss-newton": _mixed("Muon, Gauss-Newton, all, every 5th step", **EVERY_FIFTH),
}
CONTENDERS = {
    **CONTENDERS,
    **{
        f"{key}-fast": replace(CONTENDERS[key], label=f"{CONTENDERS[key].label}, higher rates", faster=20.0)
        for key in ("muon-gradient-all", "muon-gauss-newton", "muon-ph", "muon-gradient")
    },
    "muon-adamw-split": Contender(
        "Muon, AdamW, the channel-wise at rates of their own", "muon-adamw-split", own=MIXED, faster=20.0
    ),
    # SGD-PH's momentum of 0.9 adds up to ten times its rate, AdamW's is a mean.
    "muon-adamw-split-fast": Contender(
        "Muon, AdamW, the channel-wise at rates ten times as high",
        "muon-adamw-split",
        own=MIXED,
        faster=200.0,
    ),
    "muon-adamw-split-as-gradient": Contender(
        "Muon, AdamW, with the settings of |g| at higher rates",
        "muon-adamw-split",
        own=MIXED,
        tuned_as="muon-gradient-all-fast",
    ),
    "muon-gradient-as-ph": replace(
        CONTENDERS["muon-gradient"], label="Muon, by gradient, with the settings of ones", tuned_as="muon-ph"
    ),
    "muon-gradient-as-ones": replace(
        CONTENDERS["muon-gradient"],
        label="Muon, by gradient, with the settings of ones at higher rates",
        tuned_as="muon-ph-fast",
    ),
    "muon-gradient-all-as-slow-gauss-newton": replace(
        CONTENDERS["muon-gradient-all"],
        label="Muon, by gradient, all at once, with the settings of Gauss-Newton",
        tuned_as="muon-gauss-newton",
    ),
    "muon-gradient-all-as-gauss-newton": replace(
        CONTENDERS["muon-gradient-all"],
        label="Muon, by gradient, all at once, with the settings of Gauss-Newton at higher rates",
        tuned_as="muon-gauss-newton-fast",
    ),
}
# Decoupled linear layers cost Muon more on the language model than anything else that was compared there.
_ON_PLAIN_LINEARS = (
    *("muon-gradient", "muon-ph", "muon-gradient-all", "muon-gauss-newton"),
    *("muon-gradient-all-fast", "muon-gauss-newton-fast", "muon-ph-fast", "muon-gradient-fast"),
    *("muon-adamw-split", "muon-adamw-split-fast"),
)
CONTENDERS = {
    **CONTENDERS,
    **{
        f"{key}-plain": replace(
            CONTENDERS[key],
            label=f"{CONTENDERS[key].label}, linear layers as they are",
            options={**CONTENDERS[key].options, "linears": "keep"},
        )
        for key in _ON_PLAIN_LINEARS
    },
}
"""By key. *One at a time*, *all*: which parameters' Hessian, or what stands in for it, is refreshed at a step."""
PLAIN_LINEARS = tuple(f"{key}-plain" for key in _ON_PLAIN_LINEARS)
"""Those that keep linear layers as they are."""


def available(task: Task) -> list[str]:
    """List a task's contenders, without those whose options this SGDPH does not have."""
    known = {*inspect.signature(SGDPH).parameters, "adamw_lr", "channelwise_lr", "linears"}
    return [key for key in (*task.contenders, *task.later) if CONTENDERS[key].options.keys() <= known]


def trial_settings(task: Task, contender: Contender) -> list[dict[str, float]]:
    """Give the settings of each trial: six values of each setting, logarithmic in its range, in a fixed design.

    Every contender has the same design. One with two settings takes its first two columns. One that takes the settings
    of another has no trials.
    """
    if contender.tuned_as:
        return []
    ranges = contender.ranges(task)
    found = [
        {name: _value(*bounds, level) for (name, bounds), level in zip(ranges.items(), levels, strict=False)}
        for levels in DESIGN
    ]
    if contender.own is MIXED:
        found = [{**each, "adamw_lr": each["lr"] * ADAMW_SHARE} for each in found]
    return found


def _value(low: float, high: float, level: int) -> float:
    """Take the middle of one of six equal parts of the range, on a logarithmic scale, to three digits."""
    return float(f"{low * math.exp((level + 0.5) / TRIALS * math.log(high / low)):.3g}")
