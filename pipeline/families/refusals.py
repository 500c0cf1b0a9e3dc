"""Error messages for models of no known family: one sentence that says what the file is."""

from pathlib import Path

from pipeline.errors import ModelError
from pipeline.families.original import EMA, UNET
from pipeline.weights import Weights

OTHER_KINDS = {  # prefix of a tensor's name: kind of file
    "edm_": "a checkpoint with EDM noise levels, which is not supported",
    "control_model.": "a ControlNet, which is not supported",
    UNET + "joint_blocks.": "a Stable Diffusion 3 checkpoint, which is not supported",
    **dict.fromkeys((UNET + "double_blocks.", "double_blocks."), "a relative of FLUX, such as Chroma, which is not supported"),
    EMA: f'a checkpoint of averaged (EMA) weights only; it needs "{UNET}…" too',
    "lora_": "a LoRA, which belongs in the Lora folder",
    "emb_params": "a textual inversion embedding, which belongs in the embeddings folder",
    "clip_g": "a textual inversion embedding, which belongs in the embeddings folder",
    "down_blocks.": "one network of a diffusers folder; choose the folder that contains model_index.json",
    "model.layers.": "a language model; a text encoder belongs in the text_encoder folder",
    **dict.fromkeys(("encoder.block.", "text_model."), "a text encoder, which belongs in the text_encoder folder"),
    "first_stage_model.": "a VAE, which belongs in the VAE folder",
    "encoder.": "a VAE, which belongs in the VAE folder",
}


def not_a_checkpoint(weights: Weights) -> ModelError:
    """For a single file that no family reads."""
    for start, kind in OTHER_KINDS.items():
        if any(name.startswith(start) for name in weights):
            return ModelError(f'"{weights.path.name}" is {kind}')
    return ModelError(f'"{weights.path.name}" is not a Stable Diffusion checkpoint: it has no tensor "{UNET}input_blocks…"')


def unknown_pipeline(folder: Path, pipeline: str) -> ModelError:
    """For a diffusers folder that no family reads."""
    return ModelError(f'model "{folder}" is a {pipeline}, which is not supported')
