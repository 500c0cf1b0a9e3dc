"""Measures the exported demo model on unseen scenes, and draws docs/demo-model/contact-sheet.png.

The edits on the sheet are made by the product's own pipeline.
"""
from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from PIL import Image
from torch import Tensor

from pipeline.families import load, placement
from pipeline.processing import StableDiffusionProcessingImg2Img, process_images
from tools.demo_model.captions import caption, in_words
from tools.demo_model.draw import as_bytes, draw, sheet
from tools.demo_model.export import folder_size, load_parts
from tools.demo_model.sampling import ddim, embed, sd1_scheduler, to_pictures
from tools.demo_model.scenes import sample_scenes, scene
from tools.demo_model.train_autoencoder import UNSEEN_SEED, psnr

PROMPTS = [
    "a forest at night", "a red sports car on a city street", "a blue sailboat on the sea at sunset",
    "a house in the mountains, winter", "a desert at noon", "a yellow balloon in a meadow",
    "a watercolor painting of a forest in autumn", "pixel art of a red tower by the sea",
    "a city at night, rain", "a person in a red coat in a forest, snow", "a green tree in a meadow, spring",
    "a purple car in the desert at sunset", "an oil painting of mountains at dawn", "a red house in the woods",
    "an orange fence in a meadow", "a foggy morning by the sea"]


@dataclass(frozen=True)
class Edit:
    """A scene to start from and what to ask for; `box` is the part to make anew (left, top, right, bottom in 0..1)."""

    source: dict
    prompt: str
    strength: float
    box: tuple[float, float, float, float] | None = None


EDITS = [
    Edit(dict(place="meadow", thing="house", colour="red", sky_body="sun"), "a red house in a meadow at night", 0.7),
    Edit(dict(place="mountains", sky_body="sun", seed=5), "mountains at sunset", 0.65),
    Edit(dict(place="forest", seed=4), "a forest in winter, snow", 0.7),
    Edit(dict(place="meadow", thing="tree", colour="green", seed=8), "an orange tree in a meadow, autumn", 0.65),
    Edit(dict(place="forest", thing="car", colour="red", seed=3), "a red car in a desert", 0.75),
    Edit(dict(place="desert", thing="person", colour="blue", seed=2), "a person in a blue coat in a forest", 0.8),
    Edit(dict(place="city", thing="car", colour="yellow", seed=6), "a yellow car on a city street at night", 0.7),
    Edit(dict(place="sea", thing="boat", colour="white", seed=7), "a watercolor of a white boat on the sea", 0.6),
    Edit(dict(place="meadow", seed=12), "a red house in a meadow", 1.0, (0.22, 0.40, 0.78, 0.95)),
    Edit(dict(place="city", seed=9), "a blue sports car on a city street", 1.0, (0.14, 0.60, 0.86, 0.97)),
    Edit(dict(place="sea", seed=10, sky_body="sun"), "a red sailboat on the sea", 1.0, (0.2, 0.25, 0.8, 0.85)),
    Edit(dict(place="mountains", seed=11), "a yellow balloon in mountains", 1.0, (0.25, 0.02, 0.75, 0.55)),
    Edit(dict(place="desert", seed=13), "a purple tower in a desert", 1.0, (0.25, 0.2, 0.75, 0.95)),
    Edit(dict(place="forest", thing="person", colour="red", seed=14), "a forest", 1.0, (0.2, 0.35, 0.8, 0.97)),
    Edit(dict(place="meadow", thing="house", colour="white", seed=15), "a green tree in a meadow", 1.0,
         (0.2, 0.3, 0.8, 0.97)),
    Edit(dict(place="city", thing="person", colour="green", seed=16), "a person in a red coat on a city street", 0.85,
         (0.3, 0.35, 0.7, 0.95)),
]


def source_of(edit: Edit, size: int) -> Image.Image:
    return Image.fromarray(as_bytes(draw(scene(**edit.source), size))[0])


def mask_of(edit: Edit, size: int) -> Image.Image | None:
    """White where the picture is made anew."""
    if edit.box is None:
        return None
    mask = Image.new("L", (size, size), 0)
    mask.paste(255, tuple(round(v * size) for v in edit.box))
    return mask


def make_edit(family, edit: Edit, *, size: int = 128, seed: int = 1, steps: int = 20,
              cfg_scale: float = 5.0) -> Image.Image:
    request = StableDiffusionProcessingImg2Img(
        family, init_images=[source_of(edit, size)], mask=mask_of(edit, size), prompt=edit.prompt, seed=seed,
        steps=steps, cfg_scale=cfg_scale, width=128, height=128, denoising_strength=edit.strength, inpainting_fill=1,
        inpaint_full_res=False, mask_blur=2, do_not_save_samples=True, do_not_save_grid=True)
    return process_images(request).images[0]


def eps_error(unet, text_encoder, tokenizer, latents: Tensor, captions: list[str]) -> dict[int, float]:
    """Mean squared error of eps on unseen scenes, at some noise levels t."""
    alphas, errors = sd1_scheduler().alphas_cumprod, {}
    cond = embed(tokenizer, text_encoder, captions)
    for t in (100, 300, 500, 700, 900):
        eps = torch.randn(latents.shape, generator=torch.Generator().manual_seed(t))
        made = unet(alphas[t].sqrt() * latents + (1 - alphas[t]).sqrt() * eps, t, cond).sample
        errors[t] = round(float((made - eps).square().mean()), 4)
    return errors


def edit_rows(family, size: int, columns: int) -> Tensor:
    """Sources (a mask darkens them) above their results, row by row: (N, 3, size, size) in [0, 1]."""
    tiles: list[Tensor] = []
    for start in range(0, len(EDITS), columns):
        row = EDITS[start:start + columns]
        for edit in row:
            shown, mask = source_of(edit, size), mask_of(edit, size)
            if mask is not None:
                shown = Image.composite(shown.point(lambda v: v // 3), shown, mask)
            tiles.append(to_tensor(shown))
        tiles += [to_tensor(make_edit(family, edit)) for edit in row]
    return torch.stack(tiles)


def to_tensor(picture: Image.Image) -> Tensor:
    return torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8).view(
        picture.height, picture.width, 3).permute(2, 0, 1).float() / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("assets/demo-model"))
    parser.add_argument("--sheet", type=Path, default=Path("docs/demo-model/contact-sheet.png"))
    parser.add_argument("--cfg-scale", type=float, default=5.0)
    args = parser.parse_args()
    tokenizer, text_encoder, unet, vae = load_parts(args.model)
    scale, scenes = vae.config.scaling_factor, sample_scenes(64, UNSEEN_SEED)
    pictures = draw(scenes, 128) * 2 - 1
    with torch.no_grad():
        print(f"autoencoder: {psnr(vae, pictures)[0]:.2f} dB on {len(scenes)} unseen scenes")
        latents = vae.encode(pictures).latent_dist.mean * scale
        captions = [caption(words, Random(n)) for n, words in enumerate(in_words(scenes))]
        print(f"eps error at t: {eps_error(unet, text_encoder, tokenizer, latents, captions)}")
        cond, uncond = (embed(tokenizer, text_encoder, texts) for texts in (PROMPTS, [""] * len(PROMPTS)))
    noise = torch.randn((len(PROMPTS), 4, 16, 16), generator=torch.Generator().manual_seed(11))
    made = to_pictures(vae, ddim(unet, cond, uncond, noise, steps=25, cfg_scale=args.cfg_scale), scale)
    family = load(args.model, placement.choose("cpu", "float32"))
    args.sheet.parent.mkdir(parents=True, exist_ok=True)
    sheet(torch.cat([made, edit_rows(family, 128, 8)]), 8).save(args.sheet, optimize=True)
    print(f"{args.sheet}: two rows from text, then sources and their edits")
    print(f"model: {folder_size(args.model) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
