"""Runs of tiny flow models by Palimpsest and by diffusers' own pipelines, from the same noise, levels and texts, and how far apart they end.

Used by the tests, which allow CLOSE, and by `python -m benchmarks families`, which prints them.
"""

import gzip
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import diffusers
import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from pipeline import families
from pipeline.families.base import Family
from pipeline.families.cond import Encoding
from pipeline.families.prediction import LAST_TIME
from pipeline.families.qwen3 import TOKENIZER
from pipeline.geometry import Size
from pipeline.processed import Processed
from pipeline.processing import StableDiffusionProcessingImg2Img, process_images
from pipeline.txt2img import StableDiffusionProcessingTxt2Img
from tests.families import tiny_flow
from tests.families.conftest import FLOAT32
from tests.families.tiny_flow import Files

CLOSE = 1e-4
WIDTH, HEIGHT, STEPS, SEED = 64, 96, 4, 7
PROMPT, NEGATIVE = "a red fox in the snow, 東京", "blurry"
SOURCE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)).resize((WIDTH, HEIGHT))
MASK = Image.fromarray(np.pad(np.full((HEIGHT - 32, WIDTH - 32), 255, np.uint8), 16))
REFERENCES = [Image.fromarray(np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8))
              for number, size in ((1, (80, 70)), (2, (1200, 1000)))]
"""One whose sides are not multiples of 16, and one that is reduced."""
LEVELS = [min(1 - step / STEPS, LAST_TIME) for step in range(STEPS)]
"""Times before the shift: diffusers' own, but not quite pure noise at the start."""
LAYOUTS: dict[str, Callable[[Files], tuple[Path, families.Components]]] = {
    "folder": lambda files: (files.folder, families.Components()),
    "single file": lambda files: (files.file, families.Components()),
    "component files": lambda files: (files.transformer, families.Components(files.vae, (files.text_encoder, *files.more_encoders))),
}


@dataclass(frozen=True)
class Kind:
    """How to make and run a tiny model of a family."""

    make: Callable[[Path], Files]
    uses: dict[str, Callable[["Kind", Files, Tensor], Tensor]]
    """By name: diffusers' latents for a use, from noise."""
    cfg_scale: float
    """Guidance, counted as in A1111."""
    latent: Callable[[], tuple[int, ...]] = lambda: (1, 16, HEIGHT // 8, WIDTH // 8)
    options: Mapping[str, Any] = field(default_factory=dict)
    """For our run."""
    small: Callable[[], AbstractContextManager] = nullcontext
    """Context in which references are made smaller than the family has them, to be quick."""


class Unblended(StableDiffusionProcessingImg2Img):
    """Inpaints as diffusers' pipelines for networks that see the mask: nothing puts the source back around the mask during sampling."""

    def init(self, *args) -> None:
        super().init(*args)
        self.mask = self.nmask = None


def load(files: Files, layout: str) -> Family:
    path, components = LAYOUTS[layout](files)
    return families.load(path, FLOAT32, components=components)


def ours(kind: Kind, family: Family, use: str) -> Tensor:
    """Our latents at the end of a run."""
    request = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "seed": SEED, "steps": STEPS, "width": WIDTH, "height": HEIGHT,
               "cfg_scale": kind.cfg_scale, "distilled_cfg_scale": GUIDANCE, "sampler_name": "Euler", "scheduler": "Simple", "sd_model": family}
    source = {"init_images": [SOURCE], "denoising_strength": 0.5, "override_settings": dict(kind.options)}
    if use == SEEING_REFERENCE:  # and not the source, as in diffusers
        source["override_settings"] |= {"source_as_reference": False}
    request["reference_images"] = references_in(use)
    if use in ("txt2img", "references alone"):
        p = StableDiffusionProcessingTxt2Img(**request)
    elif use == "img2img" or use.startswith("edit"):
        source["denoising_strength"] = 1.0 if use.startswith("edit") else source["denoising_strength"]
        p = StableDiffusionProcessingImg2Img(**request, **source)
    elif use == "fill":
        p = Unblended(**request, **source | {"denoising_strength": 1.0}, mask=MASK, mask_blur=0, inpainting_fill=1, inpaint_full_res=False)
    else:
        p = StableDiffusionProcessingImg2Img(**request, **source, mask=MASK, mask_blur=0, inpainting_fill=1, inpaint_full_res=False)
    ends = []
    with patch.object(family, "decode", lambda latent: ends.append(latent.clone()) or type(family).decode(family, latent)):
        process_images(p)
    return torch.cat(ends)


ONE_REFERENCE = ("edit with one reference", "inpaint with one reference", SEEING_REFERENCE := "inpaint seeing a reference")


def references_in(use: str) -> list[Image.Image]:
    """The reference pictures of a use, by its name."""
    return REFERENCES if use in ("edit with references", "references alone") else REFERENCES[:1] if use in ONE_REFERENCE else []


def made(model: Family, kind=StableDiffusionProcessingImg2Img, **fields) -> Processed:
    """Two steps from SOURCE, or with txt2img's request from nothing; fields: those that are to be others."""
    request = {"prompt": "a fox", "seed": 1, "steps": 2, "sampler_name": "Euler", "scheduler": "Simple", "width": 64, "height": 96,
               "cfg_scale": 1, "denoising_strength": 1, "sd_model": model}
    if kind is StableDiffusionProcessingImg2Img:
        request["init_images"] = [SOURCE]
    return process_images(kind(**request | fields))


def pixels(result: Processed) -> np.ndarray:
    return np.asarray(result.images[0], np.int16)


def noise_of(kind: Kind) -> Tensor:
    """The noise that our seed means."""
    return torch.randn(kind.latent(), generator=torch.Generator().manual_seed(SEED))


@torch.inference_mode()
def difference(kind: Kind, files: Files, family: Family, use: str) -> float:
    """The largest difference between our latents and diffusers'."""
    with kind.small():
        theirs, mine = kind.uses[use](kind, files, noise_of(kind)), ours(kind, family, use)
    assert theirs.shape == mine.shape and theirs.std() > 0.1
    return (theirs - mine).abs().max().item()


@contextmanager
def told(pipeline: str, noise: Tensor) -> Iterator[None]:
    """diffusers draws this noise, and takes the mean where it would draw from the autoencoder's posterior."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    with patch(f"diffusers.pipelines.{pipeline}.randn_tensor", lambda *_, **__: noise), \
            patch.object(DiagonalGaussianDistribution, "sample", lambda posterior, generator=None: posterior.mean):
        yield


# --- Z-Image

IDS = {  # of the message that Qwen3's chat template makes of a prompt, by transformers' AutoTokenizer from Qwen/Qwen3-4B
    PROMPT: [151644, 872, 198, 64, 2518, 38835, 304, 279, 11794, 11, 60596, 109, 46553, 151645, 198, 151644, 77091, 198],
    NEGATIVE: [151644, 872, 198, 33542, 884, 151645, 198, 151644, 77091, 198],
}


def z_image_texts(files: Files, text: str) -> list[Tensor]:
    """As diffusers encodes them: padded to 512 tokens, of which the padding is dropped."""
    ids = torch.tensor([IDS[text] + [151643] * (512 - len(IDS[text]))])
    mask = torch.arange(512)[None] < len(IDS[text])
    states = files.modules["text_encoder"](ids, attention_mask=mask, output_hidden_states=True).hidden_states
    return [states[-2][0][mask[0]]]


def z_image_run(use: str, module: str, name: str):
    def run(kind: Kind, files: Files, noise: Tensor) -> Tensor:
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(files.folder / "scheduler")
        pipe = getattr(diffusers, name)(scheduler=scheduler, tokenizer=None, **files.modules)
        pipe.set_progress_bar_config(disable=True)
        scheduler.set_timesteps(sigmas=LEVELS)
        given = {"txt2img": {"latents": noise * scheduler.sigmas[0]}, "img2img": {"image": SOURCE, "strength": 0.75},
                 "inpaint": {"image": SOURCE, "mask_image": MASK, "strength": 0.75}}[use]
        with told(f"z_image.{module}", noise):
            return pipe(prompt_embeds=z_image_texts(files, PROMPT), negative_prompt_embeds=z_image_texts(files, NEGATIVE), sigmas=LEVELS,
                        width=WIDTH, height=HEIGHT, guidance_scale=kind.cfg_scale - 1, output_type="latent", num_inference_steps=STEPS,
                        **given).images
    return run


# --- FLUX.2 klein

KLEIN_TAIL = [151667, 271, 151668, 271]
"""The empty thoughts after the message."""


def klein_texts(files: Files, text: str) -> Tensor:
    """As diffusers encodes them, padding and all."""
    ids = IDS[text] + KLEIN_TAIL
    mask = torch.arange(512)[None] < len(ids)
    states = files.modules["text_encoder"](torch.tensor([ids + [151643] * (512 - len(ids))]), attention_mask=mask,
                                           output_hidden_states=True, use_cache=False).hidden_states
    return torch.cat([states[layer] for layer in (9, 18, 27)], dim=-1)


def klein_run(use: str, module: str, name: str):
    def run(kind: Kind, files: Files, noise: Tensor) -> Tensor:
        from pipeline.families.flux2 import SHIFT

        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=SHIFT)
        pipe = getattr(diffusers, name)(scheduler=scheduler, tokenizer=None, **files.modules)
        pipe.set_progress_bar_config(disable=True)
        scheduler.set_timesteps(sigmas=LEVELS)
        first = scheduler.sigmas[0]
        source = pipe._encode_vae_image(pipe.image_processor.preprocess(SOURCE), None)
        edited = {"latents": noise * first + source * (1 - first), "image": [SOURCE, *references_in(use)]}
        given = {"inpaint with one reference": {"image": SOURCE, "mask_image": MASK, "strength": 0.75, "image_reference": references_in(use)},
                 "txt2img": {"latents": noise * first}, "edit": edited, "edit with one reference": edited, "edit with references": edited,
                 "references alone": {"latents": noise * first, "image": REFERENCES},
                 "inpaint": {"image": SOURCE, "mask_image": MASK, "strength": 0.75}}[use]
        with told(f"flux2.{module}", noise):
            ends = pipe(prompt_embeds=klein_texts(files, PROMPT), negative_prompt_embeds=klein_texts(files, NEGATIVE), sigmas=LEVELS,
                        width=WIDTH, height=HEIGHT, guidance_scale=kind.cfg_scale, output_type="latent", num_inference_steps=STEPS,
                        **given).images
        vae = files.modules["vae"]
        deviation = (vae.bn.running_var + vae.config.batch_norm_eps).sqrt()
        return (pipe._patchify_latents(ends) - vae.bn.running_mean[:, None, None]) / deviation[:, None, None]
    return run


# --- FLUX.1

T5_IDS = {PROMPT: [3, 9, 1131, 3, 20400, 16, 8, 2983, 6, 3, 2, 1], NEGATIVE: [16810, 651, 1]}
"""By transformers' T5TokenizerFast from google/t5-v1_1-xxl."""
CLIP_IDS = {PROMPT: [320, 736, 3240, 530, 518, 2583, 267, 48338, 21078, 361], NEGATIVE: [21977]}
"""By transformers' CLIPTokenizer from openai/clip-vit-large-patch14."""
GUIDANCE = 2.5


def flux1_texts(files: Files, text: str, length: int) -> tuple[Tensor, Tensor]:
    """As diffusers encodes them: (features of all tokens, padding and all; pooled features)."""
    words = torch.tensor([T5_IDS[text] + [0] * (length - len(T5_IDS[text]))])
    pooled = torch.tensor([[49406, *CLIP_IDS[text], *[49407] * (76 - len(CLIP_IDS[text]))]])
    return files.modules["text_encoder_2"](words)[0], files.modules["text_encoder"](pooled).pooler_output


def flux1_pipeline(files: Files, name: str, *, shifts: bool = True):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=shifts, base_shift=0.5, max_shift=1.15)
    pipe = getattr(diffusers, name)(scheduler=scheduler, tokenizer=None, tokenizer_2=None, **files.modules)
    pipe.set_progress_bar_config(disable=True)
    return pipe


KONTEXT_PLACES = {"edit": [(0, 0)], "edit with one reference": [(0, 0), (0, 4)], "edit with references": [(0, 0), (0, 4), (6, 0)],
                  "references alone": [(0, 0), (4, 0)]}
"""(row, column) of each picture's first token, where the source has 6 x 4 of them and small references 4 x 4."""


def kontext_sees(pipe, use: str) -> None:
    """diffusers' pipeline takes one picture; give it several, each where Kontext is to see it."""
    pictures = [SOURCE] * use.startswith("edit") + [picture.resize((64, 64), Image.Resampling.LANCZOS) for picture in references_in(use)]
    latents = [pipe._encode_vae_image(pipe.image_processor.preprocess(picture), None) for picture in pictures]
    places = []
    for latent, (top, left) in zip(latents, KONTEXT_PLACES[use], strict=True):
        rows, columns = (side // 2 for side in latent.shape[-2:])
        places.append(pipe._prepare_latent_image_ids(1, rows, columns, "cpu", torch.float32) + torch.tensor([1, top, left]))
    own = pipe.prepare_latents

    def prepared(image, *given):
        noisy, _, ids, _ = own(image, *given)
        return noisy, torch.cat([pipe._pack_latents(latent, 1, 16, *latent.shape[-2:]) for latent in latents], dim=1), ids, torch.cat(places)

    pipe.prepare_latents = prepared


def flux1_run(use: str, module: str, name: str, *, length: int = 512):
    def run(kind: Kind, files: Files, noise: Tensor) -> Tensor:
        pipe = flux1_pipeline(files, name, shifts=length == 512)
        mu = 0.5 + (1.15 - 0.5) * (WIDTH * HEIGHT // 256 - 256) / (4096 - 256)
        pipe.scheduler.set_timesteps(sigmas=LEVELS, mu=mu)
        first = pipe.scheduler.sigmas[0]

        def packed(latent: Tensor) -> Tensor:
            return pipe._pack_latents(latent, 1, 16, *latent.shape[-2:])

        given: dict = {"txt2img": {"latents": packed(noise * first)}, "img2img": {"image": SOURCE, "strength": 0.75},
                 "inpaint": {"image": SOURCE, "mask_image": MASK, "strength": 0.75},
                 "fill": {"image": SOURCE, "mask_image": MASK}, "references alone": {"image": SOURCE, "latents": packed(noise * first)}}.get(use, {"image": SOURCE})
        if use == SEEING_REFERENCE:
            given = {"image": SOURCE, "mask_image": MASK, "strength": 0.75, "image_reference": REFERENCES[0].resize((64, 64), Image.Resampling.LANCZOS)}
        if name.startswith("FluxKontext"):
            given |= {"max_area": WIDTH * HEIGHT, "_auto_resize": False}
        with told(f"flux.{module}", noise):
            if use == "fill" or use.startswith("edit"):
                source = pipe._encode_vae_image(pipe.image_processor.preprocess(SOURCE), None)
                given["latents"] = packed(noise * first + source * (1 - first))
            if use in KONTEXT_PLACES and use != "edit":  # for which it needs no help
                kontext_sees(pipe, use)
        (words, pooled), (other, other_pooled) = (flux1_texts(files, text, length) for text in (PROMPT, NEGATIVE))
        if kind.cfg_scale != 1:
            given |= {"negative_prompt_embeds": other, "negative_pooled_prompt_embeds": other_pooled, "true_cfg_scale": kind.cfg_scale}
        with told(f"flux.{module}", noise):
            ends = pipe(prompt_embeds=words, pooled_prompt_embeds=pooled, sigmas=LEVELS, width=WIDTH, height=HEIGHT, guidance_scale=GUIDANCE,
                        output_type="latent", num_inference_steps=STEPS, **given).images
        return pipe._unpack_latents(ends, HEIGHT, WIDTH, pipe.vae_scale_factor)
    return run


# --- Qwen-Image

EDIT_MODULE, EDIT_INPAINT_MODULE = "pipeline_qwenimage_edit_plus", "pipeline_qwenimage_edit_inpaint"


class Unscaled:
    """torch for diffusers' pipelines of Qwen-Image, which give guided answers the norm of unguided ones; ours do not."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def norm(self, prediction: Tensor, **_: Any) -> Tensor:
        return torch.ones_like(prediction[..., :1])


def qwen_texts(pipe, text: str, pictures: list[Image.Image]) -> Tensor:
    """As diffusers encodes them, with the positions of pictures' tokens that the text encoder was trained with."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import CONDITION_IMAGE_SIZE, calculate_dimensions

    shown, inputs = "", {}
    if pictures:
        sizes = [calculate_dimensions(CONDITION_IMAGE_SIZE, picture.width / picture.height) for picture in pictures]
        made = Qwen2VLImageProcessorPil()(images=[pipe.image_processor.resize(picture, height, width) for picture, (width, height) in zip(pictures, sizes)],
                                          return_tensors="pt")
        inputs = {"pixel_values": made["pixel_values"], "image_grid_thw": made["image_grid_thw"]}
        shown = "".join(f"Picture {number}: <|vision_start|>{'<|image_pad|>' * (int(grid.prod()) // 4)}<|vision_end|>"
                        for number, grid in enumerate(made["image_grid_thw"], 1))
    tokenizer = Tokenizer.from_buffer(gzip.decompress(TOKENIZER.read_bytes()))
    ids = torch.tensor([tokenizer.encode(pipe.prompt_template_encode.format(shown + text)).ids])
    if pictures:
        inputs["mm_token_type_ids"] = (ids == 151655).int()
    states = pipe.text_encoder(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True, **inputs).hidden_states[-1]
    return states[:, pipe.prompt_template_encode_start_idx:]


def qwen_run(use: str, module: str, name: str):
    def run(kind: Kind, files: Files, noise: Tensor) -> Tensor:
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192)
        pipe = getattr(diffusers, name)(scheduler=scheduler, tokenizer=None, **files.modules, **({"processor": None} if "Edit" in name else {}))
        pipe.set_progress_bar_config(disable=True)
        scheduler.set_timesteps(sigmas=LEVELS, mu=0.5 + 0.4 * (WIDTH * HEIGHT // 256 - 256) / (8192 - 256))
        first = scheduler.sigmas[0]

        def packed(latent: Tensor) -> Tensor:
            return pipe._pack_latents(latent, 1, 16, *latent.shape[-2:])

        pictures = [SOURCE] * (use.startswith("edit") or "Edit" in name and use == "inpaint") + references_in(use)
        texts = pipe if name != "QwenImageEditInpaintPipeline" else diffusers.QwenImageEditPlusPipeline(
            scheduler=scheduler, tokenizer=None, processor=None, **files.modules)  # ours says "Picture 1" of one picture, too
        given = {"txt2img": {"latents": packed(noise * first)}, "img2img": {"image": SOURCE, "strength": 0.75},
                 "inpaint": {"image": SOURCE, "mask_image": MASK, "strength": 0.75}}.get(use)
        if given is None:
            vae = pipe.vae.config
            source = pipe.vae.encode(pipe.image_processor.preprocess(SOURCE)[:, :, None]).latent_dist.mean[:, :, 0]
            source = (source - torch.tensor(vae.latents_mean)[:, None, None]) / torch.tensor(vae.latents_std)[:, None, None]
            given = {"image": pictures, "latents": packed(noise * first + source * (1 - first) * use.startswith("edit"))}
        with told(f"qwenimage.{module}", noise[:, None]), patch(f"diffusers.pipelines.qwenimage.{module}.torch", Unscaled()), \
                patch(f"diffusers.pipelines.qwenimage.{EDIT_INPAINT_MODULE}.calculate_dimensions", lambda *_: (WIDTH, HEIGHT, None)):
            ends = pipe(prompt_embeds=qwen_texts(texts, PROMPT, pictures), prompt_embeds_mask=None, sigmas=LEVELS, width=WIDTH, height=HEIGHT,
                        negative_prompt_embeds=qwen_texts(texts, NEGATIVE, pictures), negative_prompt_embeds_mask=None,
                        true_cfg_scale=kind.cfg_scale, output_type="latent", num_inference_steps=STEPS, **given).images
        return pipe._unpack_latents(ends, HEIGHT, WIDTH, 8)[:, :, 0]
    return run


@contextmanager
def small_references() -> Iterator[None]:
    with patch("pipeline.families.qwen_image.REFERENCE_AREA", WIDTH * HEIGHT), \
            patch(f"diffusers.pipelines.qwenimage.{EDIT_MODULE}.VAE_IMAGE_SIZE", WIDTH * HEIGHT):
        yield


@contextmanager
def small_kontext_references() -> Iterator[None]:
    with patch("pipeline.families.flux1.SIDES", (48, 64, 96)):
        yield


QWEN_EDITS = {use: qwen_run(use, EDIT_MODULE, "QwenImageEditPlusPipeline")
              for use in ("edit", "edit with one reference", "edit with references", "references alone")}
QWEN_EDITS["inpaint"] = qwen_run("inpaint", EDIT_INPAINT_MODULE, "QwenImageEditInpaintPipeline")

KINDS = {
    "qwen-image": Kind(tiny_flow.qwen_image, {
        "txt2img": qwen_run("txt2img", "pipeline_qwenimage", "QwenImagePipeline"),
        "img2img": qwen_run("img2img", "pipeline_qwenimage_img2img", "QwenImageImg2ImgPipeline"),
        "inpaint": qwen_run("inpaint", "pipeline_qwenimage_inpaint", "QwenImageInpaintPipeline")}, cfg_scale=3.0,
        options={"source_as_reference": False}),
    "qwen-image-edit 2509": Kind(partial(tiny_flow.qwen_image, pipeline="QwenImageEditPlusPipeline"), QWEN_EDITS, cfg_scale=3.0,
                                 small=small_references),
    "qwen-image-edit 2511": Kind(partial(tiny_flow.qwen_image, pipeline="QwenImageEditPlusPipeline", zero=True), QWEN_EDITS, cfg_scale=1.0,
                                 small=small_references),
    "flux1-dev": Kind(tiny_flow.flux1, {
        "txt2img": flux1_run("txt2img", "pipeline_flux", "FluxPipeline"),
        "img2img": flux1_run("img2img", "pipeline_flux_img2img", "FluxImg2ImgPipeline"),
        "inpaint": flux1_run("inpaint", "pipeline_flux_inpaint", "FluxInpaintPipeline")}, cfg_scale=2.0),
    "flux1-schnell": Kind(partial(tiny_flow.flux1, variant="schnell"), {
        "txt2img": flux1_run("txt2img", "pipeline_flux", "FluxPipeline", length=256),
        "img2img": flux1_run("img2img", "pipeline_flux_img2img", "FluxImg2ImgPipeline", length=256),
        "inpaint": flux1_run("inpaint", "pipeline_flux_inpaint", "FluxInpaintPipeline", length=256)}, cfg_scale=1.0),
    "flux1-fill": Kind(partial(tiny_flow.flux1, variant="fill"), {
        "fill": flux1_run("fill", "pipeline_flux_fill", "FluxFillPipeline")}, cfg_scale=1.0),
    "flux1-kontext": Kind(partial(tiny_flow.flux1, variant="kontext"), {
        "txt2img": flux1_run("txt2img", "pipeline_flux_kontext", "FluxKontextPipeline"),
        **{use: flux1_run(use, "pipeline_flux_kontext", "FluxKontextPipeline") for use in KONTEXT_PLACES},
        **{use: flux1_run(use, "pipeline_flux_kontext_inpaint", "FluxKontextInpaintPipeline") for use in ("inpaint", SEEING_REFERENCE)}},
        cfg_scale=2.0, small=small_kontext_references),
    "flux2-klein": Kind(tiny_flow.klein, {
        "txt2img": klein_run("txt2img", "pipeline_flux2_klein", "Flux2KleinPipeline"),
        **{use: klein_run(use, "pipeline_flux2_klein", "Flux2KleinPipeline")
           for use in ("edit", "edit with one reference", "edit with references", "references alone")},
        **{use: klein_run(use, "pipeline_flux2_klein_inpaint", "Flux2KleinInpaintPipeline") for use in ("inpaint", "inpaint with one reference")}}, cfg_scale=4.0,
        latent=lambda: (1, 128, HEIGHT // 16, WIDTH // 16)),
    "z-image": Kind(tiny_flow.z_image, {
        "txt2img": z_image_run("txt2img", "pipeline_z_image", "ZImagePipeline"),
        "img2img": z_image_run("img2img", "pipeline_z_image_img2img", "ZImageImg2ImgPipeline"),
        "inpaint": z_image_run("inpaint", "pipeline_z_image_inpaint", "ZImageInpaintPipeline")}, cfg_scale=4.0),
}


def encoded(family: Family, text: str) -> Tensor:
    return family.encode_prompts([text], Encoding(size=Size(WIDTH, HEIGHT))).tokens
