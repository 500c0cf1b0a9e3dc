"""img2img alternative test: sampling starts from noise found in the source by running the sampler backwards."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import Interrupted, InvalidRequest
from pipeline.families.cond import Cond, Encoding
from pipeline.hooks import HookList, Hooks, MaskBlendArgs
from pipeline.processing import Processed, StableDiffusionProcessingImg2Img, load_model, process_images
from pipeline.samplers.schedules import uniform
from pipeline.scripts.arguments import argument, notice


@dataclass(frozen=True)
class Img2ImgAlternative:
    notice: str = notice("CFG scale should be 2 or lower.")
    override_sampler: bool = argument(True, "Override `Sampling method` to Euler?(this method is built for it)")
    override_prompt: bool = argument(
        True, "Override `prompt` to the same value as `original prompt`?(and `negative prompt`)")
    original_prompt: str = argument("", "Original prompt")
    original_negative_prompt: str = argument("", "Original negative prompt")
    override_steps: bool = argument(True, "Override `Sampling Steps` to the same value as `Decode steps`?")
    decode_steps: int = argument(50, "Decode steps", minimum=1, maximum=150, step=1)
    override_strength: bool = argument(True, "Override `Denoising strength` to 1?")
    decode_cfg_scale: float = argument(1.0, "Decode CFG scale", minimum=0.0, maximum=15.0, step=0.1)
    randomness: float = argument(0.0, "Randomness", minimum=0.0, maximum=1.0, step=0.01)
    sigma_adjustment: bool = argument(False, "Sigma adjustment for finding noise for image")


def run(p: StableDiffusionProcessingImg2Img, args: Img2ImgAlternative) -> Processed:
    """The request's result, started from that noise."""
    changes = {}
    if args.override_sampler:
        changes["sampler_name"] = "Euler"
    if args.override_prompt:
        changes |= {"prompt": args.original_prompt, "negative_prompt": args.original_negative_prompt}
    if args.override_steps:
        changes["steps"] = args.decode_steps
    if args.override_strength:
        changes["denoising_strength"] = 1.0
    one = p.variant(**changes)
    one.sd_model = one.sd_model or load_model(one, one.options)
    if len(one.sd_model.text_encoders) > 1:
        raise InvalidRequest("script_name", f'script_name: "img2img alternative test" needs a model with one text encoder, '
                                            f"and {one.sd_model.info.name} has {len(one.sd_model.text_encoders)}")
    one.extra_generation_params |= {
        "Decode prompt": args.original_prompt, "Decode negative prompt": args.original_negative_prompt,
        "Decode CFG scale": args.decode_cfg_scale, "Decode steps": args.decode_steps, "Randomness": args.randomness,
        "Sigma Adjustment": args.sigma_adjustment}
    one.scripts = HookList([one.scripts, FoundNoise(args)])
    p.progress.begin(p.n_iter + 1)
    return process_images(one)


class FoundNoise(Hooks):
    """Replaces the start noise by noise found in the source."""

    def __init__(self, args: Img2ImgAlternative):
        self.args = args
        self.found: Tensor | None = None
        """The same for all batches of a run."""

    def process_before_every_sampling(self, p: StableDiffusionProcessingImg2Img, *, x: Tensor, noise: Tensor,
                                      c: object, uc: object) -> None:
        if self.found is None:
            self.found = find_noise(p, x, self.args)
            p.progress.batch_done()
        r = self.args.randomness
        mixed = ((1 - r) * self.found + r * p.rng.anew().next()) / (r**2 + (1 - r) ** 2) ** 0.5
        # the sampler adds the init latent, which the found noise includes already
        noise.copy_(mixed - x / model_sigmas(p, p.steps)[0])
        # A1111: the sampler's own noise starts at the seed's first draw
        p.rng = p.rng.anew()

    def on_mask_blend(self, p: StableDiffusionProcessingImg2Img, mba: MaskBlendArgs) -> None:
        if mba.is_final_blend:
            # A1111: no final blend with the source
            mba.blended_latent = mba.current_latent


def model_sigmas(p: StableDiffusionProcessingImg2Img, steps: int) -> Tensor:
    """Even steps through the network's own levels, whatever schedule was requested, and 0."""
    prediction = p.sd_model.prediction(p.size)
    return uniform(steps, prediction.sigmas[0].item(), prediction.sigmas[-1].item(), prediction=prediction)


def find_noise(p: StableDiffusionProcessingImg2Img, latent: Tensor, args: Img2ImgAlternative) -> Tensor:
    """Euler's method backwards from the clean latent (B, C, h, w) to the noise that leads to it, scaled to unit size."""
    sigmas = model_sigmas(p, args.decode_steps).flip(0)  # 0 first; on the CPU
    cond, uncond = encode(p, args, len(latent))
    x = latent
    p.progress.begin_sampling(len(sigmas) - 1)
    for i in range(1, len(sigmas)):
        try:
            p.progress.checkpoint()
        except Interrupted:
            if p.progress.stopped:  # the sampler will not start then; a skip is left to the sampler
                break
        # A1111: with the adjustment, each step evaluates at the previous level, and the first one counts half
        seen = sigmas[i - 1] if args.sigma_adjustment else sigmas[i]
        timed = sigmas[1] if i == 1 else seen
        slope = 2 * sigmas[1] if args.sigma_adjustment and i == 1 else seen
        denoised = guided_estimate(p, x, seen, timed, cond, uncond, args.decode_cfg_scale)
        x = x + (x - denoised) / slope * (sigmas[i] - sigmas[i - 1])
        p.progress.report(i, denoised)
    return x / sigmas[-1] if args.sigma_adjustment else x / x.std()


def encode(p: StableDiffusionProcessingImg2Img, args: Img2ImgAlternative, count: int) -> tuple[Cond, Cond]:
    """Both original prompts as written, without prompt editing or AND."""
    how = Encoding(p.options.emphasis, p.options.comma_padding_backtrack, p.options.CLIP_stop_at_last_layers)
    both = p.sd_model.encode_prompts([args.original_prompt, args.original_negative_prompt], how)
    return Cond.cat([both[:1]] * count), Cond.cat([both[1:]] * count)


def guided_estimate(p: StableDiffusionProcessingImg2Img, x: Tensor, sigma: Tensor, timed: Tensor, cond: Cond, uncond: Cond,
         cfg_scale: float) -> Tensor:
    """The guided x0 estimate: x is as noisy as `sigma`, but the network is told the time of `timed`."""
    prediction = p.sd_model.prediction(p.size)
    twice, levels = torch.cat([x, x]), sigma.expand(2 * len(x))
    t, levels = (level.to(x.device, non_blocking=True) for level in (prediction.time(timed.expand_as(levels)), levels))
    image_cond = p.image_conditioning[:len(x)]
    output = p.sd_model.denoise(prediction.scale_input(twice, levels), t, Cond.cat([uncond, cond]), torch.cat([image_cond, image_cond]))
    # A1111: the noisy latent is used unscaled, even though a v-prediction model would scale it
    estimates = twice + prediction.to_denoised(output, torch.zeros_like(twice), levels)
    without, with_prompt = estimates.chunk(2)
    return without + (with_prompt - without) * cfg_scale
