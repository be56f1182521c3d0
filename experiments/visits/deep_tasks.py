"""Deep networks without norm, a ViT, large batches and a long run of an equation; each trial has two seeds."""

from __future__ import annotations

from collections.abc import Mapping

from experiments.visits.tasks import SHORT_RUNS, Task

__all__ = ["DEEP_TASKS"]

DECIDING = (
    *("sgdm", "gradient", "sgd-ph", "sgd-ph-rademacher", "gauss-newton"),
    *("gradient-as-ones", "gradient-as-rademacher", "gradient-as-gauss-newton"),
)
BASELINES = ("adamw", "sgdm-longer")

CONTENDERS = (
    *DECIDING,
    "adam-channelwise",
    *BASELINES,
    "signed-as-ones",
    # Added when the first results were known.
    "ones-as-rademacher",
    "rademacher-as-ones",
    "sgd-ph-rademacher-4",
    "signed",
)

# Muon on the matrices, with what may stand beside it; added when a mixture had won on VGG-11 without norm.
MUON = (
    *("muon-adamw", "muon-adamw-wn", "muon-adamw-as-wn", "muon-adamw-wn-as-plain", "muon-gradient"),
    *("soap", "soap-wn", "soap-as-wn", "adamw-wn", "sgdm-wn"),
)

# For the tasks that were added last.
FEWER = (*DECIDING, *BASELINES)

RACING = (
    *("sgdm", "adamw", "muon-adamw", "muon-ph", "muon-gradient", "muon-gradient-as-ph"),
    *("muon-gauss-newton", "muon-gradient-all", "soap"),
    *("muon-gradient-all-as-slow-gauss-newton", "muon-gradient-all-fast", "muon-gauss-newton-fast"),
    *("muon-gradient-all-as-gauss-newton", "muon-adamw-split", "muon-adamw-split-as-gradient"),
    "muon-adamw-split-fast",
    *("muon-ph-fast", "muon-gradient-fast", "muon-gradient-as-ones"),
)

DEEP_TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task(
            "resnet-no-norm",
            "ResNet-18 without norm",
            "resnet18-no-norm-halved",
            8,
            32,
            3,
            8,
            (*CONTENDERS, *MUON),
            "normalized",
            train_size=1_600,
            searched=SHORT_RUNS,
            trial_seeds=2,
            time_ratio=1.875,
        ),
        Task(
            "vit",
            "ViT",
            "vit-patch8",
            16,
            32,
            3,
            8,
            (*CONTENDERS, "ones-bounded", "gradient-bounded"),
            "normalized",
            train_size=1_600,
            tier=2,
            trial_seeds=2,
            time_ratio=2.0,
        ),
        Task(
            "vgg19",
            "VGG-19 without norm",
            "vgg19",
            8,
            32,
            2,
            5,
            (*CONTENDERS, *MUON),
            "plain",
            train_size=3_200,
            tier=3,
            searched=SHORT_RUNS,
            trial_seeds=2,
            time_ratio=1.8,
        ),
        Task(
            "vgg11-b1024",
            "VGG-11 without norm, batch 1,024",
            "vgg11",
            8,
            1024,
            6,
            16,
            FEWER,
            "plain",
            train_size=8_192,
            tier=4,
            trial_seeds=2,
            time_ratio=1.25,
        ),
        Task(
            "speedrun-narrow",
            "Speedrun network, width 8",
            "speedrun",
            8,
            256,
            2,
            6,
            RACING,
            "speedrun",
            train_size=12_800,
            augmentation="translate",
            label_smoothing=0.2,
            mirrored=True,
            tier=5,
            searched=SHORT_RUNS,
            reference="muon-adamw",
            trial_seeds=2,
        ),
        Task(
            "burgers-long",
            "Burgers' equation, three times as long",
            "mlp-tanh",
            20,
            100,
            3_000,
            10_000,
            # The last two were added when most runs with other settings had diverged.
            (*FEWER, "ones-as-rademacher", "gauss-newton-as-rademacher"),
            "equation",
            tier=6,
            searched={"weight_decay": (1e-4, 2e-3)},
            trial_seeds=2,
            time_ratio=2.9,
        ),
        Task(
            "resnet",
            "ResNet-18 with batch norm",
            "resnet18-halved",
            8,
            32,
            3,
            8,
            (*FEWER, "muon-adamw", "soap"),
            "normalized",
            train_size=1_600,
            tier=7,
            trial_seeds=2,
            time_ratio=1.5,
        ),
    )
}
"""By name."""
