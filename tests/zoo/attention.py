"""Layer norm, patches and positions: ConvNeXt, Swin, ViT, MaxViT, MViT."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torchvision.models.vision_transformer import ConvStemConfig, VisionTransformer

from tests.zoo.expectation import Expectation, SecondOrder, ends, everything, nothing, zoo

__all__ = ["ATTENTION"]

_SMALL = partial(torch.rand, 2, 3, 64, 64)
_PATCHES = "a convolution, Permute and LayerNorm; the rest is Linear"


def _stemmed_vit() -> nn.Module:
    stem = [ConvStemConfig(out_channels=8, kernel_size=3, stride=2) for _ in range(4)]
    model: nn.Module = VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=10, conv_stem_configs=stem)
    return model


def _vit_second_order(layers: int, **stem: int) -> SecondOrder:
    # ln_1 and ln_2 of each layer, and encoder.ln. Biases: in_proj_bias, out_proj, mlp.0 and mlp.3 of each
    # layer, the head's, and conv_proj's.
    norms = 2 * layers + 1 + stem.get("norms", 0)
    return SecondOrder(norms=norms, gain=1, bias=4 * layers + 1 + 1)


_VITS = (
    Expectation(
        model="vit_b_16",
        build=zoo("vit_b_16", image_size=64),
        convolutions=1,
        bare=everything,
        bare_count=1,
        why="_process_input: reshape, permute; forward: cat with the class token; Encoder.forward: + "
        "pos_embedding",
        second_order=_vit_second_order(12),
        other=ends("class_token", "pos_embedding"),
        other_count=2,
        via={"conv_proj": ("reshape", "permute", "cat")},
        reasons={"conv_proj": ("add",)},
        example=_SMALL,
    ),
    Expectation(
        model="vit with a convolutional stem",
        build=_stemmed_vit,
        convolutions=4 + 1,
        bare=ends("conv_last"),
        bare_count=1,
        why="ConvStemConfig: Conv2dNormActivation with BatchNorm2d, four times; then conv_last as "
        "conv_proj before",
        second_order=_vit_second_order(2, norms=4),
        other=ends("class_token", "pos_embedding"),
        other_count=2,
        norms={"conv_proj.conv_bn_relu_0.0": "conv_proj.conv_bn_relu_0.1"},
        reasons={"conv_proj.conv_last": ("add",)},
        example=partial(torch.rand, 2, 3, 32, 32),
    ),
)

_SWINS = (
    Expectation(
        model="swin_t",
        build=zoo("swin_t"),
        convolutions=1,
        bare=nothing,
        bare_count=0,
        why="SwinTransformer.__init__: " + _PATCHES,
        # features.0.2, norm1 and norm2 of 2 + 2 + 6 + 2 blocks, 3 PatchMerging, norm. Biases: the
        # convolution, qkv, proj, mlp.0 and mlp.3 of each block, the head; PatchMerging.reduction has none.
        second_order=SecondOrder(norms=1 + 24 + 3 + 1, bias=1 + 12 * 4 + 1),
        other=ends("relative_position_bias_table"),
        other_count=12,
        absorbing=everything,
        norms={"features.0.0": "features.0.2"},
        via={"features.0.0": ("permute",)},
        example=_SMALL,
    ),
    Expectation(
        model="swin_v2_t",
        build=zoo("swin_v2_t"),
        convolutions=1,
        bare=nothing,
        bare_count=0,
        why="SwinTransformer.__init__: " + _PATCHES,
        # As swin_t, and cpb_mlp.0 in each block; cpb_mlp.2 has no bias. The table is a buffer here.
        # logit_scale, shaped (heads, 1, 1) as a LayerScale might be, is a temperature: one number for each
        # head.
        second_order=SecondOrder(norms=29, bias=1 + 12 * 5 + 1),
        other=ends("logit_scale"),
        other_count=12,
        absorbing=everything,
        norms={"features.0.0": "features.0.2"},
    ),
)

_MBCONV = "blocks.0.layers.0.layers.MBconv"
_CONVNEXT_BLOCKS = 3 + 3 + 9 + 3

_OTHERS = (
    Expectation(
        model="convnext_tiny",
        build=zoo("convnext_tiny"),
        # The stem, a depthwise one in each block, and three downsamplings.
        convolutions=1 + _CONVNEXT_BLOCKS + 3,
        bare=lambda name: name in ("features.2.1", "features.4.1", "features.6.1"),
        bare_count=3,
        why="ConvNeXt.__init__: downsampling is norm_layer and then Conv2d, whose output "
        "CNBlock.forward reads twice: by the depthwise convolution and by `result += input`",
        # LayerNorm2d of the stem, of 3 downsamplings and of the classifier, LayerNorm in each block.
        # Biases: 22 convolutions, 2 Linear in each block, the classifier's.
        second_order=SecondOrder(norms=1 + 3 + 1 + 18, gain=3, bias=22 + 2 * 18 + 1, layer_scale=18),
        # Layer norms mix the channels.
        absorbing=everything,
        norms={
            "features.0.0": "features.0.1",
            "features.1.0.block.0": "features.1.0.block.2",
            "features.7.2.block.0": "features.7.2.block.2",
        },
        via={"features.1.0.block.0": ("permute",)},
        example=_SMALL,
    ),
    Expectation(
        model="maxvit_t",
        build=zoo("maxvit_t"),
        # Two in the stem; conv_a, conv_b, fc1, fc2, conv_c in 2 + 2 + 5 + 2 layers; proj in the first of 4
        # blocks.
        convolutions=2 + 11 * 5 + 4,
        bare=lambda name: name == "stem.1.0" or name.endswith((".fc1", ".fc2", ".conv_c", ".proj.1")),
        bare_count=1 + 11 * 3 + 4,
        why="stem.1 has norm_layer=None and is read by pre_norm and by proj; MBConv.forward adds "
        "conv_c to proj",
        # BatchNorm2d: stem.0.1, and pre_norm, conv_a.1, conv_b.1 of 11 layers. LayerNorm: two in each of 22
        # attention layers, one in the classifier. Biases: stem.1.0, fc1, fc2, conv_c, proj; to_qkv, merge,
        # mlp_layer.1 and .3; the classifier's first Linear.
        second_order=SecondOrder(norms=1 + 33 + 44 + 1, gain=38, bias=1 + 33 + 4 + 22 * 4 + 1),
        other=ends("relative_position_bias_table"),
        other_count=22,
        norms={
            "stem.0.0": "stem.0.1",
            f"{_MBCONV}.layers.conv_b.0": f"{_MBCONV}.layers.conv_b.1",
        },
        reasons={"blocks.0.layers.1.layers.MBconv.layers.conv_c": ("add",)},
    ),
    Expectation(
        model="mvit_v1_b",
        build=zoo("mvit_v1_b"),
        # conv_proj; pool_k and pool_v in 16 blocks, pool_q in the 3 whose kernel_q is not empty.
        convolutions=1 + 16 * 2 + 3,
        bare=ends("conv_proj"),
        bare_count=1,
        why="PositionalEncoding.forward: conv_proj's output gets x.add_(pos_embedding); Pool.forward: "
        "pool, reshape, transpose, cat with the class token, then norm_act",
        # norm1 and norm2 of 16 blocks, one in each of 35 Pools, norm. Biases: conv_proj, qkv, project.0,
        # mlp.0 and mlp.3, project of the 3 blocks that widen, the head.
        second_order=SecondOrder(norms=32 + 35 + 1, gain=1, bias=1 + 16 * 4 + 3 + 1),
        # class_token and class_pos have one dimension each and still are no channel-wise parameters.
        other=lambda name: name.startswith("pos_encoding."),
        other_count=4,
        direct=everything,
        absorbing=everything,
        norms={"blocks.0.attn.pool_k.pool": "blocks.0.attn.pool_k.norm_act.0"},
        via={"blocks.0.attn.pool_k.pool": ("reshape", "transpose", "cat")},
        reasons={"conv_proj": ("add",)},
    ),
)

ATTENTION = _VITS + _SWINS + _OTHERS
