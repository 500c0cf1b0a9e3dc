"""Tiny checkpoints of the flow families: random weights in real layouts, as a folder, as one file, and as files of their own.

The files' names are derived from diffusers' by separate rules, so that they check the loader's.
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    QwenImageTransformer2DModel,
    ZImageTransformer2DModel,
)
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig, CLIPTextModel, Qwen2_5_VLConfig, Qwen2_5_VLModel, Qwen3Config, Qwen3Model, T5Config, T5EncoderModel)

from tests.families.tiny import original_vae_name

VOCABULARY = 151936
"""Of Qwen3, which has ids up to 151668."""
WIDTH = 16


@dataclass(frozen=True)
class Files:
    """The same weights in every layout."""

    folder: Path
    file: Path
    """All in one."""
    transformer: Path
    text_encoder: Path
    vae: Path
    modules: dict[str, nn.Module]
    """In float32."""
    more_encoders: tuple[Path, ...] = ()
    """Of a family with several text encoders."""


def qwen3(layers: int = 3) -> Qwen3Model:
    return Qwen3Model(Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, rope_parameters={"rope_type": "default", "rope_theta": 1e6}))


def flux_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=[32] * 4, layers_per_block=1, latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159,
        use_quant_conv=False, use_post_quant_conv=False, down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)


def z_image_transformer() -> ZImageTransformer2DModel:
    return ZImageTransformer2DModel(dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=WIDTH,
                                    axes_dims=[4, 6, 6], axes_lens=[1536, 512, 512])


def z_image(place: Path, *, shift: float = 3.0) -> Files:
    torch.manual_seed(0)
    modules = {"transformer": z_image_transformer(), "text_encoder": qwen3(), "vae": flux_vae()}
    return write(place, modules, "ZImagePipeline", shift, z_image_names(modules["transformer"].state_dict()), "qwen3_4b")


def klein(place: Path) -> Files:
    torch.manual_seed(0)
    vae = AutoencoderKLFlux2(block_out_channels=[32] * 4, layers_per_block=1, latent_channels=32)
    vae.bn.running_mean.normal_(0, 0.5)
    vae.bn.running_var.uniform_(0.5, 2)
    transformer = Flux2Transformer2DModel(num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
                                          joint_attention_dim=3 * WIDTH, axes_dims_rope=[4] * 4, guidance_embeds=False)
    modules = {"transformer": transformer, "text_encoder": qwen3(layers=28), "vae": vae}
    return write(place, modules, "Flux2KleinPipeline", 7.5, klein_names(transformer.state_dict()), "qwen3_4b")


FLUX1 = {  # variant: (its config, diffusers' pipeline)
    "dev": ({"guidance_embeds": True}, "FluxPipeline"), "schnell": ({}, "FluxPipeline"),
    "fill": ({"guidance_embeds": True, "in_channels": 384, "out_channels": 64}, "FluxFillPipeline"),
    "kontext": ({"guidance_embeds": True}, "FluxKontextPipeline"),
}


def flux1(place: Path, *, variant: str = "dev") -> Files:
    torch.manual_seed(0)
    config, pipeline = FLUX1[variant]
    transformer = FluxTransformer2DModel(**{"in_channels": 64} | config, num_layers=2, num_single_layers=2, attention_head_dim=32,
                                         num_attention_heads=2, joint_attention_dim=WIDTH, pooled_projection_dim=32, axes_dims_rope=(4, 14, 14))
    clip = CLIPTextModel(CLIPTextConfig(vocab_size=49408, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                                        bos_token_id=49406, eos_token_id=49407))
    words = T5EncoderModel(T5Config(vocab_size=32128, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"))
    modules = {"transformer": transformer, "text_encoder": clip, "text_encoder_2": words, "vae": flux_vae()}
    files = write(place, modules, pipeline, 3.0, flux1_names(transformer.state_dict()), "clip_l", {"t5xxl": words.state_dict()})
    if variant == "kontext":  # whose tensors are dev's
        files = replace(files, file=files.file.rename(place / "kontext all-in-one.safetensors"),
                        transformer=files.transformer.rename(place / "flux1-kontext.safetensors"))
    return files


def flux1_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """FLUX.1's tensors as Black Forest Labs' code has them, q, k and v stacked, in single blocks on top of the MLP's, shift before scale."""
    renamed: dict[str, Tensor | list[Tensor]] = {}
    for name, tensor in state.items():
        name = re.sub(r"^single_transformer_blocks", "single_blocks", re.sub(r"^transformer_blocks", "double_blocks", name))
        if match := re.fullmatch(r"(double_blocks\.\d+)\.attn\.(?:to_[qkv]|add_[qkv]_proj)\.(weight|bias)", name):
            renamed.setdefault(f"{match[1]}.{'txt' if '.add_' in name else 'img'}_attn.qkv.{match[2]}", []).append(tensor)
            continue
        if match := re.fullmatch(r"(single_blocks\.\d+)\.(?:attn\.to_([qkv])|proj_mlp)\.(weight|bias)", name):
            renamed.setdefault(f"{match[1]}.linear1.{match[3]}", [None] * 4)["qkv".index(match[2]) if match[2] else 3] = tensor
            continue
        for old, new in {
            r"attn\.norm_added_([qk])\.weight": r"txt_attn.norm.\1.scale", r"(double_blocks\.\d+)\.attn\.norm_([qk])\.weight": r"\1.img_attn.norm.\2.scale",
            r"(single_blocks\.\d+)\.attn\.norm_([qk])\.weight": r"\1.norm.\2.scale", r"norm\.q\.scale": "norm.query_norm.scale",
            r"norm\.k\.scale": "norm.key_norm.scale", r"attn\.to_add_out": "txt_attn.proj", r"attn\.to_out\.0": "img_attn.proj",
            r"ff_context\.net\.0\.proj": "txt_mlp.0", r"ff_context\.net\.2": "txt_mlp.2", r"\bff\.net\.0\.proj": "img_mlp.0",
            r"\bff\.net\.2": "img_mlp.2", r"\bnorm1_context\.linear": "txt_mod.lin", r"\bnorm1\.linear": "img_mod.lin",
            r"(single_blocks\.\d+)\.norm\.linear": r"\1.modulation.lin", r"(single_blocks\.\d+)\.proj_out": r"\1.linear2",
            r"^x_embedder": "img_in", r"^context_embedder": "txt_in", r"^time_text_embed\.timestep_embedder": "time_in",
            r"^time_text_embed\.text_embedder": "vector_in", r"^time_text_embed\.guidance_embedder": "guidance_in",
            r"_in\.linear_1": "_in.in_layer", r"_in\.linear_2": "_in.out_layer", r"^norm_out\.linear": "final_layer.adaLN_modulation.1",
            r"^proj_out": "final_layer.linear",
        }.items():
            name = re.sub(old, new, name)
        renamed[name] = torch.cat(tensor.chunk(2)[::-1]) if "adaLN" in name else tensor
    return {name: torch.cat(tensor) if isinstance(tensor, list) else tensor for name, tensor in renamed.items()}


def qwen_image(place: Path, *, pipeline: str = "QwenImagePipeline", zero: bool = False) -> Files:
    """zero: as Qwen-Image-Edit 2511 has it, whose references are told time 0."""
    torch.manual_seed(0)
    transformer = QwenImageTransformer2DModel(num_layers=2, attention_head_dim=32, num_attention_heads=1, joint_attention_dim=128,
                                              axes_dims_rope=(4, 14, 14), zero_cond_t=zero)
    reader = Qwen2_5_VLModel(Qwen2_5_VLConfig(
        text_config={"vocab_size": VOCABULARY, "hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1,
                     "num_key_value_heads": 1, "rms_norm_eps": 1e-6,
                     "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}},
        vision_config={"depth": 2, "hidden_size": 80, "intermediate_size": 64, "num_heads": 1, "out_hidden_size": 128, "fullatt_block_indexes": []},
        image_token_id=151655))
    modules = {"transformer": transformer, "text_encoder": reader, "vae": AutoencoderKLQwenImage(base_dim=8)}
    names = transformer.state_dict() | ({"__index_timestep_zero__": torch.zeros(0)} if zero else {})
    return write(place, modules, pipeline, 1.0, names, "qwen25_7b")


def wan_name(name: str) -> str:
    """An autoencoder's tensor as the code of Wan has it."""
    for old, new in {
        r"^quant_conv": "conv1", r"^post_quant_conv": "conv2", r"\.conv_in\.": ".conv1.", r"\.norm_out\.": ".head.0.", r"\.conv_out\.": ".head.2.",
        r"\.mid_block\.resnets\.0\.": ".middle.0.", r"\.mid_block\.attentions\.0\.": ".middle.1.", r"\.mid_block\.resnets\.1\.": ".middle.2.",
        r"\.down_blocks\.": ".downsamples.", r"\.norm1\.gamma": ".residual.0.gamma", r"\.norm2\.gamma": ".residual.3.gamma",
        r"(?<=\d)\.conv1\.": ".residual.2.", r"(?<=\d)\.conv2\.": ".residual.6.", r"\.conv_shortcut\.": ".shortcut.",
    }.items():
        name = re.sub(old, new, name)
    name = re.sub(r"\.up_blocks\.(\d)\.resnets\.(\d)", lambda found: f".upsamples.{int(found[1]) * 4 + int(found[2])}", name)
    return re.sub(r"\.up_blocks\.(\d)\.upsamplers\.0", lambda found: f".upsamples.{int(found[1]) * 4 + 3}", name)


def write(place: Path, modules: dict[str, nn.Module], pipeline: str, shift: float, transformer: dict[str, Tensor], encoder: str,
          more_texts: dict[str, dict[str, Tensor]] | None = None) -> Files:
    """transformer: its tensors as the original code names them. encoder: its name in an all-in-one file. more_texts: the same for
    further text encoders, with their tensors."""
    more_texts = more_texts or {}
    for module in modules.values():
        for parameter in module.parameters():
            if parameter.ndim == 1 and not parameter.any():
                nn.init.normal_(parameter, std=0.1)  # where zeros would hide a mistake
        module.half().float().requires_grad_(False).eval()
    files = Files(place / "folder", place / "all-in-one.safetensors", place / "transformer.safetensors", place / "encoder.safetensors",
                  place / "ae.safetensors", modules, tuple(place / f"{name}.safetensors" for name in more_texts))
    for name, module in modules.items():
        module.save_pretrained(files.folder / name)
    FlowMatchEulerDiscreteScheduler(shift=shift).save_pretrained(files.folder / "scheduler")
    (files.folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    vae = {re.sub(r"^(post_)?quant_conv", lambda found: f"{'decoder' if found[1] else 'encoder'}.{found[0]}", original_vae_name(name)): tensor if not re.search(r"\.to_(q|k|v|out\.0)\.weight", name) else tensor[..., None, None]
           for name, tensor in modules["vae"].state_dict().items()}
    if isinstance(modules["vae"], AutoencoderKLQwenImage):
        vae = {wan_name(name): tensor for name, tensor in modules["vae"].state_dict().items()}
    start = "text_model." if isinstance(modules["text_encoder"], CLIPTextModel) else "model."
    text = {start + name.removeprefix(start): tensor for name, tensor in modules["text_encoder"].state_dict().items()}
    if isinstance(modules["text_encoder"], Qwen2_5_VLModel):  # as files of 2025 have them
        text = {name.replace("language_model.", "").replace("model.visual.", "visual."): tensor for name, tensor in text.items()}
    save(transformer, files.transformer)
    save(text, files.text_encoder)
    save(vae, files.vae)
    for path, tensors in zip(files.more_encoders, more_texts.values()):
        save(tensors, path)
    save({f"model.diffusion_model.{name}": tensor for name, tensor in transformer.items()}
         | {f"text_encoders.{encoder}.transformer.{name}": tensor for name, tensor in text.items()}
         | {f"text_encoders.{which}.transformer.{name}": tensor for which, tensors in more_texts.items() for name, tensor in tensors.items()}
         | {f"vae.{name}": tensor for name, tensor in vae.items()}, files.file)
    return files


def klein_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """FLUX.2's tensors as Black Forest Labs' code has them, q, k and v stacked, shift before scale."""
    renamed = {}
    for name, tensor in state.items():
        name = re.sub(r"^single_transformer_blocks", "single_blocks", re.sub(r"^transformer_blocks", "double_blocks", name))
        if match := re.fullmatch(r"(double_blocks\.\d+)\.attn\.(?:to_[qkv]|add_[qkv]_proj)\.weight", name):
            renamed.setdefault(f"{match[1]}.{'txt' if '.add_' in name else 'img'}_attn.qkv.weight", []).append(tensor)
            continue
        for old, new in {
            r"attn\.norm_added_([qk])\.weight": r"txt_attn.norm.\1.scale", r"attn\.norm_([qk])\.weight": r"img_attn.norm.\1.scale",
            r"attn\.to_add_out": "txt_attn.proj", r"attn\.to_out\.0": "img_attn.proj", r"ff_context\.linear_in": "txt_mlp.0",
            r"ff_context\.linear_out": "txt_mlp.2", r"\bff\.linear_in": "img_mlp.0", r"\bff\.linear_out": "img_mlp.2",
            r"attn\.to_qkv_mlp_proj": "linear1", r"(?<=\d\.)attn\.to_out\.weight": "linear2.weight", r"norm\.q\.scale": "norm.query_norm.scale",
            r"norm\.k\.scale": "norm.key_norm.scale", r"(single_blocks\.\d+\.)img_attn\.": r"\1", r"^x_embedder": "img_in",
            r"^context_embedder": "txt_in", r"^time_guidance_embed\.timestep_embedder\.linear_1": "time_in.in_layer",
            r"^time_guidance_embed\.timestep_embedder\.linear_2": "time_in.out_layer", r"(_modulation\w*)\.linear": r"\1.lin",
            r"^norm_out\.linear": "final_layer.adaLN_modulation.1", r"^proj_out": "final_layer.linear",
        }.items():
            name = re.sub(old, new, name)
        renamed[name] = torch.cat(tensor.chunk(2)[::-1]) if "adaLN" in name else tensor
    return {name: torch.cat(tensor) if isinstance(tensor, list) else tensor for name, tensor in renamed.items()}


def save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({name: tensor.half().contiguous() for name, tensor in tensors.items()}, path)


def z_image_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Z-Image's tensors as Tongyi's code has them, q, k and v stacked."""
    renamed = {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"(.*attention)\.to_([qkv])\.weight", name):
            renamed.setdefault(f"{match[1]}.qkv.weight", []).append(tensor)
            continue
        name = re.sub(r"^all_(x_embedder|final_layer)\.2-1", r"\1", name)
        name = re.sub(r"attention\.norm_([qk])", r"attention.\1_norm", name)
        renamed[re.sub(r"attention\.to_out\.0", "attention.out", name)] = tensor
    return {name: torch.cat(tensor) if isinstance(tensor, list) else tensor for name, tensor in renamed.items()} \
        | {"norm_final.weight": torch.ones(32)}
