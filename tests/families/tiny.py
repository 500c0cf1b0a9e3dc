"""Tiny checkpoints of every family: random weights in real layouts, each as a diffusers folder and as a single file.

The single file's names are derived from diffusers' by separate rules, so that they check the loader's.
"""

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

TOKENIZER = Path(__file__).parents[2] / "assets" / "tokenizers" / "clip"
WIDTH = 32
"""Per text encoder."""


@dataclass(frozen=True)
class Tiny:
    """Settings of a kind of checkpoint."""

    pipeline: str = "StableDiffusionPipeline"
    in_channels: int = 4
    prediction: str = "epsilon"
    zero_snr: bool = False
    text_encoders: tuple[str, ...] = ("clip",)
    sizes: int = 0
    """How many of the picture's sizes SDXL is conditioned on."""

    @property
    def linear(self) -> bool:
        """Whether it is SD2 or SDXL, whose attention uses linear projections."""
        return self.text_encoders != ("clip",)

    @property
    def xl(self) -> bool:
        return self.sizes > 0


SD1 = Tiny()
SD2 = Tiny(text_encoders=("open_clip",))
SDXL = Tiny("StableDiffusionXLPipeline", text_encoders=("clip", "open_clip"), sizes=6)
REFINER = Tiny("StableDiffusionXLImg2ImgPipeline", text_encoders=("open_clip",), sizes=5)
KINDS = {
    "sd1": SD1,
    "sd1-inpainting": replace(SD1, pipeline="StableDiffusionInpaintPipeline", in_channels=9),
    "sd1-edit": replace(SD1, pipeline="StableDiffusionInstructPix2PixPipeline", in_channels=8),
    "sd2": SD2,
    "sd2-v": replace(SD2, prediction="v_prediction"),
    "sd2-inpainting": replace(SD2, pipeline="StableDiffusionInpaintPipeline", in_channels=9),
    "sd2-edit": replace(SD2, pipeline="StableDiffusionInstructPix2PixPipeline", in_channels=8),
    "sdxl": SDXL,
    "sdxl-v": replace(SDXL, prediction="v_prediction", zero_snr=True),
    "sdxl-inpainting": replace(SDXL, pipeline="StableDiffusionXLInpaintPipeline", in_channels=9),
    "sdxl-edit": replace(SDXL, pipeline="StableDiffusionXLInstructPix2PixPipeline", in_channels=8),
    "sdxl-refiner": REFINER,
    "sdxl-refiner-inpainting": replace(REFINER, pipeline="StableDiffusionXLInpaintPipeline", in_channels=9),
}


def make(kind: str, place: Path) -> tuple[Path, Path]:
    """(diffusers folder, single file) with the same weights, in float16."""
    tiny = KINDS[kind]
    torch.manual_seed(0)
    unet, vae, texts = make_unet(tiny), make_vae(tiny), make_text_encoders(tiny)
    parts = {"unet": unet, "vae": vae} | texts
    for module in parts.values():
        module.half()
    folder, file = place / kind, place / f"{kind}.safetensors"
    for name, module in parts.items():
        module.save_pretrained(folder / name, safe_serialization=True)
    tokenizers = [name.replace("text_encoder", "tokenizer") for name in texts]
    for name, model in zip(tokenizers, texts.values()):
        copy_tokenizer(folder / name, padding="!" if model.config.hidden_act == "gelu" else "<|endoftext|>")
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=tiny.prediction,
        rescale_betas_zero_snr=tiny.zero_snr, steps_offset=1, timestep_spacing="leading")
    scheduler.save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(model_index(tiny, [*parts, *tokenizers])))
    save_file(original(tiny, unet, vae, texts), file)
    return folder, file


def copy_tokenizer(folder: Path, *, padding: str) -> None:
    shutil.copytree(TOKENIZER, folder)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(settings | {"pad_token": padding}))


def make_unet(tiny: Tiny) -> UNet2DConditionModel:
    pooled = {"addition_embed_type": "text_time", "addition_time_embed_dim": 256,
              "projection_class_embeddings_input_dim": WIDTH + 256 * tiny.sizes} if tiny.xl else {}
    channels = (64, 128, 128) if tiny.linear else (32, 64, 64)
    plain, attending = ("DownBlock2D", "UpBlock2D"), ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
    levels = (plain, attending, attending) if tiny.sizes == 6 else (plain, attending, plain) if tiny.sizes else \
        (attending, attending, plain)
    unet = UNet2DConditionModel(
        sample_size=16, in_channels=tiny.in_channels, block_out_channels=channels, layers_per_block=1 if not tiny.xl else 2,
        down_block_types=[down for down, _ in levels], up_block_types=[up for _, up in reversed(levels)],
        transformer_layers_per_block=(1, 1, 2) if tiny.sizes == 6 else 1, cross_attention_dim=WIDTH * len(tiny.text_encoders),
        attention_head_dim=[channel // 64 for channel in channels] if tiny.linear else 8,
        use_linear_projection=tiny.linear, **pooled)
    if tiny.prediction == "v_prediction" and not tiny.xl:
        torch.nn.init.constant_(unet.conv_out.bias, -2.0)  # like a network that answers noise with the negated picture
    return unet


def make_vae(tiny: Tiny) -> AutoencoderKL:
    vae = AutoencoderKL(block_out_channels=(32, 32, 32, 32), layers_per_block=1, latent_channels=4,
                        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
                        scaling_factor=0.13025 if tiny.xl else 0.18215)
    with torch.no_grad():  # no variance, so that a sample of the posterior is its mean
        vae.quant_conv.weight[4:] = 0
        vae.quant_conv.bias[4:] = -30
    return vae


def make_text_encoders(tiny: Tiny) -> dict[str, torch.nn.Module]:
    made = {}
    for tower in tiny.text_encoders:
        second = tower == "open_clip" and tiny.xl
        config = CLIPTextConfig(
            vocab_size=49408, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=2, num_attention_heads=4,
            hidden_act="gelu" if tower == "open_clip" else "quick_gelu", projection_dim=WIDTH,
            bos_token_id=49406, eos_token_id=49407)
        model = (CLIPTextModelWithProjection if second else CLIPTextModel)(config)
        for parameter in model.parameters():  # with transformers' own initialization all prompts look alike
            parameter.data += 0.1 * torch.randn_like(parameter)
        made["text_encoder_2" if second else "text_encoder"] = model
    return made


def model_index(tiny: Tiny, parts: list[str]) -> dict:
    classes = {
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"], "tokenizer_2": ["transformers", "CLIPTokenizer"],
    }
    wanted = ["unet", "vae", "text_encoder", "tokenizer"] + (["text_encoder_2", "tokenizer_2"] if tiny.xl else [])
    index = {"_class_name": tiny.pipeline, "_diffusers_version": diffusers.__version__,
             "scheduler": ["diffusers", "EulerDiscreteScheduler"]}
    index |= {part: classes[part] if part in parts else [None, None] for part in wanted}
    if tiny.xl:
        return index | {"force_zeros_for_empty_prompt": True} | ({"requires_aesthetics_score": True} if tiny.sizes == 5 else {})
    return index | {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}


# --- the original layout ----------------------------------------------------------------------------------------------

def original(tiny: Tiny, unet, vae, texts: dict) -> dict[str, torch.Tensor]:
    """All tensors under their single-file names."""
    state = {"model.diffusion_model." + original_unet_name(name, unet.config): tensor
             for name, tensor in unet.state_dict().items()}
    for name, tensor in vae.state_dict().items():
        is_convolution = ".attentions." in name and tensor.ndim == 2
        state["first_stage_model." + original_vae_name(name)] = tensor[..., None, None] if is_convolution else tensor
    if not tiny.xl:
        clip, open_clip = "cond_stage_model.transformer.text_model.", "cond_stage_model.model."
    else:
        clip, open_clip = "conditioner.embedders.0.transformer.text_model.", f"conditioner.embedders.{len(texts) - 1}.model."
    for part, model in texts.items():
        tensors = {name.removeprefix("text_model."): tensor for name, tensor in model.state_dict().items()}
        if model.config.hidden_act == "quick_gelu":
            state |= {clip + name: tensor for name, tensor in tensors.items()}
        else:
            state |= {open_clip + name: tensor for name, tensor in to_open_clip(tensors, extra_layer=not tiny.xl).items()}
    if tiny.xl and tiny.prediction == "v_prediction":
        state |= {"v_pred": torch.tensor([])} | ({"ztsnr": torch.tensor([])} if tiny.zero_snr else {})
    return {name: tensor.detach().contiguous().clone() for name, tensor in state.items()}


def original_unet_name(name: str, config) -> str:
    per_level, levels = config.layers_per_block + 1, len(config.block_out_channels)
    for old, new in {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
                     "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
                     "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}.items():
        if name.startswith(old + "."):
            return name.replace(old, new)
    way, kind, rest = re.fullmatch(r"(down_blocks\.\d+|mid_block|up_blocks\.\d+)\.(\w+)\.(.*)", name).groups()
    index, rest = rest.split(".", 1)
    if kind == "resnets":
        for old, new in {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
                         "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}.items():
            rest = re.sub(rf"^{old}\.", new + ".", rest)
    if way == "mid_block":
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(index)}.{rest}"
    level = int(way.split(".")[1])
    if kind == "downsamplers":
        return f"input_blocks.{per_level * (level + 1)}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        attends = config.up_block_types[level].startswith("CrossAttn")
        return f"output_blocks.{per_level * (level + 1) - 1}.{2 if attends else 1}.{rest}"
    slot = 1 if kind == "attentions" else 0
    return f"input_blocks.{1 + per_level * level + int(index)}.{slot}.{rest}" if way.startswith("down") else \
        f"output_blocks.{per_level * level + int(index)}.{slot}.{rest}"


def original_vae_name(name: str) -> str:
    name = re.sub(r"up_blocks\.(\d)\.", lambda found: f"up.{3 - int(found[1])}.", name)
    for old, new in {"down_blocks.": "down.", "mid_block.resnets.0.": "mid.block_1.", "mid_block.resnets.1.": "mid.block_2.",
                     "mid_block.attentions.0.": "mid.attn_1.", ".group_norm.": ".norm.", ".to_q.": ".q.", ".to_k.": ".k.",
                     ".to_v.": ".v.", ".to_out.0.": ".proj_out.", ".resnets.": ".block.", ".conv_shortcut.": ".nin_shortcut.",
                     ".downsamplers.0.": ".downsample.", ".upsamplers.0.": ".upsample.",
                     ".conv_norm_out.": ".norm_out."}.items():
        name = name.replace(old, new)
    return name


def to_open_clip(tensors: dict[str, torch.Tensor], *, extra_layer: bool) -> dict[str, torch.Tensor]:
    """An OpenCLIP tower; SD2's has one more layer than its folder, which is unused."""
    names = {"embeddings.token_embedding.weight": "token_embedding.weight",
             "embeddings.position_embedding.weight": "positional_embedding",
             "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias"}
    state = {new: tensors[old] for old, new in names.items()} | {"logit_scale": torch.tensor(4.6).half()}
    layers = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layers."))
    for layer in range(layers + extra_layer):
        old, new = f"encoder.layers.{min(layer, layers - 1)}.", f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            state[f"{new}attn.in_proj_{kind}"] = torch.cat([tensors[f"{old}self_attn.{part}_proj.{kind}"] for part in "qkv"])
            for ours, theirs in {"self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2",
                                 "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}.items():
                state[f"{new}{theirs}.{kind}"] = tensors[f"{old}{ours}.{kind}"]
    width = len(tensors["final_layer_norm.weight"])
    return state | {"text_projection": tensors.get("text_projection.weight", torch.zeros(width, width).half()).T}
