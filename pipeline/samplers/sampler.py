"""From a request to a solver's run: how many steps, from which noise level, with which settings."""

import math
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from pipeline.conditioning import PromptEncoder
from pipeline.errors import Interrupted, InvalidRequest
from pipeline.families.base import Family
from pipeline.hooks import Hooks
from pipeline.options import Options
from pipeline.progress import Progress
from pipeline.rng import ImageRNG, randn_local
from pipeline.samplers.brownian import BrownianNoise
from pipeline.samplers.denoiser import CFGDenoiser
from pipeline.samplers.schedules import SCHEDULES, find_schedule
from pipeline.samplers.timesteps import ddim_timesteps

if TYPE_CHECKING:
    from pipeline.samplers import SamplerRow


class SamplingJob(Protocol):
    """What a sampler reads of the processing object."""

    steps: int
    denoising_strength: float
    cfg_scale: float
    scheduler: str
    eta: float | None
    s_churn: float | None
    s_tmin: float | None
    s_tmax: float | None
    s_noise: float | None
    s_min_uncond: float | None
    seeds: list[int]
    rng: ImageRNG
    mask: Tensor | None
    nmask: Tensor | None
    options: Options
    scripts: Hooks
    progress: Progress
    encoder: PromptEncoder
    extra_generation_params: dict[str, Any]


MAX_TIMESTEPS = 1000
MAX_STEPS = 100_000
"""Steps of a whole schedule, of which img2img_fix_steps runs the end."""


def img2img_steps(steps: int, denoising_strength: float, *, fix_steps: bool) -> tuple[int, int]:
    """(steps of the whole schedule, t_enc): the last t_enc + 1 of the steps are run.

    With `fix_steps` the schedule is made longer, so that `steps` of it are run. Raises InvalidRequest where that would
    be more than MAX_STEPS.
    """
    # A1111: capped, so t_enc stays below steps; and even strength 0 runs one step
    strength = min(denoising_strength, 0.999)
    if not fix_steps:
        return steps, int(strength * steps)
    if steps > MAX_STEPS * strength:
        raise InvalidRequest("denoising_strength", f"denoising_strength must be at least {steps / MAX_STEPS:g} for {steps} "
                                                   f"steps with img2img_fix_steps, got {denoising_strength}")
    return int(steps / strength), steps - 1


class Sampler(ABC):
    """One way through the noise levels, for one model."""

    def __init__(self, row: "SamplerRow", family: Family):
        self.row, self.family = row, family

    @abstractmethod
    def sample_img2img(self, p: SamplingJob, x: Tensor, noise: Tensor, conditioning: Any,
                       unconditional_conditioning: Any, *, image_conditioning: Tensor) -> Tensor:
        """x: the clean init latent (B, C, h, w); noise like it. Returns the denoised latent.

        When the job is interrupted, that is the last x0 estimate, or x itself before the first one.
        """

    def _launch(self, denoiser: CFGDenoiser, start: Tensor, schedule: Tensor, **settings: Any) -> Tensor:
        def report(step: int, denoised: Tensor) -> None:
            denoiser.p.progress.report(step + 1, denoiser.last_latent)

        try:
            return self.row.solver(denoiser, start, schedule, callback=report, **settings)
        except Interrupted:
            return denoiser.last_latent

    def _discards(self, p: SamplingJob) -> bool:
        """Whether the last noise level but one is left out; recorded where an option asks for it."""
        if p.options.always_discard_next_to_last_sigma and not self.row.discard_next_to_last_sigma:
            p.extra_generation_params["Discard penultimate sigma"] = True
        return p.options.always_discard_next_to_last_sigma or self.row.discard_next_to_last_sigma

    def _eta(self, p: SamplingJob, name: str, option: str, usual: float) -> dict[str, float]:
        """The solver's eta, recorded under `name` where it is not the usual one."""
        if "eta" not in self.row.takes:
            return {}
        eta = getattr(p.options, option) if p.eta is None else p.eta
        if eta != usual:
            p.extra_generation_params[name] = eta
        return {"eta": eta}


class KDiffusionSampler(Sampler):
    """Solvers that count noise levels: they start from x + noise * sigma."""

    def sample_img2img(self, p: SamplingJob, x: Tensor, noise: Tensor, conditioning: Any,
                       unconditional_conditioning: Any, *, image_conditioning: Tensor) -> Tensor:
        steps, t_enc = img2img_steps(p.steps, p.denoising_strength, fix_steps=p.options.img2img_fix_steps)
        sigmas = self.sigmas(p, steps)
        schedule = sigmas[steps - t_enc - 1:].to(x.device)
        start = x + noise * schedule[0]
        if p.options.img2img_extra_noise > 0:
            p.extra_generation_params["Extra noise"] = p.options.img2img_extra_noise
            start = start + noise * p.options.img2img_extra_noise
        settings = self._eta(p, "Eta", "eta_ancestral", 1.0) | self._churn(p)
        if self.row.takes:
            settings["noise_sampler"] = self._noise_sampler(p, x, sigmas)
        denoiser = CFGDenoiser(p, self.family, x, conditioning, unconditional_conditioning, image_conditioning,
                               model=self._denoise, blend_before=False,
                               calls=(t_enc + 1) * (2 if self.row.second_order else 1))
        p.progress.begin_sampling(t_enc + 1)
        return self._launch(denoiser, start, schedule, **settings)

    def sigmas(self, p: SamplingJob, steps: int) -> Tensor:
        """The whole schedule for `steps` steps: float32, on the CPU, descending to 0. Records what is unusual in it."""
        options, record, prediction = p.options, p.extra_generation_params, self.family.prediction
        discard = self._discards(p)
        n = steps + 1 if discard else steps
        schedule = find_schedule(p.scheduler)
        named = schedule.sigmas is not None or self.row.scheduler is not None
        if schedule.sigmas is None:
            schedule = SCHEDULES[self.row.scheduler or "uniform"]
        low, high = (0.1, 10.0) if options.use_old_karras_scheduler_sigmas else \
            (prediction.sigmas[0].item(), prediction.sigmas[-1].item())
        settings = {}
        if named:
            if options.sigma_min not in (0, low):
                low = record["Schedule min sigma"] = options.sigma_min
            if options.sigma_max not in (0, high):
                high = record["Schedule max sigma"] = options.sigma_max
            if schedule.default_rho > 0 and options.rho not in (0, schedule.default_rho):
                settings["rho"] = record["Schedule rho"] = options.rho
        sigmas = schedule.sigmas(n, low, high, prediction=prediction, **settings)
        return torch.cat([sigmas[:-2], sigmas[-1:]]) if discard else sigmas

    def _denoise(self, x: Tensor, sigma: Tensor, cond: Any, image_cond: Tensor) -> tuple[Tensor, Tensor]:
        """The x0 estimate, twice: as what the solver asks for and as what a watcher sees."""
        prediction = self.family.prediction
        output = self.family.denoise(prediction.scale_input(x, sigma), prediction.sigma_to_t(sigma), cond, image_cond)
        denoised = prediction.to_denoised(output, x, sigma)
        return denoised, denoised

    def _noise_sampler(self, p: SamplingJob, x: Tensor, sigmas: Tensor) -> Any:
        if not self.row.brownian:
            return lambda sigma, sigma_next: p.rng.next()
        # A1111: over the whole schedule, also where only its end is run
        randn = partial(randn_local, source=p.options.randn_source, device=x.device)
        return BrownianNoise(tuple(x.shape[1:]), p.seeds, sigmas[sigmas > 0].min().item(), sigmas.max().item(),
                             randn=randn, device=x.device)

    def _churn(self, p: SamplingJob) -> dict[str, float]:
        """s_churn, s_tmin, s_tmax and s_noise as far as the solver takes them."""
        settings = {}
        for name, usual in (("s_churn", 0.0), ("s_tmin", 0.0), ("s_tmax", 0.0), ("s_noise", 1.0)):
            if name not in self.row.takes:
                continue
            option, asked = getattr(p.options, name), getattr(p, name)
            value = option if asked is None else asked
            # A1111: an option that is not at its default beats the request, and only then is it recorded
            if option != usual:
                value = p.extra_generation_params[f"Sigma {name.removeprefix('s_')}"] = option
            settings[name] = math.inf if name == "s_tmax" and value == 0 else value
        return settings


class TimestepSampler(Sampler):
    """Solvers that count training timesteps: the latent keeps unit variance and the model gives eps."""

    def sample_img2img(self, p: SamplingJob, x: Tensor, noise: Tensor, conditioning: Any,
                       unconditional_conditioning: Any, *, image_conditioning: Tensor) -> Tensor:
        steps, t_enc = img2img_steps(p.steps, p.denoising_strength, fix_steps=p.options.img2img_fix_steps)
        schedule_steps = steps + 1 if self._discards(p) else steps
        if schedule_steps > MAX_TIMESTEPS:
            raise InvalidRequest("steps", f"steps: {self.row.name} has at most {MAX_TIMESTEPS} in its whole schedule, "
                                          f"got {schedule_steps}")
        timesteps = ddim_timesteps(schedule_steps).to(x.device)
        alphas = self.family.prediction.alphas_cumprod.to(x.device)
        alpha = alphas[timesteps[t_enc]]
        start = x * alpha**0.5 + noise * (1 - alpha) ** 0.5
        if p.options.img2img_extra_noise > 0:
            p.extra_generation_params["Extra noise"] = p.options.img2img_extra_noise
            start = start + noise * p.options.img2img_extra_noise * alpha**0.5
        denoiser = CFGDenoiser(p, self.family, x, conditioning, unconditional_conditioning, image_conditioning,
                               model=self._eps, blend_before=True, calls=t_enc + 1)
        p.progress.begin_sampling(max(t_enc - 1, 0))
        return self._launch(denoiser, start, timesteps[:t_enc], alphas_cumprod=alphas,
                            noise_sampler=lambda t, t_next: p.rng.next(), **self._eta(p, "Eta DDIM", "eta_ddim", 0.0))

    def _eps(self, x: Tensor, t: Tensor, cond: Any, image_cond: Tensor) -> tuple[Tensor, Tensor]:
        """The noise estimate, and the x0 estimate that follows from it."""
        prediction = self.family.prediction
        eps = prediction.to_eps(self.family.denoise(x, t, cond, image_cond), x, t)
        alpha = prediction.alphas_cumprod.to(x.device)[t.long()].reshape(-1, 1, 1, 1)
        return eps, (x - (1 - alpha) ** 0.5 * eps) / alpha**0.5
