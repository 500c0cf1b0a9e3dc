"""Sets up a solver's run for a request: number of steps, first noise level, settings."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import Interrupted, InvalidRequest
from pipeline.families.base import Family
from pipeline.families.cond import Cond
from pipeline.families.prediction import LAST_TIME, DiscreteSchedule, Prediction
from pipeline.geometry import Size
from pipeline.options import Options, infotext_name
from pipeline.rng import randn_local
from pipeline.samplers import reuse
from pipeline.samplers.brownian import BrownianNoise
from pipeline.samplers.denoiser import CFGDenoiser, ConditionedModel
from pipeline.samplers.lcm import LCMSchedule
from pipeline.samplers.sampling_job import SamplingJob
from pipeline.samplers.schedules import SCHEDULES, Schedule, find_schedule
from pipeline.samplers.timesteps import ddim_timesteps

CFGPP_SCALE = 12.5
"""The cfg_scale that counts as 1 in CFG++."""
Denoise = Callable[[Tensor, Tensor, Cond, Tensor], Tensor]
"""Family.denoise, or its answers from an earlier run."""
MAX_TIMESTEPS = 1000
MAX_STEPS = 100_000
"""Limit for a whole schedule, of which img2img_fix_steps runs only the end."""


def img2img_steps(steps: int, denoising_strength: float, *, fix_steps: bool) -> tuple[int, int]:
    """(steps of the whole schedule, t_enc); the last t_enc + 1 steps are run.

    With `fix_steps` the schedule is made longer, so that `steps` of them are run. Raises InvalidRequest if it would exceed
    MAX_STEPS.
    """
    # A1111: capped, so t_enc stays below steps; and even strength 0 runs one step
    strength = min(denoising_strength, 0.999)
    if not fix_steps:
        return steps, int(strength * steps)
    if steps > MAX_STEPS * strength:
        raise InvalidRequest("denoising_strength", f"denoising_strength must be at least {steps / MAX_STEPS:g} for {steps} "
                                                   f"steps with img2img_fix_steps, got {denoising_strength}")
    return int(steps / strength), steps - 1


def altered(prediction: Prediction, options: Options) -> Prediction:
    """A network's noise schedule, changed as the options ask."""
    return prediction.altered(downcast=options.use_downcasted_alpha_bar, quantize=options.enable_quantization,
                              zero_snr=options.sd_noise_schedule == "Zero Terminal SNR", shift=options.flow_shift)


def record_noise_schedule(p: SamplingJob) -> None:
    """Record the options that changed the network's noise levels."""
    if p.options.use_downcasted_alpha_bar:
        p.extra_generation_params[infotext_name("use_downcasted_alpha_bar")] = True
    if p.options.sd_noise_schedule != "Default":
        p.extra_generation_params[infotext_name("sd_noise_schedule")] = p.options.sd_noise_schedule


def token_merging_ratio(p: SamplingJob, options: Options | None = None) -> float:
    """The fraction of tokens to merge; 0 if an edit is recorded, which needs every token in place.

    options: None: the request's.

    A1111: the ratio for img2img takes precedence over the general one, unless the request itself overrides the latter.
    """
    options = options or p.options
    if reuse.remembers_edit(p):
        return 0.0
    overridden = options.token_merging_ratio if "token_merging_ratio" in p.override_settings else 0.0
    return overridden or options.token_merging_ratio_img2img or options.token_merging_ratio


def beside(x: Tensor, levels: Tensor) -> Tensor:
    """A few CPU numbers moved to x's device, without synchronizing."""
    return levels.to(x.device, non_blocking=True)


class Sampler(ABC):
    """A sampling method, for one model."""

    def __init__(self, row: "SamplerRow", family: Family, options: Options, size: Size):
        """size: of the sampled picture, in pixels."""
        self.row, self.family, self._size = row, family, size
        self.final_family = family
        """The family used by the latest sampling's last step: the refiner if it was reached."""
        self.prediction = self._prediction(family, options)

    @abstractmethod
    def sample_img2img(self, p: SamplingJob, x: Tensor, noise: Tensor, conditioning: Any,
                       unconditional_conditioning: Any, *, image_conditioning: Tensor) -> Tensor:
        """x: the clean init latent (B, C, h, w); noise like it. Returns the denoised latent.

        If the job is interrupted, returns the last x0 estimate, or x if there is none yet.
        """

    @abstractmethod
    def sample_txt2img(self, p: SamplingJob, noise: Tensor, conditioning: Any, unconditional_conditioning: Any, *,
                       image_conditioning: Tensor) -> Tensor:
        """The same from pure noise (B, C, h, w), on the whole schedule of p.steps; zeros stand in for x."""

    @abstractmethod
    def _model(self, p: SamplingJob, denoise: Denoise, prediction: Prediction) -> ConditionedModel:
        """How to query a network for the solver's quantity."""

    @abstractmethod
    def _completed(self, sigma: Tensor) -> float:
        """Fraction of the training timesteps done at a call's sigma (B,)."""

    def _prediction(self, family: Family, options: Options) -> Prediction:
        return altered(family.prediction(self._size), options)

    def _discrete(self, family: Family, options: Options) -> DiscreteSchedule:
        """The prediction of a network with discrete training timesteps. Raises InvalidRequest."""
        steps = altered(family.prediction(self._size), options).steps
        if steps is None:
            raise InvalidRequest("sampler_name", f'sampler_name: {self.row.name} needs discrete training timesteps, and '
                                                 f'"{family.info.name}" has none; use Euler, for example')
        return steps

    def _denoiser(self, p: SamplingJob, init_latent: Tensor, cond: Any, uncond: Any, image_cond: Tensor, *,
                  blend_before: bool, calls: int) -> CFGDenoiser:
        def model_of(family: Family) -> ConditionedModel:
            own = family is self.family
            denoise = partial(p.kept.answer, family.denoise)
            return self._model(p, denoise, self.prediction if own else self._prediction(family, p.options))

        cfg_scale = p.cfg_scale / CFGPP_SCALE if self.row.cfgpp else p.cfg_scale
        return CFGDenoiser(p, self.family, init_latent, cond, uncond, image_cond, model_of=model_of,
                           completed=self._completed, cfg_scale=cfg_scale, blend_before=blend_before, calls=calls,
                           uses_uncond=self.row.cfgpp)

    def _launch(self, denoiser: CFGDenoiser, start: Tensor, schedule: Tensor, **settings: Any) -> Tensor:
        p = denoiser.p

        def report(step: int, denoised: Tensor) -> None:
            if p.controls is not None:
                p.controls.report(step)
            p.progress.report(step + 1, denoiser.last_latent)

        if p.controls is not None:
            p.controls.begin(denoiser.calls // (2 if self.row.second_order else 1))
        plan = reuse.planned(denoiser, self.row.name, schedule)
        p.kept.begin_sampling(exact=not plan.reuses)
        try:
            with self._controlled(p), self.family.merging_tokens(token_merging_ratio(p)), self.family.reusing(plan) as reused, \
                    self.family.compiled(p.options.compile_networks) as calls:
                try:
                    return self.row.solver(denoiser, start, schedule, callback=report, **settings).float()
                finally:
                    reuse.record(p.extra_generation_params, plan, reused, calls)
        except Interrupted:
            return denoiser.last_latent.float()
        finally:
            self.final_family = denoiser.family
            if denoiser.padding is not None:
                p.extra_generation_params[denoiser.padding] = True

    def _controlled(self, p: SamplingJob) -> AbstractContextManager[None]:
        """Context in which the job's control pictures guide the model; the refiner goes without."""
        if p.controls is None:
            return nullcontext()
        if p.refiner is not None:
            p.say("ControlNet guides the checkpoint only, not the refiner.")
        return self.family.controlled(p.controls)

    def _with_extra_noise(self, p: SamplingJob, x: Tensor, noise: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """x with the noise of img2img_extra_noise added, recorded in infotext."""
        if p.options.img2img_extra_noise <= 0:
            return x
        p.extra_generation_params[infotext_name("img2img_extra_noise")] = p.options.img2img_extra_noise
        return x + noise * p.options.img2img_extra_noise * scale

    def _discards(self, p: SamplingJob) -> bool:
        """Whether to drop the next-to-last noise level; recorded if an option asks for it."""
        if p.options.always_discard_next_to_last_sigma and not self.row.discard_next_to_last_sigma:
            p.extra_generation_params[infotext_name("always_discard_next_to_last_sigma")] = True
        return p.options.always_discard_next_to_last_sigma or self.row.discard_next_to_last_sigma

    def _eta(self, p: SamplingJob, option: str, usual: float) -> dict[str, float]:
        """The solver's eta, recorded unless it is `usual`."""
        if "eta" not in self.row.takes:
            return {}
        eta = getattr(p.options, option) if p.eta is None else p.eta
        if eta != usual:
            p.extra_generation_params[infotext_name(option)] = eta
        return {"eta": eta}


class KDiffusionSampler(Sampler):
    """Solvers in terms of noise levels, starting from x + noise * sigma."""

    def sample_img2img(self, p: SamplingJob, x: Tensor, noise: Tensor, conditioning: Any,
                       unconditional_conditioning: Any, *, image_conditioning: Tensor) -> Tensor:
        if p.options.img2img_fix_steps and p.denoising_strength == 0:
            # A1111: the schedule has no steps then, so the result is the source plus noise of the schedule's only level
            level = self.sigmas(p, 0)[-1].to(x.device)
            start = self._with_extra_noise(p, x + noise * level, noise)
            self._solver_settings(p)  # for infotext
            return start
        steps, t_enc = img2img_steps(p.steps, p.denoising_strength, fix_steps=p.options.img2img_fix_steps)
        sigmas = self.sigmas(p, steps)
        schedule = self._from_noise_level(p, t_enc + 1) if self.is_flow and p.options.strength_as_noise else sigmas[steps - t_enc - 1:]
        if len(schedule) < 2:
            raise InvalidRequest("steps", f"steps: the schedule has only {len(sigmas) - 1} of the {steps} steps, too "
                                          "few for this denoising_strength; use fewer steps or another schedule")
        start = self._with_extra_noise(p, x + noise * schedule[0], noise)
        return self._run(p, x, start, sigmas, schedule, conditioning, unconditional_conditioning, image_conditioning,
                         steps=t_enc + 1)

    def sample_txt2img(self, p: SamplingJob, noise: Tensor, conditioning: Any, unconditional_conditioning: Any, *,
                       image_conditioning: Tensor) -> Tensor:
        sigmas = self.sigmas(p, p.steps)
        scale = sigmas[0]
        if p.options.sgm_noise_multiplier:
            p.extra_generation_params[infotext_name("sgm_noise_multiplier")] = True
            scale = (1 + scale**2) ** 0.5
        return self._run(p, torch.zeros_like(noise), noise * scale, sigmas, sigmas, conditioning, unconditional_conditioning,
                         image_conditioning, steps=p.steps)

    def _run(self, p: SamplingJob, x: Tensor, start: Tensor, sigmas: Tensor, schedule: Tensor, conditioning: Any,
             unconditional_conditioning: Any, image_conditioning: Tensor, *, steps: int) -> Tensor:
        """Solve from `start` along `schedule`, the last `steps` steps of `sigmas`; x: the clean init latent."""
        settings = self._solver_settings(p)
        if self.row.draws_noise:
            settings["noise_sampler"] = self._noise_sampler(p, x, sigmas, schedule)
        if self.row.solver_type is not None:
            settings["solver_type"] = self.row.solver_type
        denoiser = self._denoiser(p, x, conditioning, unconditional_conditioning, image_conditioning, blend_before=False,
                                  calls=steps * (2 if self.row.second_order else 1))
        p.progress.begin_sampling(steps)
        if self.is_flow and x.device.type != "mps":  # which has no float64
            # a flow starts at tens of thousands, of which the first step leaves single digits
            start, schedule = start.double(), schedule.double()
        return self._launch(denoiser, start, schedule, **settings)

    def _solver_settings(self, p: SamplingJob) -> dict[str, float]:
        """The solver's eta and churn; unusual values are recorded."""
        return self._eta(p, "eta_ancestral", 1.0) | self._churn(p)

    def sigmas(self, p: SamplingJob, steps: int) -> Tensor:
        """The whole schedule for `steps` steps: float32, on the CPU, descending to 0. Unusual settings are recorded."""
        discard = self._discards(p)
        if self.is_flow and p.options.flow_shift:
            p.extra_generation_params[infotext_name("flow_shift")] = p.options.flow_shift
        n = steps + 1 if discard else steps
        schedule = find_schedule(p.scheduler)
        if schedule.sigmas is None and self.row.scheduler is None:
            low, high, settings = *self._range(p.options), {}
            schedule = SCHEDULES["uniform"]
        else:
            schedule = SCHEDULES[self.row.scheduler] if schedule.sigmas is None else schedule
            p.extra_generation_params["Schedule type"] = schedule.label
            low, high, settings = self._adjusted(p, schedule)
        sigmas = schedule.sigmas(n, low, high, prediction=self.prediction, **settings)
        return torch.cat([sigmas[:-2], sigmas[-1:]]) if discard else sigmas

    def _from_noise_level(self, p: SamplingJob, steps: int) -> Tensor:
        """That many steps from where the strength is the fraction of noise: the end of a longer schedule."""
        p.extra_generation_params[infotext_name("strength_as_noise")] = True
        first = torch.tensor(min(p.denoising_strength, LAST_TIME))
        first = first / (1 - first)
        for total in range(steps, MAX_STEPS):
            below = (sigmas := self.sigmas(p, total))[sigmas < first]
            if len(below) >= steps or total > 100 * steps:  # fewer, where a low strength would need a schedule without end
                return torch.cat([first[None], below[-steps:]])

    @property
    def is_flow(self) -> bool:
        return self.prediction.steps is None

    def _range(self, options: Options) -> tuple[float, float]:
        """The lowest and the highest sigma of a schedule."""
        sigmas = self.prediction.sigmas
        return (0.1, 10.0) if options.use_old_karras_scheduler_sigmas else (sigmas[0].item(), sigmas[-1].item())

    def _adjusted(self, p: SamplingJob, schedule: Schedule) -> tuple[float, float, dict[str, Any]]:
        """A schedule's range and keywords as the options ask; unusual values are recorded."""
        options, record = p.options, p.extra_generation_params
        usual = self.prediction.sigmas[0].item(), self.prediction.sigmas[-1].item()
        (low, high), settings = self._range(options), {}
        if options.sigma_min not in (0, usual[0]):
            low = record[infotext_name("sigma_min")] = options.sigma_min
        if options.sigma_max not in (0, usual[1]):
            high = record[infotext_name("sigma_max")] = options.sigma_max
        if schedule.default_rho > 0 and options.rho not in (0, schedule.default_rho):
            settings["rho"] = record[infotext_name("rho")] = options.rho
        if "alpha" in schedule.takes:
            settings["alpha"] = record[infotext_name("beta_dist_alpha")] = options.beta_dist_alpha
            settings["beta"] = record[infotext_name("beta_dist_beta")] = options.beta_dist_beta
        if "xl" in schedule.takes:
            settings["xl"] = self.family.name.startswith("sdxl")
        return low, high, settings

    def _model(self, p: SamplingJob, denoise: Denoise, prediction: Prediction) -> ConditionedModel:
        def denoised_twice(x: Tensor, sigma: Tensor, cond: Cond, image_cond: Tensor) -> tuple[Tensor, Tensor]:
            """The x0 estimate twice: for the solver and for the preview."""
            t, sigma = beside(x, prediction.time(sigma)), beside(x, sigma)
            t = t.float() if t.dtype == torch.float64 else t
            output = denoise(prediction.scale_input(x, sigma), t, cond, image_cond)
            denoised = prediction.to_denoised(output, x, sigma)
            if p.controls is not None:
                denoised = p.controls.corrected(denoised)
            return denoised, denoised

        return denoised_twice

    def _completed(self, sigma: Tensor) -> float:
        return self.prediction.completed(sigma)

    def _noise_sampler(self, p: SamplingJob, x: Tensor, sigmas: Tensor, schedule: Tensor) -> Any:
        """sigmas: the whole schedule; schedule: the part that is run."""
        if not self.row.brownian:
            return lambda sigma, sigma_next: p.rng.next()
        randn = partial(randn_local, source=p.options.randn_source, device=x.device)
        if p.options.no_dpmpp_sde_batch_determinism:
            # A1111: one motion for the whole batch, seeded by the first number drawn with the last picture's seed
            seed = torch.randint(2**63 - 1, (), generator=torch.Generator().manual_seed(p.seeds[-1] % 2**64)).item()
            low, high = schedule[schedule > 0].min().item(), schedule.max().item()
            noise = BrownianNoise(tuple(x.shape), [seed], low, high, randn=randn, device=x.device)
            return lambda sigma, sigma_next: noise(sigma, sigma_next)[0]
        # A1111: over the whole schedule, even if only its end is run
        return BrownianNoise(tuple(x.shape[1:]), p.seeds, sigmas[sigmas > 0].min().item(), sigmas.max().item(),
                             randn=randn, device=x.device)

    def _churn(self, p: SamplingJob) -> dict[str, float]:
        """s_churn, s_tmin, s_tmax and s_noise, as far as the solver takes them."""
        settings = {}
        for name, usual in (("s_churn", 0.0), ("s_tmin", 0.0), ("s_tmax", 0.0), ("s_noise", 1.0)):
            if name not in self.row.takes:
                continue
            option, asked = getattr(p.options, name), getattr(p, name)
            value = option if asked is None else asked
            # A1111: an option not at its default beats the request, and is recorded only then
            if option != usual:
                value = p.extra_generation_params[infotext_name(name)] = option
            settings[name] = math.inf if name == "s_tmax" and value == 0 else value
        return settings


class LCMSampler(KDiffusionSampler):
    """For latent consistency models, which have 50 timesteps."""

    def _prediction(self, family: Family, options: Options) -> Prediction:
        return LCMSchedule(self._discrete(family, options).alphas_cumprod)


class TimestepSampler(Sampler):
    """Solvers in terms of training timesteps: the latent keeps unit variance, and the model gives eps."""

    prediction: DiscreteSchedule

    def _prediction(self, family: Family, options: Options) -> DiscreteSchedule:
        return self._discrete(family, options)

    def sample_img2img(self, p: SamplingJob, x: Tensor, noise: Tensor, conditioning: Any,
                       unconditional_conditioning: Any, *, image_conditioning: Tensor) -> Tensor:
        steps, t_enc = img2img_steps(p.steps, p.denoising_strength, fix_steps=p.options.img2img_fix_steps)
        timesteps = self._timesteps(p, steps)
        alpha = self.prediction.alphas_cumprod[timesteps[t_enc]]
        start = self._with_extra_noise(p, x * alpha**0.5 + noise * (1 - alpha) ** 0.5, noise, scale=alpha**0.5)
        return self._run(p, x, start, timesteps[:t_enc], conditioning, unconditional_conditioning, image_conditioning,
                         calls=t_enc + 1)

    def sample_txt2img(self, p: SamplingJob, noise: Tensor, conditioning: Any, unconditional_conditioning: Any, *,
                       image_conditioning: Tensor) -> Tensor:
        timesteps = self._timesteps(p, p.steps)
        return self._run(p, torch.zeros_like(noise), noise, timesteps, conditioning, unconditional_conditioning,
                         image_conditioning, calls=p.steps, from_noise=True)

    def _timesteps(self, p: SamplingJob, steps: int) -> Tensor:
        """The whole schedule of `steps` timesteps, ascending. Raises InvalidRequest if there are not that many."""
        steps = steps + 1 if self._discards(p) else steps
        if steps > MAX_TIMESTEPS:
            raise InvalidRequest("steps", f"steps: {self.row.name} has at most {MAX_TIMESTEPS} steps in its whole schedule, "
                                          f"got {steps}")
        return ddim_timesteps(steps)

    def _run(self, p: SamplingJob, x: Tensor, start: Tensor, timesteps: Tensor, conditioning: Any,
             unconditional_conditioning: Any, image_conditioning: Tensor, *, calls: int, from_noise: bool = False) -> Tensor:
        """Solve from `start` along ascending timesteps; x: the clean init latent. from_noise: txt2img, without a source."""
        denoiser = self._denoiser(p, x, conditioning, unconditional_conditioning, image_conditioning, blend_before=True,
                                  calls=calls)
        p.progress.begin_sampling(self._shown_steps(len(timesteps)))
        return self._launch(denoiser, start, timesteps, alphas_cumprod=self.prediction.alphas_cumprod,
                            **self._settings(p, denoiser, from_noise))

    def _shown_steps(self, t_enc: int) -> int:
        return max(t_enc - 1, 0)

    def _settings(self, p: SamplingJob, denoiser: CFGDenoiser, from_noise: bool) -> dict[str, Any]:
        """The solver's keywords."""
        settings = self._eta(p, "eta_ddim", 0.0)
        if self.row.draws_noise:
            settings["noise_sampler"] = lambda t, t_next: p.rng.next()
        if self.row.cfgpp:
            settings["uncond_eps"] = lambda: denoiser.last_uncond
        return settings

    def _model(self, p: SamplingJob, denoise: Denoise, prediction: DiscreteSchedule) -> ConditionedModel:
        def noise(x: Tensor, t: Tensor, cond: Cond, image_cond: Tensor) -> tuple[Tensor, Tensor]:
            """The noise estimate, and the x0 estimate that follows from it."""
            eps = prediction.to_eps(denoise(x, beside(x, t), cond, image_cond), x, t)
            alpha = beside(x, prediction.alphas_cumprod[t.long()].reshape(-1, 1, 1, 1))
            x0 = (x - (1 - alpha) ** 0.5 * eps) / alpha**0.5
            if p.controls is not None and p.controls.corrections:
                x0 = p.controls.corrected(x0)
                eps = (x - alpha**0.5 * x0) / (1 - alpha) ** 0.5
            return eps, x0

        return noise

    def _completed(self, sigma: Tensor) -> float:
        return (999 - int(sigma.max())) / 1000


class UniPCSampler(TimestepSampler):
    """UniPC, with its own options."""

    def _shown_steps(self, t_enc: int) -> int:
        return t_enc

    def _settings(self, p: SamplingJob, denoiser: CFGDenoiser, from_noise: bool) -> dict[str, Any]:
        chosen = {name: getattr(p.options, f"uni_pc_{name}") for name in ("variant", "skip_type", "order", "lower_order_final")}
        return chosen | {"from_noise": from_noise}


@dataclass(frozen=True)
class SamplerRow:
    """A sampler, as listed by A1111."""

    name: str
    solver: Callable[..., Tensor]
    aliases: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    """The request's settings that the solver takes."""
    kind: type[Sampler] = KDiffusionSampler
    scheduler: str | None = None
    """Name of the schedule that "Automatic" stands for; None: evenly spaced training timesteps."""
    second_order: bool = False
    """Calls the model twice per step."""
    draws_noise: bool = True
    """Takes a noise_sampler."""
    brownian: bool = False
    """Draws noise from a Brownian motion over the schedule instead of independently per step."""
    discard_next_to_last_sigma: bool = False
    uses_ensd: bool = False
    solver_type: str | None = None
    """The solver's keyword of that name; None: not passed."""
    cfgpp: bool = False
    """Guides like CFG++: cfg_scale counts less, and the negative prompt's noise sets the direction."""
