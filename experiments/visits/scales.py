"""The tasks at each scale: for a GPU, for one core of a processor, and small enough for tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from experiments.visits.contenders import PLAIN_LINEARS
from experiments.visits.deep_tasks import DEEP_TASKS
from experiments.visits.tasks import RACERS, SHORT_RUNS, TASKS, Task

__all__ = ["CORE_TASKS", "NAMES", "log_name", "tasks_at"]

NAMES = {"full": "gpu-visit", "core": "core-visit", "deep": "deep-visit"}
"""Scale → what its log and the page call the visit."""

SMOKE_STEPS = 90

BASELINES = ("sgdm", "adamw", "muon-adamw")
STEPS_OF_SGDPH = (
    "sgd-ph",
    "gradient",
    "gauss-newton-all",
    "gradient-all",
    "sgd-ph-rademacher",
    "gauss-newton",
    "gauss-newton-affine",
)
SIGNED = ("signed", "clamped")
MIXED = ("muon-gradient", "muon-ph", "muon-gradient-all", "muon-gauss-newton")

FAST = (
    *("muon-gradient-all-fast", "muon-gauss-newton-fast", "muon-ph-fast", "muon-gradient-fast"),
    *("muon-gradient-as-ones", "muon-gradient-all-as-gauss-newton"),
)

CORE_TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task(
            "vgg11",
            "VGG-11 without norm, width 8",
            "vgg11",
            8,
            32,
            3,
            8,
            (
                *BASELINES,
                *STEPS_OF_SGDPH,
                "gradient-as-ones",
                "gradient-as-rademacher",
                "gradient-as-gauss-newton",
                "sgdm-wn",
                *SIGNED,
                "adam-channelwise",
                "soap",
                *MIXED,
                *("muon-adamw-wn", "muon-adamw-as-wn", "muon-adamw-wn-as-plain"),
                *("soap-wn", "soap-as-wn", "adamw-wn"),
            ),
            "plain",
            train_size=3_000,
            searched=SHORT_RUNS,
        ),
        Task(
            "language",
            "Language model, 1 block of 64",
            "language",
            64,
            16,
            150,
            600,
            # The last were added when decoupling had been found to cost Muon more than all else that was compared.
            (*RACERS, "muon-adamw-wn", *FAST, *PLAIN_LINEARS),
            "text",
            depth=1,
            context=64,
            tier=2,
            searched=SHORT_RUNS,
            reference="muon-adamw",
        ),
        Task(
            "burgers",
            "Burgers' equation, 4 layers of 20",
            "mlp-tanh",
            20,
            100,
            1125,
            3000,
            (*BASELINES, *STEPS_OF_SGDPH, *SIGNED, "adam-channelwise", "soap", *MIXED),
            "equation",
            tier=3,
            searched={**SHORT_RUNS, "weight_decay": (1e-4, 2e-3)},
        ),
        Task(
            "vgg11-bn",
            "VGG-11 with batch norm, width 8",
            "vgg11-bn",
            8,
            32,
            3,
            8,
            (
                *BASELINES,
                *STEPS_OF_SGDPH,
                "gradient-as-ones",
                "gradient-as-rademacher",
                "gradient-as-gauss-newton",
                "ones-as-rademacher",
                "adam-channelwise",
                "muon-gradient",
                "muon-ph",
            ),
            "normalized",
            train_size=3_000,
            tier=4,
            searched=SHORT_RUNS,
        ),
    )
}
"""By name: what one core of a processor tunes and trains in about an hour."""


ON_ONE_CORE = {"core": CORE_TASKS, "deep": DEEP_TASKS}


def log_name(scale: str) -> str:
    """Give the name of the log that a scale writes to."""
    return f"{NAMES.get(scale, NAMES['full'])}.jsonl"


def tasks_at(scale: str) -> dict[str, Task]:
    """Give the tasks at a scale.

    Args:
        scale: ``"full"``, for a GPU. ``"core"`` and ``"deep"``, for one core of a processor. ``"smoke"``, the GPU's
            with as many steps as it takes to record all graphs. ``"tiny"``, all of them, so small that tests run them.
    """
    if scale in ON_ONE_CORE:
        return dict(ON_ONE_CORE[scale])
    change: Callable[[Task], Task] = {"full": _unchanged, "smoke": _smoke, "tiny": _tiny}[scale]
    tasks = {**DEEP_TASKS, **CORE_TASKS, **TASKS} if scale == "tiny" else TASKS
    return {name: change(task) for name, task in tasks.items()}


def _unchanged(task: Task) -> Task:
    return task


def _smoke(task: Task) -> Task:
    if task.is_text:
        return replace(task, trial_length=SMOKE_STEPS)
    return replace(task, trial_length=1, train_size=min(40_000, SMOKE_STEPS * task.batch_size))


def _tiny(task: Task) -> Task:
    if task.is_text:
        return replace(task, width=8, depth=1, context=16, batch_size=2, trial_length=2, length=3)
    if task.is_equation:
        return replace(task, width=4, batch_size=8, trial_length=2, length=3)
    # A 1×1 convolution of stride 2 on channels-last images of four channels or fewer corrupts memory in its backward
    # pass, in torch 2.14 on a CPU with AVX2 and without AVX512. So a ResNet has eight.
    width = 2 if task.network == "speedrun" else 8 if task.network.startswith("resnet") else 4
    return replace(task, width=width, batch_size=8, trial_length=1, length=1, train_size=16)
