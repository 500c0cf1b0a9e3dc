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


TEXT_ENCODERS = {  # end of a tensor's name: (what text encoder has it, how the names of its families begin)
    "visual.patch_embed.proj.weight": ("Qwen2.5-VL, the text encoder of Qwen-Image", ("qwen-image",)),
    "layers.0.self_attn.q_norm.weight": ("Qwen3, the text encoder of Z-Image and FLUX.2 klein", ("z-image", "flux2")),
    "encoder.block.0.layer.0.SelfAttention.q.weight": ("T5, a text encoder of FLUX.1", ("flux1",)),
    "text_model.embeddings.token_embedding.weight": ("CLIP, a text encoder of FLUX.1 and Stable Diffusion", ("flux1",)),
}


def wrong_text_encoder(file: Path, checkpoint: Path, family: str, needs: str, why: ModelError) -> ModelError:
    """For a text encoder that a family's layout does not read. needs: what it needs instead; why: its own reason."""
    names = Weights(file).keys()
    what, whose = next((known for end, known in TEXT_ENCODERS.items() if any(name.endswith(end) for name in names)), (None, ()))
    return why if what is None or family.startswith(whose) else ModelError(f'"{file.name}" is {what}; "{checkpoint.name}" is {family} and needs {needs}')


def not_a_checkpoint(weights: Weights) -> ModelError:
    """For a single file that no family reads."""
    for start, kind in OTHER_KINDS.items():
        if any(name.startswith(start) for name in weights):
            return ModelError(f'"{weights.path.name}" is {kind}')
    return ModelError(f'"{weights.path.name}" is not a Stable Diffusion checkpoint: it has no tensor "{UNET}input_blocks…"')


def unknown_pipeline(folder: Path, pipeline: str) -> ModelError:
    """For a diffusers folder that no family reads."""
    return ModelError(f'model "{folder}" is a {pipeline}, which is not supported')
