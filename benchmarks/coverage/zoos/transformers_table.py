"""The tiny configuration of each architecture of transformers, and what makes its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks.coverage.sample import noise

__all__ = ["TABLE"]

Inputs = Callable[[int], Mapping[str, Any]]


def _images(size: int = 32) -> Inputs:
    return lambda batch: {"pixel_values": noise(batch, 3, size, size)}


def _ids(batch: int, length: int = 8) -> torch.Tensor:
    return torch.arange(3, 3 + batch * length).view(batch, length) % 60


def _tokens(batch: int) -> Mapping[str, Any]:
    return {"input_ids": _ids(batch), "attention_mask": torch.ones(batch, 8, dtype=torch.long)}


def _prompted(batch: int) -> Mapping[str, Any]:
    return {"input_ids": _ids(batch), "decoder_input_ids": _ids(batch, 4)}


def _waves(length: int = 2000) -> Inputs:
    return lambda batch: {"input_values": noise(batch, length)}


def _spoken(batch: int) -> Mapping[str, Any]:
    return {"input_features": noise(batch, 16, 40), "decoder_input_ids": _ids(batch, 4)}


def _described(batch: int) -> Mapping[str, Any]:
    return {**_images()(batch), **_tokens(batch)}


_WIDTH = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
_WORDS = {**_WIDTH, "vocab_size": 64, "max_position_embeddings": 32}
_PATCHES = {**_WIDTH, "image_size": 32, "patch_size": 8}
_STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
_WINDOWS = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 16,
    "depths": [1, 2],
    "num_heads": [2, 2],
    "window_size": 4,
}
_PYRAMID = {"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [8, 16]}
_HEADS = {"num_attention_heads": [1, 2], "patch_sizes": [7, 3], "strides": [4, 2], "decoder_hidden_size": 16}
_RESNET = {
    "embedding_size": 8,
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}
_CONVNEXT = {**_STAGES, "out_features": ["stage1", "stage2", "stage3", "stage4"]}
_ENCODEC = {
    "num_filters": 4,
    "hidden_size": 16,
    "codebook_dim": 16,
    "codebook_size": 32,
    "num_lstm_layers": 1,
}
_EFFICIENTNET = {"width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320}
_AUDIO = {
    **_WIDTH,
    "vocab_size": 32,
    "conv_dim": (16, 16, 16),
    "conv_stride": (4, 2, 2),
    "conv_kernel": (8, 3, 3),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "mask_time_length": 2,
}
_DETR = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": 5,
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
    "backbone_config": ("ResNetConfig", {**_RESNET, "out_features": ["stage4"]}),
}
_WHISPER = {
    "vocab_size": 64,
    "num_mel_bins": 16,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_source_positions": 20,
    "max_target_positions": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}

# Class names without "Config" and with the head, the configuration, the inputs.
TABLE: dict[str, tuple[Mapping[str, Any], Inputs]] = {
    "ViT ForImageClassification": (_PATCHES, _images()),
    "Beit ForImageClassification": ({**_PATCHES, "use_relative_position_bias": True}, _images()),
    "DeiT ForImageClassification": (_PATCHES, _images()),
    "Dinov2 ForImageClassification": (_PATCHES, _images()),
    "ViTMAE ForPreTraining": (
        {
            **_PATCHES,
            "decoder_hidden_size": 16,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 2,
        },
        _images(),
    ),
    "Swin ForImageClassification": (_WINDOWS, _images()),
    "Swinv2 ForImageClassification": (_WINDOWS, _images()),
    "ConvNext ForImageClassification": (_STAGES, _images(64)),
    "ConvNextV2 ForImageClassification": (_STAGES, _images(64)),
    "Segformer ForSemanticSegmentation": ({**_PYRAMID, **_HEADS}, _images(64)),
    "Detr ForObjectDetection": (_DETR, _images(64)),
    "ConditionalDetr ForObjectDetection": (_DETR, _images(64)),
    "Wav2Vec2 ForCTC": (_AUDIO, _waves()),
    "Hubert Model": ({**_AUDIO, "feat_extract_norm": "layer"}, _waves()),
    "Whisper ForConditionalGeneration": (_WHISPER, _spoken),
    "MobileViT ForImageClassification": (
        {"image_size": 64, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 48]},
        _images(64),
    ),
    "MobileViTV2 ForImageClassification": ({"image_size": 64, "width_multiplier": 0.25}, _images(64)),
    "ResNet ForImageClassification": (_RESNET, _images(64)),
    "RegNet ForImageClassification": ({**_RESNET, "layer_type": "y", "groups_width": 8}, _images(64)),
    "Bit ForImageClassification": (
        {"embedding_size": 32, "hidden_sizes": [32, 64], "depths": [1, 1], "num_groups": 8},
        _images(64),
    ),
    "CLIP Model": (
        {
            "text_config": {**_WORDS, "eos_token_id": 2},
            "vision_config": _PATCHES,
            "projection_dim": 16,
        },
        _described,
    ),
    "Levit ForImageClassification": (
        {
            "image_size": 64,
            "hidden_sizes": [16, 32, 48],
            "num_attention_heads": [2, 2, 2],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
        _images(64),
    ),
    "PoolFormer ForImageClassification": (_STAGES, _images(64)),
    "Pvt ForImageClassification": (
        {
            "image_size": 64,
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 2, 2],
            "mlp_ratios": [2, 2, 2, 2],
        },
        _images(64),
    ),
    "PvtV2 ForImageClassification": (
        {
            "image_size": 64,
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 2, 2],
            "mlp_ratios": [2, 2, 2, 2],
        },
        _images(64),
    ),
    "Cvt ForImageClassification": (
        {"embed_dim": [8, 16, 32], "num_heads": [1, 2, 2], "depth": [1, 2, 3]},
        _images(64),
    ),
    "FocalNet ForImageClassification": (
        {
            "image_size": 32,
            "embed_dim": 16,
            "depths": [1, 1],
            "focal_levels": [2, 2],
            "focal_windows": [3, 3],
        },
        _images(),
    ),
    "EfficientNet ForImageClassification": (_EFFICIENTNET, _images(64)),
    "MobileNetV1 ForImageClassification": ({"depth_multiplier": 0.25}, _images(64)),
    "MobileNetV2 ForImageClassification": ({"depth_multiplier": 0.25}, _images(64)),
    "UperNet ForSemanticSegmentation": (
        {
            "backbone_config": ("ConvNextConfig", _CONVNEXT),
            "hidden_size": 16,
            "auxiliary_in_channels": 24,
            "auxiliary_channels": 16,
        },
        _images(64),
    ),
    "Encodec Model": (_ENCODEC, lambda batch: {"input_values": noise(batch, 1, 1280)}),
    "SpeechT5HifiGan": ({}, lambda batch: {"spectrogram": noise(batch, 8, 80)}),
    "Vits Model": (
        {
            **_WIDTH,
            "vocab_size": 64,
            "hidden_size": 32,
            "ffn_dim": 48,
            "flow_size": 32,
            "upsample_initial_channel": 32,
        },
        _tokens,
    ),
    "Mamba ForCausalLM": (
        {"vocab_size": 64, "hidden_size": 32, "state_size": 4, "num_hidden_layers": 2},
        lambda batch: {"input_ids": _ids(batch), "use_cache": False},
    ),
    "Bert ForSequenceClassification": (_WORDS, _tokens),
    "GPT2 LMHeadModel": (
        {"vocab_size": 64, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 2},
        _tokens,
    ),
    "T5 ForConditionalGeneration": (
        {"vocab_size": 64, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2},
        _prompted,
    ),
    "Llama ForCausalLM": ({**_WORDS, "num_key_value_heads": 2}, _tokens),
    "ConvBert Model": ({**_WORDS, "embedding_size": 32}, _tokens),
    "SqueezeBert Model": ({**_WORDS, "embedding_size": 32}, _tokens),
}
