"""Tiny object detectors of transformers with random weights, in safetensors folders."""

import json

import torch
from transformers import (
    DetrConfig, DetrForObjectDetection, ResNetConfig, RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig, YolosConfig,
    YolosForObjectDetection)

LABELS = {0: "face", 1: "hand"}
FIXED = {"size": {"height": 32, "width": 64}, "do_normalize": False}


def yolos():
    return YolosForObjectDetection(YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[32, 64], patch_size=8,
        num_detection_tokens=5, use_mid_position_embeddings=False, id2label=LABELS, label2id={"face": 0, "hand": 1}))


def detr():
    backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], out_features=["stage2"])
    return DetrForObjectDetection(DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, num_queries=5, d_model=16, encoder_layers=1,
        decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, id2label=LABELS,
        label2id={"face": 0, "hand": 1}))


def rt_detr():
    backbone = RTDetrResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage2", "stage3", "stage4"])
    return RTDetrForObjectDetection(RTDetrConfig(
        backbone_config=backbone, encoder_hidden_dim=16, encoder_in_channels=[8, 8, 8], encoder_ffn_dim=16, encoder_attention_heads=2, d_model=16,
        num_queries=5, decoder_in_channels=[16, 16, 16], decoder_ffn_dim=16, decoder_layers=1, decoder_attention_heads=2, num_feature_levels=3,
        decoder_n_points=2, anchor_image_size=None, id2label=LABELS, label2id={"face": 0, "hand": 1}))


def saved(make, folder, preparation=FIXED):
    """A folder with such a model, the same each time."""
    torch.manual_seed(0)
    model = make().eval()
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(preparation))
    return model
