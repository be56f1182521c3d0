"""Dense prediction: segmentation and optical flow."""

from __future__ import annotations

from typing import Any

import torch

from tests.zoo.expectation import Expectation, Rule, SecondOrder, ends, squeeze_excitation, zoo
from tests.zoo.mobile import MOBILENET_V3_LARGE_FEATURES

__all__ = ["DENSE"]

_RESNET50 = 1 + 16 * 3 + 4


def _frames() -> dict[str, Any]:
    return {"image1": torch.rand(1, 3, 128, 128), "image2": torch.rand(1, 3, 128, 128), "num_flow_updates": 2}


def _or(first: Rule, second: Rule) -> Rule:
    return lambda name: first(name) or second(name)


def _encoded(name: str) -> bool:
    return name.startswith("feature_encoder.") and name != "feature_encoder.conv"


DENSE = (
    Expectation(
        model="fcn_resnet50",
        build=zoo("fcn_resnet50", weights_backbone=None, aux_loss=True),
        # FCNHead has two convolutions, and so has the auxiliary head.
        convolutions=_RESNET50 + 2 + 2,
        bare=ends("classifier.4"),
        bare_count=2,
        why="FCNHead: Conv2d, BatchNorm2d, ReLU, Dropout, Conv2d; the last one goes to F.interpolate and out",
        # The heads' last convolutions have a bias; fc is cut off by IntermediateLayerGetter.
        second_order=SecondOrder(norms=_RESNET50 + 1 + 1, gain=2, bias=2),
        norms={"aux_classifier.0": "aux_classifier.1", "backbone.conv1": "backbone.bn1"},
        via={"classifier.4": ("interpolate",)},
    ),
    Expectation(
        model="deeplabv3_resnet50",
        build=zoo("deeplabv3_resnet50", weights_backbone=None, aux_loss=True),
        # ASPP has 1 + 3 + 1 and project; DeepLabHead two more; the auxiliary FCNHead two.
        convolutions=_RESNET50 + 6 + 2 + 2,
        bare=lambda name: name in ("classifier.4", "aux_classifier.4"),
        bare_count=2,
        why="DeepLabHead and FCNHead end in Conv2d, which goes to F.interpolate and out; all others "
        "have BatchNorm2d",
        second_order=SecondOrder(norms=_RESNET50 + 6 + 1 + 1, gain=2, bias=2),
        # ASPPPooling: AdaptiveAvgPool2d, Conv2d, BatchNorm2d, ReLU.
        norms={
            "classifier.0.convs.4.1": "classifier.0.convs.4.2",
            "classifier.0.project.0": "classifier.0.project.1",
        },
    ),
    Expectation(
        model="lraspp_mobilenet_v3_large",
        build=zoo("lraspp_mobilenet_v3_large", weights_backbone=None),
        # cbr.0, scale.1, low_classifier and high_classifier.
        convolutions=MOBILENET_V3_LARGE_FEATURES + 4,
        bare=_or(squeeze_excitation, ends("classifier.scale.1", "low_classifier", "high_classifier")),
        bare_count=8 * 2 + 3,
        why="LRASPPHead.forward: scale is AdaptiveAvgPool2d, Conv2d, Sigmoid; the two classifiers are "
        "added and interpolated; in the backbone squeeze-excitation has no norm",
        # scale.1 has no bias; the two classifiers have one.
        second_order=SecondOrder(norms=MOBILENET_V3_LARGE_FEATURES - 16 + 1, gain=19, bias=16 + 2),
        norms={"classifier.cbr.0": "classifier.cbr.1"},
        reasons={"classifier.scale.1": ("sigmoid",), "classifier.low_classifier": ("add",)},
    ),
    Expectation(
        model="raft_small",
        build=zoo("raft_small"),
        # FeatureEncoder, twice: 1, six BottleneckBlocks of 3, two of them with a downsampling, conv.
        # MotionEncoder: convcorr1, convflow1, convflow2, conv. ConvGRU: three. FlowHead: two.
        convolutions=2 * (1 + 6 * 3 + 2 + 1) + 4 + 3 + 2,
        bare=lambda name: not _encoded(name),
        bare_count=22 + 1 + 4 + 3 + 2,
        why="feature_encoder has InstanceNorm2d behind all convolutions but its last; context_encoder "
        "and the update block, which runs again and again, have norm_layer=None",
        # InstanceNorm2d has no affine. All 53 convolutions have a bias.
        second_order=SecondOrder(gain=32, bias=53),
        norms={"feature_encoder.convnormrelu.0": "feature_encoder.convnormrelu.1"},
        # An instance norm subtracts each channel's mean, and the bias with it.
        redundant_biases=_encoded,
        example=_frames,
        symbolic=False,
    ),
)
