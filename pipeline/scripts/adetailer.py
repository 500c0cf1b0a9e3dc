"""ADetailer as a hook: finds faces and the like in each finished picture, and inpaints each find through the ordinary path."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from pipeline.adetailer import (
    FIELD, OFF, PASSTHROUGH, SAME_CHECKPOINT, SAME_SAMPLER, SAME_SCHEDULER, SAME_VAE, TITLE, Details, Pass, infotext_of, is_skip,
    prompts_for, read_details)
from pipeline.controlnet.units import Unit, Units
from pipeline.detectors import Find
from pipeline.detectors.masks import chosen, masks_of, touching
from pipeline.detectors.store import DetectorFile, Detectors
from pipeline.errors import InvalidRequest
from pipeline.geometry import Size
from pipeline.hooks import HookList, Hooks, ImageArgs, OverlayArgs
from pipeline.images import flatten, resize_image
from pipeline.masking import create_binary_mask
from pipeline.options import Options
from pipeline.processing import StableDiffusionProcessingImg2Img as Processing, process_images
from pipeline.progress import Within
from pipeline.samplers import resolve_names
from pipeline.scripts.controlnet import ControlHooks
from pipeline.scripts.passes import pictures

MODULES = {"inpaint": "inpaint_global_harmonious", "tile": "tile_resample", "lineart": "lineart_standard", "scribble": "scribble_xdog"}
"""The preprocessor that goes with a control network, by a word in its name, where none is chosen."""


@dataclass
class DetailHooks(Hooks):
    """ADetailer for a request, in every run of it."""

    details: Details
    companions: Callable[[], list[Hooks]] = list
    """Makes the hooks that act in its passes too."""
    units: Units = Units()
    """The request's own ControlNet units, for passes that use them."""
    _files: dict[int, DetectorFile] | None = None
    """By the pass's index."""
    _cut: bool = False
    """Whether the batch's own sampling ended early."""

    def process(self, p: Processing) -> None:
        p.say(*self.details.notes)
        self._files = {index: p.detectors.find(one.ad_model) for index, one in self._acting()}
        for index, one in self._acting():
            file = self._files[index]
            p.receipts.use("detector", file.name, p.detectors.sha256(file))
            if file.stem != one.ad_model.rpartition(".")[0] and file.name != one.ad_model:
                p.say(f'ADetailer: "{one.ad_model}" is not in models/adetailer; "{file.name}" was used in its place.')
            if one.ad_restore_face:
                p.say("ADetailer: faces cannot be restored here, so ad_restore_face was left out.")
        p.extra_generation_params |= infotext_of(self.details)
        p.keeps_source = self.details.skip_img2img and bool(p.init_images)

    def post_sample(self, p: Processing, samples: Tensor) -> None:
        self._cut = p.progress.partial

    def postprocess_image(self, p: Processing, ia: ImageArgs) -> None:
        p.progress.partial = self._cut
        if p.keeps_source:
            ia.image = flatten(p.init_images[ia.index % len(p.init_images)], p.options.img2img_background_color)
        for index, one in self._acting():
            # extension: a picture that was stopped or skipped stays as it is
            if p.progress.stopped or p.progress.partial:
                p.progress.partial = True
                return
            try:
                ia.image = self._detailed(p, ia, one, self._files[index])
            except InvalidRequest as error:
                raise of_pass(index, error) from None

    def postprocess_maskoverlay(self, p: Processing, oa: OverlayArgs) -> None:
        if p.keeps_source:  # the source's own pixels are there already
            oa.overlay_image = None

    def _acting(self) -> list[tuple[int, Pass]]:
        return [(index, one) for index, one in enumerate(self.details.passes) if one.acts]

    def _detailed(self, p: Processing, ia: ImageArgs, one: Pass, file: DetectorFile) -> Image.Image:
        """The picture after one pass."""
        image = ia.image
        finds = look(p.detectors, file, image, one, p.options)
        masks = masks_for(finds, image, one)
        if p.image_mask is not None and (p.keeps_source or not p.inpaint_full_res):
            masks = touching(masks, area_of(p, Size(*image.size)))
        if not masks:
            p.say(f'ADetailer: "{one.ad_model}" found nothing to work on.')
        at = p.iteration * p.batch + ia.index
        prompts, negatives = prompts_for(one.ad_prompt, p.all_prompts[at]), prompts_for(one.ad_negative_prompt, p.all_negative_prompts[at])
        runs = [number for number in range(len(masks)) if not is_skip(prompts[min(number, len(prompts) - 1)])]
        cut = False
        for place, number in enumerate(runs):
            if p.progress.stopped:
                cut = True
                break
            run = self._run(p, one, image, masks[number], prompt=prompts[min(number, len(prompts) - 1)],
                            negative_prompt=negatives[min(number, len(negatives) - 1)], **seeds(p, ia.index, number))
            steps = min(int(run.denoising_strength * run.steps), run.steps - 1) + 1
            p.progress.pass_of(behind=p.steps + steps * place, ahead=steps * (len(runs) - 1 - place))
            made = pictures(process_images(run))
            image, cut = made[0].image if made else image, cut or p.progress.partial
        p.progress.partial = cut
        if runs and p.load_model is not None and run.options.sd_vae != p.options.sd_vae:
            p.load_model(p.options)  # a VAE is exchanged in the loaded model itself
        return image.convert("RGB")

    def _run(self, p: Processing, one: Pass, image: Image.Image, mask: Image.Image, **own: Any) -> Processing:
        """The request that inpaints one find."""
        # extension: the prompts have their styles already, and get them again
        run = p.variant_as(Processing, **settings(p, one, Size(*image.size)), **own, init_images=[image], mask=mask)
        run.extra_generation_params, run.progress = {}, Within(p.progress)
        run.scripts = HookList([*self.companions(), *control(one, self.units)])
        return run


# --- what is found

def look(detectors: Detectors, file: DetectorFile, image: Image.Image, one: Pass, options: Options) -> list[Find]:
    """A pass's finds in a picture that count, in order. Raises InvalidRequest, ModelError."""
    finds = detectors.detect(file, np.asarray(image.convert("RGB")), float(one.ad_confidence))
    known = detectors.classes(file)
    if one.classes and len(known) > 1:
        unknown = [name for name in one.classes if name not in known]
        if unknown:
            raise InvalidRequest("ad_model_classes", f'ad_model_classes: "{file.name}" does not know {", ".join(unknown)}; valid: {", ".join(known)}')
        finds = [find for find in finds if find.name in one.classes]
    return chosen(finds, Size(*image.size), low=one.ad_mask_min_ratio, high=one.ad_mask_max_ratio, top=one.ad_mask_k,
                  by=one.ad_mask_filter_method, order=options.ad_bbox_sortby)


def masks_for(finds: list[Find], image: Image.Image, one: Pass) -> list[Image.Image]:
    """A pass's masks over a picture."""
    return masks_of(finds, Size(*image.size), grow=one.ad_dilate_erode, right=one.ad_x_offset, up=one.ad_y_offset, merge=one.ad_mask_merge_invert)


def area_of(p: Processing, size: Size) -> Image.Image:
    """Where the request itself paints, over a picture of that size."""
    mask = create_binary_mask(p.image_mask)
    return resize_image(p.resize_mode, ImageOps.invert(mask) if p.inpainting_mask_invert else mask, *size)


# --- how it is redone

def seeds(p: Processing, index: int, number: int) -> dict[str, int]:
    """The seeds of find `number` of a batch's picture `index`: each find has the next one."""
    step = 0 if p.options.ad_same_seed_for_each_tab else number
    return {"seed": p.seeds[index] + step, "subseed": p.subseeds[index] + step}


def settings(p: Processing, one: Pass, picture: Size) -> dict[str, Any]:
    """The fields of a pass's requests that are not the picture's request's own."""
    size = Size(one.ad_inpaint_width, one.ad_inpaint_height) if one.ad_use_inpaint_width_height else p.size
    if not one.ad_inpaint_only_masked and not one.ad_use_inpaint_width_height:
        size = picture  # after hires fix it is larger than the request's
    changed = {}
    if one.ad_use_clip_skip:
        changed["CLIP_stop_at_last_layers"] = one.ad_clip_skip
    if one.ad_use_checkpoint and one.ad_checkpoint not in SAME_CHECKPOINT:
        changed["sd_model_checkpoint"] = one.ad_checkpoint
    if one.ad_use_vae and one.ad_vae not in SAME_VAE:
        changed["sd_vae"] = one.ad_vae
    return {
        "resize_mode": 0, "inpainting_fill": 1, "inpainting_mask_invert": 0, "latent_mask": None, "mask_blur": one.ad_mask_blur,
        "inpaint_full_res": one.ad_inpaint_only_masked, "inpaint_full_res_padding": one.ad_inpaint_only_masked_padding,
        "denoising_strength": one.ad_denoising_strength, "width": size.width, "height": size.height,
        "steps": one.ad_steps if one.ad_use_steps else p.steps, "cfg_scale": one.ad_cfg_scale if one.ad_use_cfg_scale else p.cfg_scale,
        "initial_noise_multiplier": one.ad_noise_multiplier if one.ad_use_noise_multiplier else None, **sampling(p, one),
        # extension: these are not handed on
        **dict.fromkeys(("eta", "s_churn", "s_tmin", "s_tmax", "s_noise", "s_min_uncond", "image_cfg_scale", "refiner_checkpoint")),
        "batch_size": 1, "n_iter": 1, "source_exif": [], "alwayson_scripts": {}, "do_not_save_samples": True, "do_not_save_grid": True,
        "override_settings": {"return_mask": False, "return_mask_composite": False, "return_grid": False} | changed,
    }


def sampling(p: Processing, one: Pass) -> dict[str, str]:
    """Sampler and schedule of a pass."""
    if not one.ad_use_sampler:
        return {}
    given = {"sampler_name": one.ad_sampler, "scheduler": one.ad_scheduler}
    return {name: value for name, value in given.items() if value not in (SAME_SAMPLER, SAME_SCHEDULER)}


def control(one: Pass, units: Units) -> list[Hooks]:
    """ControlNet in a pass: its own network, which sees the picture; or the request's units; or none."""
    if one.ad_controlnet_model == OFF:
        return []
    if one.ad_controlnet_model == PASSTHROUGH:
        return [ControlHooks(units)] if units.enabled else []
    module = one.ad_controlnet_module
    if module == OFF:
        module = next((name for word, name in MODULES.items() if word in one.ad_controlnet_model.lower()), "none")
    return [ControlHooks(Units((Unit(
        enabled=True, module=module, model=one.ad_controlnet_model, weight=one.ad_controlnet_weight,
        guidance_start=one.ad_controlnet_guidance_start, guidance_end=one.ad_controlnet_guidance_end, pixel_perfect=True),)))]


def read(args: Any) -> Details:
    """The passes in a request's list of arguments, whose requests would not be refused. Raises InvalidRequest."""
    details = read_details(args)
    for index, one in enumerate(details.passes):
        try:
            control(one, Units())
            if one.ad_use_sampler:
                resolve_names(*(None if name in (SAME_SAMPLER, SAME_SCHEDULER) else name for name in (one.ad_sampler, one.ad_scheduler)))
        except InvalidRequest as error:
            raise of_pass(index, error) from None
    return details


def of_pass(index: int, error: InvalidRequest) -> InvalidRequest:
    return InvalidRequest(FIELD, f'{FIELD} of "{TITLE}", pass {index + 1}: {error}')
