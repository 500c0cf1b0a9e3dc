"""A request's way to finished pictures, in running order: read downwards.

process_images() narrates. The request's fields are in request.py, its working state in bound.py, and the stages in sources,
masking, prompts, conditioning, samplers, finishing and the families.
"""

from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pipeline.bound import StableDiffusionProcessing
from pipeline.conditioning import PromptEncoder
from pipeline.describe import create_infotext
from pipeline.errors import InvalidRequest, ModelError
from pipeline.families.base import Family
from pipeline.families.wrapping import wrapping_around
from pipeline.finishing import Output, finish_image, with_grid
from pipeline.hooks import MaskBlendArgs
from pipeline.masking import MaskPlan, create_binary_mask
from pipeline.options import Options, infotext_name
from pipeline.previews import small_pixels
from pipeline.processed import Processed
from pipeline.prompt_parser import extract_networks, strip_comments
from pipeline.prompts import apply_networks, encode_empty, record_prompt_options, with_default_lora
from pipeline.receipt import digest_of_texts
from pipeline.rng import ImageRNG, fixed_seed
from pipeline.samplers import SAMPLERS, create_sampler
from pipeline.samplers.sampler import record_noise_schedule
from pipeline.sources import Source, Stages

FILLS = {0: "fill", 1: None, 2: "latent noise", 3: "latent nothing"}
"""Infotext's names for the masked content; 1, the original, is left out."""


def process_images(p: StableDiffusionProcessing) -> Processed:
    """Run the request to its end or interruption: all batches, with overlay, infotext and saving."""
    with torch.inference_mode():
        return _process_images(p)


def _process_images(p: StableDiffusionProcessing) -> Processed:
    if p.sd_model is None:
        p.sd_model = load_model(p, p.options)
    if p.refiner_checkpoint not in (None, "", "None", "none"):
        p.refiner = load_model(p, p.options.override({"sd_model_checkpoint": p.refiner_checkpoint}))
        check_refiner(p.refiner, p.sd_model)
    with wrapping_around([module for model in p.models for module in model.modules.values()] if p.tiles else []), p.receipts.scope():
        return _run_batches(p)


def _run_batches(p: StableDiffusionProcessing) -> Processed:
    expand(p)
    p.scripts.process(p)
    p.init(p.all_prompts, p.all_seeds, p.all_subseeds)
    calls = p.steps * (2 if SAMPLERS[p.sampler_name].second_order else 1)
    p.encoder = PromptEncoder(p.sd_model, p.options, calls, p.cache, size=p.size, references=p.references,
                              sources=p.read_sources, guidance=p.distilled_cfg_scale)
    if p.options.pad_cond_uncond:
        p.encoder = replace(p.encoder, empties={family.info: encode_empty(p, family) for family in p.models})
    outputs: list[Output] = []
    partial = False
    for iteration in range(p.n_iter):
        with p.receipts.scope():
            here = start_batch(p, iteration)
            if p.progress.stopped or not p.prompts:
                partial |= p.progress.stopped
                break
            if not here:
                outputs += [Output(Image.new("RGB", p.size), "", None)] * len(p.prompts)
                continue
            made, cut = _run_batch(p)
            outputs += made
            partial |= cut
    p.say(*p.sd_model.notes)
    p.sd_model.notes.clear()
    return gather(p, outputs, interrupted=partial)


def _run_batch(p: StableDiffusionProcessing) -> tuple[list[Output], bool]:
    """(the finished pictures of the batch that has been started, whether its sampling was cut short)."""
    samples = p.sample(p.encoder.positive(p.prompts), p.encoder.negative(p.negative_prompts), p.seeds, p.subseeds,
                       p.subseed_strength, p.prompts)
    outputs, partial = [], p.progress.partial
    p.scripts.post_sample(p, samples)
    for index, pixels in enumerate(decode(p, samples)):
        outputs += finish_image(p, pixels, index)
        partial |= p.progress.partial  # a hook may have sampled more
    p.progress.batch_done()
    return outputs, partial


def load_model(p: StableDiffusionProcessing, options: Options) -> Family:
    """The model that options name."""
    if p.load_model is None:
        raise InvalidRequest("sd_model_checkpoint", "sd_model_checkpoint: only the engine can load another checkpoint or VAE, "
                                                    "and this request runs without it")
    return p.load_model(options)


def check_refiner(refiner: Family, model: Family) -> None:
    """Raise InvalidRequest if a refiner takes source conditioning that the model does not."""
    if refiner.sees not in ("nothing", model.sees):
        kind = "InstructPix2Pix" if refiner.sees == "source" else "inpainting"
        raise InvalidRequest("refiner_checkpoint", f'refiner_checkpoint: "{refiner.info.name}" is an {kind} checkpoint, which '
                                                   "can only refine the picture of another checkpoint of that kind")


def expand(p: StableDiffusionProcessing) -> None:
    """One prompt, seed and subseed for every picture of the job."""
    count = p.batch_size * p.n_iter
    lists = [value for value in (p.prompt, p.negative_prompt) if isinstance(value, list)]
    if lists:
        count = len(lists[0])
    clean = strip_comments if p.options.enable_prompt_comments else str
    p.all_prompts = [clean(p.style_database.apply_styles(text, p.styles)) for text in each(p.prompt, count, "prompt")]
    p.all_negative_prompts = [clean(p.style_database.apply_negative_styles(text, p.styles))
                              for text in each(p.negative_prompt, count, "negative_prompt")]
    for style in filter(None, map(p.style_database.styles.get, p.styles)):
        p.receipts.use("style", style.name, digest_of_texts(style.prompt, style.negative_prompt))
    # a subseed without effect is not part of the receipt
    own = not p.script_name  # a script may use different seeds in each run
    subseed = p.receipts.seed(p.subseed, "subseed" if own else None) if p.subseed_strength else fixed_seed(p.subseed)
    if isinstance(p.seed, list):
        p.all_seeds = each(p.seed, count, "seed")
    else:
        seed = p.receipts.seed(p.seed, "seed" if own else None)
        # A1111: with a variation strength all pictures share the seed; only the subseed increments
        p.all_seeds = [seed + (0 if p.subseed_strength else i) for i in range(count)]
    p.all_subseeds = [subseed + i for i in range(count)]


def each(value: Any, count: int, name: str) -> list[Any]:
    """`count` copies of the value, or the list itself. Raises InvalidRequest for a list of another length."""
    if not isinstance(value, list):
        return [value] * count
    if len(value) != count:
        raise InvalidRequest(name, f"{name} must have one value per picture ({count}), got {len(value)}")
    return value


class StableDiffusionProcessingImg2Img(StableDiffusionProcessing):
    """An edit of a picture: of all of it, or where a mask is white."""

    def init(self, all_prompts: list[str], all_seeds: list[int], all_subseeds: list[int]) -> None:
        """Turn source pictures and mask into the latents that sampling starts from."""
        self.check_size()
        self.sampler = create_sampler(self.sampler_name, self.sd_model, self.options, self.size)
        stages = Stages(self.cache, self.digests.of, self.sd_model, tiling=self.tiles)
        self.see_references(stages)
        plan = self._plan_mask(stages)
        latent_mask = None if plan is None else self.latent_mask or plan.image_mask
        sources = self._prepare_sources(stages, plan, latent_mask)
        self._adopt(plan, sources)
        if self.options.sd_vae_encode_method != "Full":
            self.extra_generation_params[infotext_name("sd_vae_encode_method")] = self.options.sd_vae_encode_method
        latent = stages.encode(sources, self.size, latent_upscale=self.resize_mode == 3)
        self.init_latent = self._to_batch(latent)
        if plan is not None and self.edits and self.options.edit_freely:
            self.extra_generation_params[infotext_name("edit_freely")] = True
        elif plan is not None:
            self.mask, self.nmask = map(torch.clone, stages.latent_masks(latent_mask, latent, round=self.rounds_mask))
            self.init_latent = self._fill_latent(all_seeds)
        if self.sd_model.sees == "reference" and not self.edits:
            self.extra_generation_params[infotext_name("source_as_reference")] = False
            self.image_conditioning = self.init_latent[:, :0]
            return
        if self.edits:
            self.read_sources = stages.read(sources, latent)
        self.image_conditioning = self._to_batch(stages.image_conditioning(
            sources, latent, plan, round=self.rounds_mask, mask_weight=self.options.inpainting_mask_weight))

    @property
    def edits(self) -> bool:
        """Whether the model edits the source by instruction, seeing it beside the noise."""
        return self.sd_model.sees == "reference" and self.options.source_as_reference

    def see_references(self, stages: Stages) -> None:
        """Encode the reference pictures. Raises InvalidRequest if the model takes fewer."""
        self.references = stages.references(self.reference_images)
        if self.references:
            self.extra_generation_params["Reference images"] = len(self.references)

    def check_size(self) -> None:
        """Raise InvalidRequest if the model's latents cannot have this size."""
        step = self.sd_model.latent_format.downscale
        if step > 8 and (self.width % step or self.height % step):
            raise InvalidRequest("width", f'width and height must be multiples of {step} with "{self.sd_model.info.name}", '
                                          f"got {self.width}x{self.height}")

    @property
    def mask_settings(self) -> dict[str, Any]:
        """The arguments of plan_mask() besides the mask."""
        return {"size": self.size, "round": self.rounds_mask, "invert": bool(self.inpainting_mask_invert),
                "blur": (self.mask_blur_x, self.mask_blur_y), "resize_mode": self.resize_mode,
                "only_masked": bool(self.inpaint_full_res), "padding": self.inpaint_full_res_padding}

    def _plan_mask(self, stages: Stages) -> MaskPlan | None:
        if self.image_mask is None:
            return None
        record, settings = self.extra_generation_params, self.mask_settings
        only_masked = settings["only_masked"]
        plan = stages.plan_mask(self.image_mask, **settings)
        if self.inpainting_mask_invert:
            record["Mask mode"] = "Inpaint not masked"
        if self.mask_blur_x > 0 or self.mask_blur_y > 0:
            record["Mask blur"] = self.mask_blur
        if plan is None:
            self.comments.append("The mask is blank, so the whole picture was used.")
        elif only_masked:
            record["Inpaint area"] = "Only masked"
            record["Masked area padding"] = self.inpaint_full_res_padding
        if plan is not None and self.inpainting_fill == 0:
            record["Masked content"] = FILLS[0]
        return plan

    def _prepare_sources(self, stages: Stages, plan: MaskPlan | None, latent_mask: Image.Image | None) -> list[Source]:
        sources = []
        for image in self.init_images:
            source = stages.prepare(image, plan, latent_mask, size=self.size, resize_mode=self.resize_mode,
                                    masked_content=self.inpainting_fill, background=self.options.img2img_background_color,
                                    correct_color=self.options.img2img_color_correction,
                                    upscaler=self.upscaler)
            if self.progress.stopped:
                # an interrupted upscaler leaves the rest to Lanczos, which must not be kept as its result
                self.cache.clear()
            sources.append(source)
            if plan is not None:
                # A1111: the overlay's mask is resized from each picture's size to the next one's
                plan = replace(plan, mask_for_overlay=source.mask_for_overlay)
        return sources

    def _adopt(self, plan: MaskPlan | None, sources: list[Source]) -> None:
        """Take the overlay and colour targets from the sources; copies, since hooks may modify them."""
        self.paste_to = None if plan is None else plan.paste_to
        self.mask_for_overlay = None if plan is None else sources[-1].mask_for_overlay.copy()
        repeats = self.batch if len(sources) == 1 else 1
        self.overlay_images = [source.overlay.copy() for source in sources if source.overlay is not None] * repeats
        self.masked_sources = [] if plan is None else [(source.image, plan.image_mask.convert("L")) for source in sources] * repeats
        self.color_corrections = self.color_corrections or [source.color_target.copy() for source in sources
                                                            if source.color_target is not None] * repeats

    def _to_batch(self, tensor: Tensor) -> Tensor:
        """A copy with one row per picture."""
        return tensor.repeat(self.batch // len(tensor), 1, 1, 1)

    def _fill_latent(self, all_seeds: list[int]) -> Tensor:
        """The init latent with its masked part replaced, for masked content 2 and 3."""
        if self.inpainting_fill in (2, 3):
            self.extra_generation_params["Masked content"] = FILLS[self.inpainting_fill]
        if self.inpainting_fill == 2:
            # A1111: each seed's first noise, equal to the start noise; always the first batch's seeds
            noise = ImageRNG(tuple(self.init_latent.shape[1:]), all_seeds[:self.batch],
                             source=self.options.randn_source, device=self.init_latent.device).first()
            return self.init_latent * self.mask + noise * self.nmask
        if self.inpainting_fill == 3:
            return self.init_latent * self.mask
        return self.init_latent

    def sample(self, conditioning: Any, unconditional_conditioning: Any, seeds: list[int], subseeds: list[int],
               subseed_strength: float, prompts: list[str]) -> Tensor:
        """Noise, denoise and blend one batch: (B, C, H/8, W/8), ready to decode."""
        noise = self.rng.next()
        if self.keeps_source:
            return self.init_latent[:len(noise)]
        if self.initial_noise_multiplier != 1.0:
            self.extra_generation_params[infotext_name("initial_noise_multiplier")] = self.initial_noise_multiplier
            noise = noise * self.initial_noise_multiplier
        init_latent = self.init_latent[:len(noise)]  # a list of prompts may end in the middle of a batch
        self.scripts.process_before_every_sampling(self, x=init_latent, noise=noise, c=conditioning,
                                                   uc=unconditional_conditioning)
        samples = self.sampler.sample_img2img(self, init_latent, noise, conditioning, unconditional_conditioning,
                                              image_conditioning=self.image_conditioning[:len(noise)])
        if self.mask is None:
            return samples
        return blend(self, samples)


def blend(p: StableDiffusionProcessing, samples: Tensor) -> Tensor:
    """The blend after sampling: samples where the mask regenerates, the init latent where it preserves."""
    init_latent = p.init_latent[:len(samples)]
    args = MaskBlendArgs(current_latent=samples, nmask=p.nmask, init_latent=init_latent, mask=p.mask,
                         blended_latent=samples * p.nmask + init_latent * p.mask)
    p.scripts.on_mask_blend(p, args)
    return args.blended_latent


def start_batch(p: StableDiffusionProcessing, iteration: int) -> bool:
    """Take this batch's prompts and seeds, and create its noise source. Returns whether it is made here, and not by another worker."""
    p.iteration = iteration
    share = slice(iteration * p.batch, (iteration + 1) * p.batch)
    p.prompts, p.negative_prompts = p.all_prompts[share], p.all_negative_prompts[share]
    p.seeds, p.subseeds = p.all_seeds[share], p.all_subseeds[share]
    p.prompts, tags = zip(*map(extract_networks, p.prompts)) if p.prompts else ((), ())
    if tags:
        # A1111: the networks of the first prompt apply to the whole batch
        apply_networks(p, [] if p.disable_extra_networks else with_default_lora(p, tags[0]))
    record_prompt_options(p)
    record_noise_schedule(p)
    p.rng = ImageRNG(tuple(p.init_latent.shape[1:]), p.seeds, source=p.options.randn_source,
                     device=p.init_latent.device, subseeds=p.subseeds, subseed_strength=p.subseed_strength,
                     seed_resize_from_h=p.seed_resize_from_h, seed_resize_from_w=p.seed_resize_from_w,
                     eta_noise_seed_delta=p.options.eta_noise_seed_delta,
                     downscale=p.sd_model.latent_format.downscale)
    here = not p.prompts or p.progress.turn()
    p.kept.begin_batch(p.receipts.circumstances(p))
    return here


def decode(p: StableDiffusionProcessing, samples: Tensor) -> Tensor:
    """Latents as pixels (B, 3, H, W) in [-1, 1], or smaller ones if the options ask for that. Raises ModelError, InvalidRequest."""
    if p.options.sd_vae_decode_method == "Full":
        with p.sampler.final_family.compiled(p.options.compile_networks) as calls:
            pixels = p.sampler.final_family.decode(samples)
        if calls.compiled:
            p.extra_generation_params[infotext_name("compile_networks")] = True
    else:
        p.extra_generation_params[infotext_name("sd_vae_decode_method")] = p.options.sd_vae_decode_method
        pixels = small_pixels(p.sampler.final_family, samples, p.options.sd_vae_decode_method)
    if not torch.isfinite(pixels).all():
        raise ModelError(f"{p.sd_model.info.name} gave no picture in {p.sd_model.placement.dtype}, only NaN; "
                         "a higher precision or a lower cfg_scale may help")
    return pixels


def gather(p: StableDiffusionProcessing, outputs: list[Output], *, interrupted: bool) -> Processed:
    """The result, preceded by a grid if there are several pictures."""
    shown = outputs if p.do_not_save_grid else with_grid(p, outputs, p.options)
    return Processed(images=[o.image for o in shown], infotexts=[o.infotext for o in shown] or [create_infotext(p, 0)],
                     paths=[o.path for o in shown], index_of_first_image=len(shown) - len(outputs), all_prompts=p.all_prompts,
                     all_negative_prompts=p.all_negative_prompts, all_seeds=p.all_seeds, all_subseeds=p.all_subseeds,
                     comments=p.comments, interrupted=interrupted,
                     extra_generation_params=dict(p.extra_generation_params))


__all__ = ["Processed", "StableDiffusionProcessingImg2Img", "create_binary_mask", "process_images"]
