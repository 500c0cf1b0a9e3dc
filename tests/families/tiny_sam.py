"""SAM and SAM 2 as small as they go, with random weights, saved as transformers saves them."""

from pathlib import Path

import torch
from transformers import Sam2Config, Sam2Model, Sam2VideoConfig, Sam2VideoModel, SamConfig, SamModel

SIDE = 128
PROMPTS = {"hidden_size": 32, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 4}
DECODER = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
SAM_VISION = {"hidden_size": 32, "output_channels": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 16,
              "window_size": 4, "global_attn_indexes": [1], "mlp_dim": 64, "num_pos_feats": 16}
SAM2_VISION = {
    "model_type": "sam2_vision_model", "backbone_channel_list": [128, 64, 32, 16], "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
    "fpn_hidden_size": 32, "backbone_config": {
        "model_type": "sam2_hiera_det_model", "hidden_size": 16, "num_attention_heads": 1, "image_size": [SIDE, SIDE],
        "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [16, 32, 64, 128], "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [8, 4, 4, 4], "global_attention_blocks": [3], "window_positional_embedding_background_size": [4, 4]}}
MODELS = {"sam": (SamConfig, SamModel, SAM_VISION), "sam2": (Sam2Config, Sam2Model, SAM2_VISION),
          "sam2_video": (Sam2VideoConfig, Sam2VideoModel, SAM2_VISION)}


def save(folder: Path, kind: str, seed: int = 2):
    """The model, which also lies in the folder now. seed: one with which no mask of the tests is all or nothing."""
    config, model, vision = MODELS[kind]
    torch.manual_seed(seed)
    more = {"memory_encoder_hidden_size": 32, "memory_encoder_output_channels": 16, "memory_attention_hidden_size": 32} if kind == "sam2_video" else {}
    made = model(config(vision_config=vision, prompt_encoder_config=PROMPTS, mask_decoder_config=DECODER, **more)).eval()
    with torch.no_grad():
        for name, weights in made.named_parameters():  # as large as in trained ones, so that what is asked for matters
            if weights.ndim > 1:
                weights.copy_(torch.randn_like(weights) / (1 if "embed" in name else max(1, weights[0].numel()) ** 0.5))
    made.save_pretrained(folder)
    return made
