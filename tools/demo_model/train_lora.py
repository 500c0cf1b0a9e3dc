"""Trains a small LoRA for the demo model, in a style that the model has never seen: stained glass.

Reads unet.pt, autoencoder.pt and latents/about.pt in the work folder; keeps lora.pt and lora.png, and writes
stained-glass.safetensors in kohya's layout.
"""
from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn

from tools.demo_model.captions import caption
from tools.demo_model.draw import drawn, pick_device, sheet
from tools.demo_model.encode import encode_chunk, latents_folder
from tools.demo_model.masks import masks_of
from tools.demo_model.scenes import Scene, sample_scenes
from tools.demo_model.train_autoencoder import trained_autoencoder
from tools.demo_model.train_unet import Bank, caption_loss, load_or_train_tokenizer, previews, trained_model
from tools.demo_model.training import Course, course_options, log
from tools.demo_model.words import STYLE_WORDS

NAME, STYLE, RANK = "stained-glass", "stained glass", 8
SAID = ("stained glass, {}", "{}, stained glass", "a stained glass window of {}", "stained glass window, {}")
PREVIEW = [f"stained glass, {text}" for text in (
    "a lighthouse by the sea", "a red house in a meadow", "a forest", "mountains at sunset", "a black cat in a village",
    "a city", "a boat on a lake", "a castle at night")]


class LowRank(nn.Module):
    """What a LoRA adds to one layer: down to a few channels as that layer goes, and up again; nothing at first."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int) -> None:
        super().__init__()
        if isinstance(layer, nn.Conv2d):
            self.down = nn.Conv2d(layer.in_channels, rank, layer.kernel_size, layer.stride, layer.padding, bias=False)
            self.up = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
        else:
            self.down = nn.Linear(layer.in_features, rank, bias=False)
            self.up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.up(self.down(inputs))


class Lora(nn.Module):
    """Low ranks for the layers of a UNet's resnets and attentions, under kohya's names."""

    def __init__(self, unet: UNet2DConditionModel, rank: int = RANK) -> None:
        super().__init__()
        self.joints = {kohya_name(path): layer for path, layer in unet.named_modules()
                       if isinstance(layer, (nn.Linear, nn.Conv2d)) and (".resnets." in path or ".attentions." in path)}
        self.layers = nn.ModuleDict({name: LowRank(layer, rank) for name, layer in self.joints.items()})

    def join(self) -> list[torch.utils.hooks.RemovableHandle]:
        """Lets the layers answer with what this adds to them, until the handles are removed."""
        return [layer.register_forward_hook(lambda _, inputs, made, low=self.layers[name]: made + low(inputs[0]))
                for name, layer in self.joints.items()]

    def tensors(self) -> dict[str, Tensor]:
        """The file's content, fp16; alpha is the rank, so that nothing is scaled."""
        parts = {}
        for name, low in self.layers.items():
            parts |= {f"{name}.lora_down.weight": low.down.weight, f"{name}.lora_up.weight": low.up.weight,
                      f"{name}.alpha": torch.tensor(float(low.down.weight.shape[0]))}
        return {name: part.detach().half().contiguous() for name, part in parts.items()}


def kohya_name(path: str) -> str:
    return "lora_unet_" + path.replace(".", "_")


def say(scene: Scene, random: Random) -> str:
    """A caption of the scene that names the new style and no other."""
    text = caption(scene, random)
    while any(word in text for word in STYLE_WORDS["flat"]):
        text = caption(scene, random)
    return random.choice(SAID).format(text)


def drawn_bank(work: Path, device: torch.device, scenes: list[Scene], pictures: Tensor, **settings) -> Bank:
    """A bank of these pictures (N, 3, 256, 256), encoded here; the scale is that of the model's own bank."""
    about = torch.load(latents_folder(work, 256) / "about.pt")
    encoded = encode_chunk(trained_autoencoder(work, device), pictures.to(device), masks_of(scenes, 256).to(device))
    return Bank(scenes, encoded, about, load_or_train_tokenizer(work), **settings)


def write(lora: Lora, path: Path, steps: int) -> None:
    """The LoRA as a file, with the metadata that tells its trigger words."""
    tags = {NAME: {STYLE: steps}}
    save_file(lora.tensors(), path, dict(
        ss_network_module="networks.lora", ss_network_dim=str(RANK), ss_network_alpha=str(float(RANK)),
        ss_base_model_version="sd_v1", ss_steps=str(steps), ss_tag_frequency=json.dumps(tags), ss_output_name=NAME))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    course_options(parser, minutes=20, rate=1e-3, batch=16, seed=7)
    parser.add_argument("--count", type=int, default=400, help="how many pictures of the style are drawn")
    args = parser.parse_args()
    device = pick_device(args.device)
    torch.manual_seed(args.seed)
    scenes = [replace(scene, style="flat") for scene in sample_scenes(args.count, args.seed)]
    pictures = drawn([replace(scene, style=STYLE) for scene in scenes], 256)
    log(f"{len(scenes)} pictures drawn")
    bank = drawn_bank(args.work, device, scenes, pictures, drop=0.1, masked=0.3, seed=args.seed, say=say)
    model = trained_model(args.work, bank.tokenizer, device)
    lora = Lora(model.unet).to(device)
    lora.join()

    course = Course(args.work / "lora.pt", lora, args, device, muon=False)

    def report() -> str:
        shown = trained_model(args.work, bank.tokenizer, device)
        averaged = Lora(shown.unet).to(device).requires_grad_(False)
        averaged.load_state_dict(course.ema.weights)
        averaged.join()
        write(averaged, args.work / f"{NAME}.safetensors", course.step)
        vae = trained_autoencoder(args.work, device)
        sheet(previews(shown, bank.tokenizer, vae, bank, PREVIEW), 8).save(args.work / "lora.png")
        return f"{NAME}.safetensors, lora.png"

    course.run(lambda random: bank.draw(args.batch, device), caption_loss(model, device), report)


if __name__ == "__main__":
    main()
