"""txt2img: a picture from pure noise, run as img2img at full strength; with hires fix, enlarged and redrawn."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import InvalidRequest
from pipeline.families.base import Family
from pipeline.families.cond import Reference
from pipeline.geometry import Size
from pipeline.hires import LATENT_UPSCALERS, SAME, USUAL, Target, enlarged_latent, target
from pipeline.images import resize_image, to_image, to_tensor
from pipeline.options import infotext_name, number
from pipeline.processing import StableDiffusionProcessingImg2Img, decode, load_model
from pipeline.prompt_parser import extract_networks, strip_comments
from pipeline.prompts import apply_networks, with_default_lora
from pipeline.request import NUMBERS, WHOLE_NUMBERS, check_text
from pipeline.rng import ImageRNG
from pipeline.samplers import SAMPLERS, create_sampler, resolve_names
from pipeline.sources import Stages
from pipeline.upscaling import Upscaler

MOST = WHOLE_NUMBERS["width"][1]
"""Pixels a side."""
PASSES = {"first pass": (True, False), "second pass": (False, True), "both passes": (True, True)}
"""Values of hires_fix_refiner_pass → whether the refiner takes part in (the first pass, the second)."""


@dataclass(repr=False)
class StableDiffusionProcessingTxt2Img(StableDiffusionProcessingImg2Img):
    """A txt2img request: init_images and mask are ignored, and denoising_strength belongs to hires fix.

    With enable_hr, each batch is made at width x height, enlarged, and redrawn with denoising_strength. The other fields below
    have no effect without it.
    """

    enable_hr: bool = False
    firstphase_width: int = 0
    """If not 0: replaces width. From the time when width x height meant the result."""
    firstphase_height: int = 0
    hr_scale: float = 2.0
    hr_upscaler: str | None = None
    """A name in LATENT_UPSCALERS, or of an upscaler for pictures; None: Latent."""
    hr_second_pass_steps: int = 0
    """0: as many as `steps`. All of them are run, whatever the strength."""
    hr_resize_x: int = 0
    """Pixels of the result; 0: follows from the other side, or both from hr_scale."""
    hr_resize_y: int = 0
    hr_checkpoint_name: str | None = None
    """This, the sampler, the schedule and the prompts: None or "": as in the first pass."""
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_cfg: float | None = None
    """Forge's names for the second pass's cfg_scale and distilled_cfg_scale; None: the first pass's."""
    hr_distilled_cfg: float | None = None
    hr_prompt: str | list[str] = ""
    hr_negative_prompt: str | list[str] = ""

    # --- set by init(), with hires fix
    second_model: Family | None = field(default=None, init=False)
    latent_upscaler: str | None = field(default=None, init=False)
    """A name in LATENT_UPSCALERS; None: pictures are enlarged."""
    picture_upscaler: Upscaler | None = field(default=None, init=False)
    """None: Lanczos."""
    hr_prompts: list[str] = field(default_factory=list, init=False)
    """One per picture of the job."""
    hr_negative_prompts: list[str] = field(default_factory=list, init=False)

    def __post_init__(self, mask_blur: int | None):
        # A1111: also without hires fix
        self.width, self.height = self.firstphase_width or self.width, self.firstphase_height or self.height
        super().__post_init__(mask_blur)
        if self.enable_hr:
            self._settle_hires()

    def _settle_hires(self) -> None:
        """Fill in what null stands for, convert text to numbers, and check them."""
        for name, low, high, kind in (("hr_second_pass_steps", 0, WHOLE_NUMBERS["steps"][1], int), ("hr_resize_x", 0, MOST, int),
                                      ("hr_resize_y", 0, MOST, int), ("hr_scale", 0.01, 100, float)):
            given = getattr(self, name)
            if given is None:
                given = 2.0 if name == "hr_scale" else 0
            checked = number(name, given, kind, low, high)
            setattr(self, name, given if isinstance(given, (int, float)) else checked)  # infotext prints it as it was given
        for name, like in (("hr_cfg", "cfg_scale"), ("hr_distilled_cfg", "distilled_cfg_scale")):
            if (given := getattr(self, name)) is not None:
                checked = number(name, given, float, *NUMBERS[like])
                setattr(self, name, given if isinstance(given, (int, float)) else checked)
        for name in ("hr_prompt", "hr_negative_prompt"):
            if getattr(self, name) is None:
                setattr(self, name, "")
            value = getattr(self, name)
            for text in value if isinstance(value, list) else [value]:
                check_text(name, text)
        for name in ("hr_checkpoint_name", "hr_sampler_name", "hr_scheduler"):
            if getattr(self, name) in SAME:
                setattr(self, name, None)
        if self.hr_sampler_name is not None or self.hr_scheduler is not None:
            sampler, schedule = resolve_names(self.hr_sampler_name or self.sampler_name, self.hr_scheduler)
            self.hr_sampler_name = self.hr_sampler_name and sampler
            self.hr_scheduler = schedule if self.hr_scheduler is not None or schedule != "Automatic" else None
        if max(self.largest) > MOST or min(self.largest) < 8:
            raise InvalidRequest("hr_scale", f"hr_scale, hr_resize_x and hr_resize_y: the picture would have "
                                             f"{self.largest.width}x{self.largest.height} pixels; valid: 8 to {MOST} a side")

    def check_sources(self) -> None:
        """No source pictures to check."""

    @property
    def largest(self) -> Size:
        """The size of the largest picture that is sampled, before it is rounded down."""
        return self._target(1).size(1) if self.enable_hr else self.size

    def _target(self, downscale: int) -> Target:
        return target(self.size, self.hr_scale, Size(self.hr_resize_x, self.hr_resize_y), downscale)

    @property
    def second_steps(self) -> int:
        return self.hr_second_pass_steps or self.steps

    @property
    def second_merging(self) -> float:
        return (self.options.token_merging_ratio_hr or self.options.token_merging_ratio) if self.enable_hr else 0.0

    def init(self, all_prompts: list[str], all_seeds: list[int], all_subseeds: list[int]) -> None:
        """Prepare an empty latent in place of a source, and the second pass."""
        self.check_size()
        self.sampler = create_sampler(self.sampler_name, self.sd_model, self.options, self.size)
        self.see_references(Stages(self.cache, self.digests.of, self.sd_model, tiling=self.tiles))
        self.extra_generation_params["Denoising strength"] = self.denoising_strength if self.enable_hr else None  # None: left out
        latents = self.sd_model.latent_format
        height, width = self.height // latents.downscale, self.width // latents.downscale
        self.init_latent = torch.zeros(self.batch, latents.channels, height, width, device=self.sd_model.placement.device)
        self.image_conditioning = self._to_batch(self._blank_conditioning(self.sd_model, self.init_latent[:1]))
        if self.enable_hr:
            self._init_second(all_prompts)

    def _blank_conditioning(self, model: Family, latent: Tensor) -> Tensor:
        """What the network sees of a grey picture, for a latent (1, C, h, w)."""
        if model.sees == "reference":
            return latent[:, :0]
        height, width = (side * model.latent_format.downscale for side in latent.shape[2:])
        gray = torch.zeros(1, 3, height, width, device=latent.device)
        return model.image_conditioning(gray, latent, None, mask_weight=self.options.inpainting_mask_weight)

    def _init_second(self, all_prompts: list[str]) -> None:
        """Find the second pass's model and upscaler, and record its settings in A1111's order."""
        record = self.extra_generation_params
        self.second_model = self.sd_model
        if self.hr_checkpoint_name is not None:
            self.second_model = load_model(self, self.options.override({"sd_model_checkpoint": self.hr_checkpoint_name}))
            record["Hires checkpoint"] = self.second_model.info.title
            self.receipts.use("checkpoint", self.second_model.info.name, self.second_model.info.sha256)
        self.latent_upscaler = USUAL if self.hr_upscaler is None else self.hr_upscaler if self.hr_upscaler in LATENT_UPSCALERS else None
        self.picture_upscaler = None if self.latent_upscaler else self.find_upscaler(self.hr_upscaler, "hr_upscaler")
        first, second = self.sd_model.latent_format, self.second_model.latent_format
        if self.latent_upscaler and (first.channels, first.downscale) != (second.channels, second.downscale):
            raise InvalidRequest("hr_checkpoint_name", f'hr_checkpoint_name: "{self.second_model.info.name}" has latents of another kind than '
                                                       f'"{self.sd_model.info.name}"; use an hr_upscaler for pictures')
        self.hr_prompts = self._second_texts("hr_prompt", "prompt", self.style_database.apply_styles, len(all_prompts))
        self.hr_negative_prompts = self._second_texts(
            "hr_negative_prompt", "negative_prompt", self.style_database.apply_negative_styles, len(all_prompts))
        if self.hr_sampler_name not in (None, self.sampler_name):
            record["Hires sampler"] = self.hr_sampler_name
        record |= {"Hires prompt": None, "Hires negative prompt": None, "Hires schedule type": None}  # None keeps their place
        if self.hr_resize_x == self.hr_resize_y == 0:
            record["Hires upscale"] = self.hr_scale
        else:
            record["Hires resize"] = f"{self.hr_resize_x}x{self.hr_resize_y}"
        if self.hr_second_pass_steps:
            record["Hires steps"] = self.hr_second_pass_steps
        if self.hr_upscaler is not None:
            record["Hires upscaler"] = self.hr_upscaler
        if self.hr_cfg is not None:
            record["Hires CFG Scale"] = self.hr_cfg
        if self.hr_distilled_cfg is not None and self.second_model.takes_guidance:
            record["Hires Distilled CFG Scale"] = self.hr_distilled_cfg

    def _second_texts(self, name: str, first: str, with_styles: Any, count: int) -> list[str]:
        """The second pass's texts, one per picture of the job; an empty field means the first pass's."""
        given = getattr(self, name) or getattr(self, first)
        texts = given if isinstance(given, list) else [given] * count
        if len(texts) != count:
            raise InvalidRequest(name, f"{name} must have one value per picture ({count}), got {len(texts)}")
        clean = strip_comments if self.options.enable_prompt_comments else str
        return [clean(with_styles(text, self.styles)) for text in texts]

    def infotext_params(self, index: int) -> dict[str, Any]:
        if not self.enable_hr:
            return super().infotext_params(index)
        at = self.iteration * self.batch + index
        prompt, negative = self.hr_prompts[at], self.hr_negative_prompts[at]
        return self.extra_generation_params | {"Hires prompt": None if prompt == self.all_prompts[at] else prompt,
                                               "Hires negative prompt": None if negative == self.all_negative_prompts[at] else negative}

    def sample(self, conditioning: Any, unconditional_conditioning: Any, seeds: list[int], subseeds: list[int],
               subseed_strength: float, prompts: list[str]) -> Tensor:
        """Noise and denoise one batch: (B, C, H/8, W/8), ready to decode. With hires fix, the second pass's."""
        self.sampler = create_sampler(self.sampler_name, self.sd_model, self.options, self.size)
        in_first, in_second = PASSES[self.options.hires_fix_refiner_pass]
        if self.enable_hr and self.refiner is not None and self.options.hires_fix_refiner_pass != "second pass":
            self.extra_generation_params[infotext_name("hires_fix_refiner_pass")] = self.options.hires_fix_refiner_pass
        noise = self.rng.next()
        self.scripts.process_before_every_sampling(self, x=self.init_latent, noise=noise, c=conditioning,
                                                   uc=unconditional_conditioning)
        first = self if in_first or not self.enable_hr else self.at_work(refiner=None)
        if self.enable_hr:
            self.progress.pass_of(behind=0, ahead=self.second_steps)
        samples = self.sampler.sample_txt2img(first, noise, conditioning, unconditional_conditioning,
                                              image_conditioning=self.image_conditioning[:len(noise)])
        if not self.enable_hr or self.progress.partial or self.progress.stopped:
            return samples
        return self._sample_again(samples, seeds, subseeds, with_refiner=in_second)

    def _sample_again(self, samples: Tensor, seeds: list[int], subseeds: list[int], *, with_refiner: bool) -> Tensor:
        """The second pass: (B, C, h, w) of the first pass → of the result."""
        model = self.second_model
        wanted = self._target(model.latent_format.downscale)
        latent, image_conditioning = self._enlarge(samples, model, wanted.upscaled)
        latent, image_conditioning = wanted.crop(latent), wanted.crop(image_conditioning)
        size = wanted.size(model.latent_format.downscale)
        second = self._second(model, size, seeds, subseeds, tuple(latent.shape[1:]), with_refiner=with_refiner)
        cond, uncond = second.encoder.positive(second.prompts), second.encoder.negative(second.negative_prompts)
        noise = second.rng.next()
        self.scripts.process_before_every_sampling(second, x=latent, noise=noise, c=cond, uc=uncond)
        self.sampler = create_sampler(second.sampler_name, model, second.options, size)
        self.progress.pass_of(behind=self.steps, ahead=0)
        samples = self.sampler.sample_img2img(second, latent, noise, cond, uncond, image_conditioning=image_conditioning)
        self._take_record(second)
        return samples

    def _second_references(self, model: Family) -> tuple[Reference, ...]:
        """The reference pictures as far as the second pass's model takes any."""
        if model is self.sd_model:
            return self.references
        stages = Stages(self.cache, self.digests.of, model, tiling=self.tiles)
        return stages.references(self.reference_images[:model.info.references])

    def _enlarge(self, samples: Tensor, model: Family, size: Size) -> tuple[Tensor, Tensor]:
        """(the first pass's latents at `size` pixels, what the network sees of them)."""
        downscale, weight = model.latent_format.downscale, self.options.inpainting_mask_weight
        if self.latent_upscaler:
            latent = enlarged_latent(samples, self.latent_upscaler, Size(size.width // downscale, size.height // downscale))
            # A1111: only for a weight below 1 is the enlarged latent decoded for the network to see
            if weight == 1 or model.sees == "nothing":
                return latent, self._blank_conditioning(model, latent[:1]).repeat(len(latent), 1, 1, 1)
            pixels = model.decode(latent)
        else:
            pictures = [resize_image(0, to_image(each), *size, self.picture_upscaler) for each in decode(self, samples)]
            if self.options.sd_vae_encode_method != "Full":
                self.extra_generation_params[infotext_name("sd_vae_encode_method")] = self.options.sd_vae_encode_method
            pixels = torch.stack([to_tensor(picture) for picture in pictures])
            latent = model.encode_image(pixels)
        if model.sees == "reference":
            return latent, latent[:, :0]
        return latent, model.image_conditioning(pixels, latent, None, mask_weight=weight)

    def _second(self, model: Family, size: Size, seeds: list[int], subseeds: list[int], shape: tuple[int, ...], *,
                with_refiner: bool) -> "StableDiffusionProcessingTxt2Img":
        """This request as the second pass sees it: its prompts and their networks, steps, sampler, noise, and a record of its own."""
        share = slice(self.iteration * self.batch, (self.iteration + 1) * self.batch)
        texts, negatives = self.hr_prompts[share], self.hr_negative_prompts[share]
        prompts, tags = zip(*map(extract_networks, texts))
        options = replace(self.options, img2img_fix_steps=True, token_merging_ratio_img2img=self.second_merging)
        sampler = self.hr_sampler_name or self.sampler_name
        calls = self.second_steps * (2 if SAMPLERS[sampler].second_order else 1)
        rng = ImageRNG(shape, seeds, source=options.randn_source, device=model.placement.device, subseeds=subseeds,
                       subseed_strength=self.subseed_strength, seed_resize_from_h=self.seed_resize_from_h,
                       seed_resize_from_w=self.seed_resize_from_w, eta_noise_seed_delta=options.eta_noise_seed_delta,
                       downscale=model.latent_format.downscale)
        record = {name: value for name, value in self.extra_generation_params.items() if name != "Schedule type"}
        second = self.at_work(
            sd_model=model, width=size.width, height=size.height, steps=self.second_steps, sampler_name=sampler,
            scheduler=self.hr_scheduler or self.scheduler, prompts=list(prompts), negative_prompts=negatives, options=options,
            cfg_scale=self.cfg_scale if self.hr_cfg is None else self.hr_cfg, override_settings={}, rng=rng,
            refiner=self.refiner if with_refiner else None, controls=None, second_pass=True, extra_generation_params=record,
            # controls: hooks make them anew, at this pass's size
            encoder=replace(self.encoder, family=model, calls=calls, size=size, earlier=self.encoder.calls, references=self._second_references(model),
                            guidance=self.encoder.guidance if self.hr_distilled_cfg is None else self.hr_distilled_cfg))
        apply_networks(second, [] if self.disable_extra_networks else with_default_lora(second, tags[0]))
        found, not_used = second.encoder.textual_inversions(second.prompts, second.negative_prompts)
        for embedding in {each.name: each for each in sum(found, []) if each.network is None}.values():
            self.receipts.use("embedding", embedding.name, embedding.hash)
        self.say(*not_used)
        return second

    def _take_record(self, second: "StableDiffusionProcessingTxt2Img") -> None:
        """Adopt what the second pass recorded; its schedule only if it is another than the first pass's."""
        schedule = second.extra_generation_params.pop("Schedule type", None)
        # A1111: recorded too if the first pass's schedule is its sampler's own, and so not recorded by the sampler
        if schedule is not None and schedule != self.extra_generation_params.get("Schedule type"):
            second.extra_generation_params["Hires schedule type"] = schedule
        self.extra_generation_params.update(second.extra_generation_params)
        if second.sd_model is not self.sd_model:
            self.say(*second.sd_model.notes)
            second.sd_model.notes.clear()
