"""Writes the demo model as a diffusers folder in fp16, including preview data, and loads it again."""
from __future__ import annotations

import argparse
import json
from pathlib import Path
from shutil import copyfile

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from tools.demo_model import train_embedding, train_lora
from tools.demo_model.bank import Pictures
from tools.demo_model.draw import to_tensor
from tools.demo_model.sampling import sd1_scheduler
from tools.demo_model.train_autoencoder import trained_autoencoder
from tools.demo_model.train_tiny import trained_tiny
from tools.demo_model.train_unet import DemoModel, load_or_train_tokenizer

LICENCE = "CC0-1.0: trained only on pictures and captions made by this project's own drawing code."
LIMIT_MB = 60
PARTS = {
    "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"]}


def latent_rgb(latents: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Factors (4, 3) and bias (3) with RGB in [-1, 1] close to latent @ factors + bias, by least squares.

    `latents` (B, 4, h, w) at model scale, `pictures` (B, 3, H, W) in [-1, 1].
    """
    small = torch.nn.functional.interpolate(pictures, latents.shape[2:], mode="area").permute(0, 2, 3, 1).reshape(-1,
            3)
    rows = latents.permute(0, 2, 3, 1).reshape(-1, 4)
    solved = torch.linalg.lstsq(torch.cat([rows, torch.ones(len(rows), 1)], 1), small).solution
    return solved[:4], solved[4]


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def write_parts(work: Path, folder: Path) -> dict:
    """Save every part; returns what training achieved."""
    tokenizer, vae = load_or_train_tokenizer(work), trained_autoencoder(work, torch.device("cpu"))
    autoencoder = torch.load(work / "autoencoder.pt", map_location="cpu")
    state, about = torch.load(work / "unet.pt", map_location="cpu"), torch.load(work / "latents" / "about.pt")
    model = DemoModel(tokenizer)
    model.load_state_dict(state["ema"])
    vae.register_to_config(scaling_factor=round(about["scaling_factor"], 6), force_upcast=False)
    vae.half().save_pretrained(folder / "vae")
    model.unet.half().save_pretrained(folder / "unet")
    model.text_encoder.half().save_pretrained(folder / "text_encoder")
    if (work / "tiny.pt").exists():
        trained_tiny(work, torch.device("cpu")).half().save_pretrained(folder / "vae_approx")
    sd1_scheduler().save_pretrained(folder / "scheduler")
    (folder / "tokenizer").mkdir(exist_ok=True)
    for path in (work / "tokenizer").iterdir():
        (folder / "tokenizer" / path.name).write_bytes(path.read_bytes())
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1", **PARTS,
             "feature_extractor": [None, None], "safety_checker": [None, None], "requires_safety_checker": False}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    pictures, latents = Pictures(work), torch.load(work / "latents" / "0000.pt")["clean"][:256].float()
    factors, bias = latent_rgb(latents * about["scaling_factor"],
                               to_tensor(np.stack([pictures[n] for n in range(len(latents))])))
    return dict(latent_rgb_factors=[[round(v, 5) for v in row] for row in factors.tolist()],
                latent_rgb_bias=[round(v, 5) for v in bias.tolist()],
                training=dict(autoencoder_minutes=round((autoencoder["spent"] + autoencoder["before"]) / 60, 1),
                              unet_steps=state["step"], unet_images=state["images"],
                              unet_minutes=round(state["spent"] / 60, 1), scenes=len(pictures)))


def write_networks(work: Path, folder: Path) -> None:
    """Copy the LoRA and the embedding, if trained, to the folder where Palimpsest looks for them."""
    for kind, name in (("Lora", train_lora.NAME), ("embeddings", train_embedding.NAME)):
        file = work / f"{name}.safetensors"
        if file.exists():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            copyfile(file, folder / kind / file.name)


def check(folder: Path) -> None:
    """Raises unless the folder is small enough, and every part loads and returns finite numbers."""
    size = folder_size(folder) / 1e6
    if size >= LIMIT_MB:
        raise SystemExit(f"{folder} must stay below {LIMIT_MB} MB, but has {size:.1f} MB")
    tokenizer, text_encoder, unet, vae = load_parts(folder)
    DDIMScheduler.from_pretrained(folder / "scheduler")
    rows = tokenizer(["a forest at night"], padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        eps = unet(torch.zeros(1, 9, 32, 32), 500, text_encoder(rows).last_hidden_state).sample
        picture = vae.decode(eps).sample
    if picture.shape != (1, 3, 256, 256) or not picture.isfinite().all():
        raise SystemExit(f"{folder} does not work: it made a picture of shape {tuple(picture.shape)}")
    print(f"{folder}: {size:.1f} MB, loads and runs")


def load_parts(folder: Path) -> tuple[CLIPTokenizer, CLIPTextModel, UNet2DConditionModel, AutoencoderKL]:
    """The exported tokenizer, text encoder, UNet and autoencoder, in fp32."""
    return (CLIPTokenizer.from_pretrained(folder / "tokenizer"),
            CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval(),
            UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32).eval(),
            AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with the trained parts")
    parser.add_argument("--to", type=Path, default=Path("assets/demo-model"))
    parser.add_argument("--networks", type=Path, default=Path("assets/demo-networks"),
                        help="for the LoRA and the embedding")
    args = parser.parse_args()
    args.to.mkdir(parents=True, exist_ok=True)
    learned = write_parts(args.work, args.to)
    about = dict(name="Palimpsest demo model", native_size=256, **learned, licence=LICENCE)
    (args.to / "palimpsest.json").write_text(json.dumps(about, indent=2) + "\n")
    write_networks(args.work, args.networks)
    check(args.to)


if __name__ == "__main__":
    main()
