"""segmentation_models_pytorch: each of its decoders, over encoders of different families."""

from __future__ import annotations

import segmentation_models_pytorch as smp

from benchmarks.coverage.sample import Sample, noise

__all__ = ["names", "sample"]

_NAMES = (
    "unet resnet18",
    "unet densenet121",
    "unet vgg11_bn",
    "unet mit_b0",
    "unet mobileone_s0",
    "unet tu-convnext_atto",
    "unet inceptionv4",
    "unet dpn68",
    "unetplusplus efficientnet-b0",
    "unetplusplus timm-regnetx_002",
    "manet resnet18",
    "manet se_resnet50",
    "linknet mobilenet_v2",
    "linknet xception",
    "fpn resnet18",
    "fpn timm-mobilenetv3_small_100",
    "pspnet resnet18",
    "pan resnet18",
    "deeplabv3 resnet18",
    "deeplabv3plus mobilenet_v2",
    "upernet resnet18",
    "upernet mit_b0",
    "segformer mit_b0",
    "dpt tu-vit_tiny_patch16_224",
)


def names() -> list[str]:
    """The names of its architectures and encoders."""
    return list(_NAMES)


def sample(name: str, batch: int) -> Sample:
    """The model called ``name``, with random weights, and a batch for it."""
    decoder, encoder = name.split()
    model = smp.create_model(decoder, encoder_name=encoder, encoder_weights=None, classes=3)
    # A fixed table of positions, or a branch that pools most of the image away.
    size = {"dpt": 224, "linknet": 96, "pan": 128}.get(decoder, 64)
    return Sample(model, (noise(batch, 3, size, size),))
