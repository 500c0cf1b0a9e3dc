"""Files of real models' sizes that hold a header only: the tensors are holes in the file, which take no disk."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2, Flux2Transformer2DModel, ZImageTransformer2DModel
from torch import nn
from transformers import Qwen3Config, Qwen3Model

QWEN3_4B = dict(vocab_size=151936, hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32,
                num_key_value_heads=8, head_dim=128)
BYTES = {"BF16": 2, "F8_E4M3": 1, "F32": 4}


def write(path: Path, module: nn.Module, prefix: str = "", *, matrices: str = "BF16") -> None:
    """A safetensors file of a network's names and shapes. matrices: the precision of its linear layers, by safetensors' name."""
    linear = {f"{name}.weight" for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    header, end = {}, 0
    for name, tensor in module.state_dict().items():
        dtype = matrices if name in linear else "BF16"
        start, end = end, end + tensor.numel() * BYTES[dtype]
        header[prefix + name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
    written = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(written).to_bytes(8, "little") + written)
        file.truncate(8 + len(written) + end)


def models(folder: Path) -> None:
    """A models folder with Z-Image, FLUX.2 klein 4B, their text encoder and VAEs."""
    for name in ("Stable-diffusion", "VAE", "text_encoder"):
        (folder / name).mkdir(parents=True)
    with torch.device("meta"):
        z_image, klein = ZImageTransformer2DModel(), Flux2Transformer2DModel(
            num_layers=5, num_single_layers=20, num_attention_heads=24, joint_attention_dim=7680, guidance_embeds=False)
        encoder = Qwen3Model(Qwen3Config(**QWEN3_4B))
        vae = dict(block_out_channels=[128, 256, 512, 512], down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)
        plain, flux2 = AutoencoderKL(latent_channels=16, use_quant_conv=False, use_post_quant_conv=False, layers_per_block=2, **vae), AutoencoderKLFlux2()
    write(folder / "Stable-diffusion" / "z-image.safetensors", z_image)
    write(folder / "Stable-diffusion" / "z-image-fp8.safetensors", z_image, matrices="F8_E4M3")
    write(folder / "Stable-diffusion" / "klein.safetensors", klein)
    write(folder / "Stable-diffusion" / "klein-fp8.safetensors", klein, matrices="F8_E4M3")
    write(folder / "text_encoder" / "qwen.safetensors", encoder, "model.")
    write(folder / "VAE" / "ae.safetensors", plain)
    write(folder / "VAE" / "flux2.safetensors", flux2)
