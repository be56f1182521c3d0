"""Networks without norms, and their twins with batch norm: AlexNet, VGG, SqueezeNet."""

from __future__ import annotations

from functools import partial

import torch

from tests.zoo.expectation import Expectation, SecondOrder, everything, nothing, zoo

__all__ = ["PLAIN"]

_NO_NORM = "make_layers: Conv2d, ReLU and MaxPool2d only; the classifier is Linear, ReLU and Dropout"


def _vgg(name: str, convolutions: int) -> Expectation:
    return Expectation(
        model=name,
        build=zoo(name, init_weights=False),
        convolutions=convolutions,
        bare=everything,
        bare_count=convolutions,
        why=_NO_NORM,
        # Each convolution has a bias, and so have the classifier's 3 Linear layers.
        second_order=SecondOrder(gain=convolutions, bias=convolutions + 3),
        # features.0 is followed by ReLU and then by pooling ("A") or by the next convolution ("D", "E").
        reasons={"features.0": ("relu", "conv2d")},
    )


PLAIN = (
    # cfgs "A", "D", "E": the entries that are numbers.
    _vgg("vgg11", 1 + 1 + 2 + 2 + 2),
    _vgg("vgg16", 2 + 2 + 3 + 3 + 3),
    _vgg("vgg19", 2 + 2 + 4 + 4 + 4),
    Expectation(
        model="vgg11_bn",
        build=zoo("vgg11_bn", init_weights=False),
        convolutions=8,
        bare=nothing,
        bare_count=0,
        why="make_layers with batch_norm=True: Conv2d, BatchNorm2d, ReLU, for each number in cfgs['A']",
        # The convolutions keep their default bias although a batch norm follows: 8 + 3 Linear.
        second_order=SecondOrder(norms=8, bias=8 + 3),
        norms={"features.0": "features.1", "features.4": "features.5", "features.25": "features.26"},
        via={"features.0": ()},
        redundant_biases=everything,
    ),
    Expectation(
        model="alexnet",
        build=zoo("alexnet"),
        convolutions=5,
        bare=everything,
        bare_count=5,
        why="AlexNet.__init__: Conv2d, ReLU, MaxPool2d, Dropout, Linear; no norm",
        second_order=SecondOrder(gain=5, bias=5 + 3),
        # The last of them: ReLU, MaxPool2d, AdaptiveAvgPool2d, flatten, Dropout, then Linear.
        reasons={"features.10": ("relu", "linear")},
    ),
    Expectation(
        model="squeezenet1_1",
        build=zoo("squeezenet1_1"),
        # The stem, 8 Fire modules of squeeze, expand1x1 and expand3x3, and the classifier's convolution.
        convolutions=1 + 8 * 3 + 1,
        bare=everything,
        bare_count=26,
        why="Fire.forward: convolution, ReLU and cat; the classifier: Dropout, Conv2d, ReLU, "
        "AdaptiveAvgPool2d",
        # No Linear layer at all.
        second_order=SecondOrder(gain=26, bias=26),
        # expand1x1 goes through ReLU and cat to the next Fire's squeeze.
        reasons={"features.3.expand1x1": ("relu", "cat", "conv2d"), "classifier.1": ("relu", "output")},
        example=partial(torch.rand, 2, 3, 64, 64),
    ),
)
