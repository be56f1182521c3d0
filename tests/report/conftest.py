import pytest

from sgdph_fx.plan.entries import ConvolutionEntry, Hint, ParameterEntry
from sgdph_fx.plan.plan import Plan


def convolution(name: str, *, norm: str | None = None, decouple: bool, reason: str) -> ConvolutionEntry:
    return ConvolutionEntry(
        name=name,
        kind="Conv2d",
        weight=f"{name}.weight",
        shape=(8, 3, 3, 3),
        out_channels=8,
        transposed=False,
        groups=1,
        verdict="normalized" if norm else "bare",
        norm=norm,
        via=("ReLU",),
        reason=reason,
        decouple=decouple,
        source="net.py:12",
    )


@pytest.fixture
def plan() -> Plan:
    """A convolution of either verdict, a frozen parameter, a hint, and a reason that needs escaping."""
    return Plan(
        model="net.Net",
        policy="see-through",
        way="symbolic",
        convolutions=(
            convolution("stem", norm="norm1", decouple=False, reason="normalized: ReLU, then norm1"),
            convolution("blocks.head", decouple=True, reason="bare: ReLU | Linear [bold]\nfollow, no <norm>"),
        ),
        parameters=(
            ParameterEntry("stem.weight", (8, 3, 3, 3), 1, "weight", "Conv2d", "mixes channels"),
            ParameterEntry(
                "norm1.weight", (8,), 2, "norm.weight", "BatchNorm2d", "one number for each channel"
            ),
            ParameterEntry("blocks.head.direction", (8, 3, 3, 3), 1, "direction", "Conv2d", "mixes channels"),
            ParameterEntry(
                "blocks.head.gain", (8,), 2, "gain", "Conv2d", "one number for each output channel"
            ),
            ParameterEntry("temperature", (), 1, "other", "Net", "a scalar of no channel"),
        ),
        frozen=("classifier.weight",),
        hints=(Hint("absorbed-bias", "stem", "norm1 absorbs this bias"),),
    )
