"""Inverted residuals, squeeze-excitation and channel shuffle."""

from __future__ import annotations

from functools import partial

import torch

from tests.zoo.expectation import Expectation, SecondOrder, nothing, squeeze_excitation, zoo

__all__ = ["MOBILE", "MOBILENET_V3_LARGE_FEATURES"]

_SMALL = partial(torch.rand, 2, 3, 64, 64)

_SE = (
    "SqueezeExcitation._scale: avgpool, fc1, activation, fc2, scale_activation; no norm. Every "
    "other convolution is followed by BatchNorm2d in Conv2dNormActivation"
)

# features of mobilenet_v3_large: stem and last convolution; 15 blocks with a depthwise and a projecting
# one, 14 of them (all but 16 -> 16) with an expanding one, 8 (use_se=True in the table) with
# squeeze-excitation's two.
MOBILENET_V3_LARGE_FEATURES = 2 + 15 * 2 + 14 + 8 * 2

_WITHOUT_BARE = (
    Expectation(
        model="mobilenet_v2",
        build=zoo("mobilenet_v2"),
        # Stem, last; the first block (expand_ratio 1) has depthwise and projection, 16 others have 3
        # convolutions.
        convolutions=2 + 2 + 16 * 3,
        bare=nothing,
        bare_count=0,
        why="InvertedResidual.__init__: Conv2dNormActivation twice, then Conv2d and norm_layer; the "
        "addition is last",
        second_order=SecondOrder(norms=52, bias=1),
        norms={"features.2.conv.2": "features.2.conv.3", "features.1.conv.0.0": "features.1.conv.0.1"},
    ),
    Expectation(
        model="mnasnet1_0",
        build=zoo("mnasnet1_0"),
        # Three in the stem, stacks of 3 + 3 + 3 + 2 + 4 + 1 blocks with 3 each, one at the end.
        convolutions=3 + 16 * 3 + 1,
        bare=nothing,
        bare_count=0,
        why="MNASNet.__init__ and _InvertedResidual.__init__: a BatchNorm2d behind each Conv2d",
        second_order=SecondOrder(norms=52, bias=1),
        norms={"layers.6": "layers.7", "layers.8.0.layers.6": "layers.8.0.layers.7"},
    ),
    Expectation(
        model="shufflenet_v2_x1_0",
        build=zoo("shufflenet_v2_x1_0"),
        # conv1, conv5; of 4 + 8 + 4 units the first in each stage has 2 + 3 convolutions, the 13 others 3.
        convolutions=2 + 3 * 5 + 13 * 3,
        bare=nothing,
        bare_count=0,
        why="InvertedResidual.__init__: a BatchNorm2d behind each Conv2d; chunk, cat and shuffle come "
        "after norms",
        second_order=SecondOrder(norms=56, bias=1),
        norms={"stage2.0.branch1.0": "stage2.0.branch1.1", "stage2.1.branch2.5": "stage2.1.branch2.6"},
        example=_SMALL,
    ),
)

_WITH_SQUEEZE_EXCITATION = (
    Expectation(
        model="efficientnet_b0",
        build=zoo("efficientnet_b0"),
        # Stem, last; 1 + 2 + 2 + 3 + 3 + 4 + 1 = 16 blocks: the first has depthwise, fc1, fc2, projection,
        # the others an expanding convolution as well.
        convolutions=2 + 4 + 15 * 5,
        bare=squeeze_excitation,
        bare_count=16 * 2,
        why=_SE,
        # Batch norms: 2 + 2 + 15 * 3. Biases: fc1 and fc2 of 16 blocks, and the classifier's.
        second_order=SecondOrder(norms=49, gain=32, bias=32 + 1),
        norms={"features.0.0": "features.0.1", "features.2.0.block.1.0": "features.2.0.block.1.1"},
        via={"features.1.0.block.1.fc1": (), "features.1.0.block.1.fc2": ()},
        reasons={"features.1.0.block.1.fc1": ("silu",), "features.1.0.block.1.fc2": ("sigmoid",)},
        example=_SMALL,
    ),
    Expectation(
        model="efficientnet_v2_s",
        build=zoo("efficientnet_v2_s"),
        # Stem, last; FusedMBConv: 2 blocks of one (expand_ratio 1) and 4 + 4 of two; MBConv: 6 + 9 + 15 of
        # five.
        convolutions=2 + 2 + 8 * 2 + 30 * 5,
        bare=squeeze_excitation,
        bare_count=30 * 2,
        why=_SE + "; FusedMBConv has no squeeze-excitation",
        second_order=SecondOrder(norms=170 - 60, gain=60, bias=60 + 1),
    ),
    Expectation(
        model="mobilenet_v3_small",
        build=zoo("mobilenet_v3_small"),
        # Stem, last; 11 blocks with depthwise and projection, 10 with expansion, 9 with squeeze-excitation.
        convolutions=2 + 11 * 2 + 10 + 9 * 2,
        bare=squeeze_excitation,
        bare_count=9 * 2,
        why=_SE,
        # The classifier has two Linear layers.
        second_order=SecondOrder(norms=2 + 11 * 2 + 10, gain=18, bias=18 + 2),
        norms={"features.1.block.0.0": "features.1.block.0.1", "features.12.0": "features.12.1"},
        # Here fc1 is followed by ReLU, which is transparent; what makes it bare is the convolution behind.
        via={"features.1.block.1.fc1": ("relu",)},
        reasons={"features.1.block.1.fc1": ("conv2d",), "features.1.block.1.fc2": ("hardsigmoid",)},
        example=_SMALL,
    ),
    Expectation(
        model="regnet_y_400mf",
        build=zoo("regnet_y_400mf"),
        # Stem; depth=16 blocks of a, b, se.fc1, se.fc2, c; a projection in the first block of each of the 4
        # stages: round(log(1 + i * 27.89 / 48) / log(2.09)) takes the values 0, 1, 2, 3 for i = 0 ... 15.
        convolutions=1 + 16 * 5 + 4,
        bare=squeeze_excitation,
        bare_count=16 * 2,
        why=_SE,
        second_order=SecondOrder(norms=1 + 16 * 3 + 4, gain=32, bias=32 + 1),
        norms={"trunk_output.block1.block1-0.proj.0": "trunk_output.block1.block1-0.proj.1"},
    ),
)

MOBILE = _WITHOUT_BARE + _WITH_SQUEEZE_EXCITATION
