"""What is trained: networks, data, lengths, and who competes on each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["CONTROLS", "CURVATURES", "RACERS", "SHORT_RUNS", "TASKS", "Task", "lr_factor"]

# On the GPU's tasks the best rate of the channel-wise parameters beside Muon was the highest of its range.
SHORT_RUNS = {"channelwise_lr": (1e-4, 2e-3)}
WARM_UP = 0.15


def lr_factor(progress: float) -> float:
    """Give the factor on all learning rates: it rises for the first 15% of a training, then falls to zero.

    Args:
        progress: Share of the training that is over, in [0, 1).
    """
    return min((progress + 0.01) / WARM_UP, (1 - progress) / (1 - WARM_UP))


@dataclass(frozen=True, slots=True)
class Task:
    """One competition.

    Args:
        name: Its key in :data:`TASKS`.
        label: What tables call it.
        network: A key of :data:`experiments.networks.NETWORKS`, ``"speedrun"``, ``"language"`` or ``"mlp-tanh"``.
        width: Channels of its first layer, or of each position.
        batch_size: Images, sequences, or points of an equation.
        trial_length: Length of a trial, in epochs for images and in steps for text and equations.
        length: Length of a run that counts, likewise.
        contenders: Keys of :data:`experiments.visits.contenders.CONTENDERS`, the most important first.
        ranges: Which learning rates and decays SGD searches; see :mod:`experiments.visits.contenders`.
        train_size: Training images of a run; None is all.
        augmentation: ``"crop"``, as usual for CIFAR, or ``"translate"``, as in the speedrun.
        label_smoothing: Of the training loss.
        mirrored: Whether the test averages each image with its mirror image.
        depth: Blocks of the language model.
        context: Bytes of a sequence.
        tier: 1 is run first.
        later: More contenders, which are run with the tasks of the next tier.
        searched: Setting → its range, in place of the one of the contenders that have ranges of their own.
        reference: The contender that the page compares all others with.
        trial_seeds: Seeds of each trial. The settings with the best mean are chosen.
        time_ratio: How much longer a contender trains that is to take as much time as SGD-PH: the time of a step of
            SGD-PH divided by SGDM's, measured beforehand.
    """

    name: str
    label: str
    network: str
    width: int
    batch_size: int
    trial_length: int
    length: int
    contenders: tuple[str, ...]
    ranges: str
    train_size: int | None = None
    augmentation: str = "crop"
    label_smoothing: float = 0.0
    mirrored: bool = False
    depth: int = 4
    context: int = 256
    tier: int = 1
    later: tuple[str, ...] = ()
    searched: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    reference: str = "sgdm"
    trial_seeds: int = 1
    time_ratio: float = 1.0

    @property
    def is_text(self) -> bool:
        """Whether it is about text, and scored by the loss."""
        return self.network == "language"

    @property
    def is_equation(self) -> bool:
        """Whether it is about an equation, and scored by correct digits."""
        return self.network == "mlp-tanh"


CONTROLS = (
    *("sgdm", "sgd-ph", "gradient", "gauss-newton-all", "sgd-ph-rademacher", "gradient-all"),
    *("adamw", "adam-channelwise", "muon-adamw", "muon-gradient"),
)
CURVATURES = ("gauss-newton", "gauss-newton-affine", "signed", "clamped")
RACERS = (
    *(
        "sgdm",
        "adamw",
        "muon-adamw",
        "muon-gradient-all",
        "muon-gauss-newton",
        "muon-ph",
        "soap",
        "muon-gradient",
    ),
)

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task(
            "vgg11",
            "VGG-11 without norm",
            "vgg11",
            64,
            128,
            3,
            8,
            ("sgdm-wn", *CONTROLS),
            "plain",
            train_size=20_000,
            later=CURVATURES,
        ),
        Task(
            "speedrun",
            "Speedrun network",
            "speedrun",
            64,
            512,
            3,
            8,
            RACERS,
            "speedrun",
            augmentation="translate",
            label_smoothing=0.2,
            mirrored=True,
            reference="muon-adamw",
        ),
        Task(
            "language",
            "Language model",
            "language",
            192,
            32,
            200,
            800,
            (*RACERS, "muon-adamw-wn"),
            "text",
            reference="muon-adamw",
        ),
        Task(
            "resnet18",
            "ResNet-18, width 32",
            "resnet18",
            32,
            128,
            3,
            8,
            CONTROLS,
            "normalized",
            train_size=20_000,
            tier=2,
        ),
        Task(
            "resnet18-b1024",
            "ResNet-18, width 32, batch 1,024",
            "resnet18",
            32,
            1024,
            3,
            8,
            CONTROLS,
            "large batch",
            train_size=20_000,
            tier=3,
        ),
    )
}
"""By name."""
