"""One model call with classifier-free guidance, as solvers see it: denoised = denoiser(x, sigma)."""

from dataclasses import dataclass, replace
from typing import Callable

import torch
from torch import Tensor

from pipeline.conditioning import Subprompts, Timeline, negative_at, positive_at
from pipeline.errors import InvalidRequest
from pipeline.families.base import Family
from pipeline.families.cond import Cond
from pipeline.hooks import MaskBlendArgs
from pipeline.options import infotext_name
from pipeline.samplers.sampling_job import SamplingJob

ROW = 8192
"""Values in use by a network per latent cell, generously estimated."""
FEW_ROWS = 2
"""Extra rows from AND that need no memory check."""
MOST_ROWS = 64
"""Maximum rows per network call if AND adds rows."""
ConditionedModel = Callable[[Tensor, Tensor, Cond, Tensor], tuple[Tensor, Tensor]]
"""(x, sigma or t on the CPU, cond, image_cond) → (the solver's quantity, the x0 estimate)."""
Members = list[list[tuple[int, float]]]
"""Per picture: (row, weight) of the subprompts that AND joins."""


@dataclass(frozen=True)
class Question:
    """One model query about some pictures of the batch, one row each."""

    pictures: list[int]
    cond: Cond
    image_cond: Tensor
    negative: bool = False
    """Whether it is for the negative prompt."""


class CFGDenoiser:
    """Applies guidance, and keeps the unmasked part in place.

    `last_latent`: the latest x0 estimate of the prompt alone, (B, C, h, w); the init latent before the first call.
    `last_uncond`: the latest output for the negative prompt, or its substitute.
    Called with noise levels on the CPU, so that decisions on them need not wait for the device.
    `family`: the model in use: the job's, later the refiner.
    """

    def __init__(self, p: SamplingJob, family: Family, init_latent: Tensor, cond: list[Subprompts], uncond: list[Timeline],
                 image_cond: Tensor, *, model_of: Callable[[Family], ConditionedModel], completed: Callable[[Tensor], float],
                 cfg_scale: float, blend_before: bool, calls: int, uses_uncond: bool = False):
        """model_of: how to query a family; completed: fraction of the way down at a sigma (or t); uses_uncond: whether the
        solver reads last_uncond.
        """
        self.p, self.family, self.model = p, family, model_of(family)
        self.init_latent = self.last_latent = init_latent
        self.last_uncond: Tensor | None = None
        self.cond, self.uncond, self.image_cond = cond, uncond, image_cond
        self.encoder = p.encoder
        self.model_of, self.completed = model_of, completed
        self.cfg_scale, self.image_cfg_scale = cfg_scale, active_image_cfg_scale(p, family, cond)
        self.blend_before, self.uses_uncond = blend_before, uses_uncond
        self.calls, self.call = calls, 0
        self.rows_at_once: int | None = None
        """Rows per call if AND adds rows; set at the first such call."""
        self.padding: str | None = None
        """Infotext's value for how prompts were padded to one length; None: not needed so far."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.p.progress.checkpoint()
        if self._reaches_refiner(sigma):
            self._switch(self.p.refiner)
        cond, members = positive_at(self.cond, self.call)
        uncond = negative_at(self.uncond, self.call)
        if self.blend_before:
            x = self._blend(x, sigma)
        cond, uncond = self._padded(cond, uncond)
        guided, estimate = self._guided(x, sigma, cond, members, uncond)
        if not self.blend_before:
            guided = self._blend(guided, sigma)
        self.last_latent = torch.stack([estimate[rows[0][0]] for rows in members])
        self.call += 1
        return guided

    def _guided(self, x: Tensor, sigma: Tensor, cond: Cond, members: Members, uncond: Cond) -> tuple[Tensor, Tensor]:
        """The solver's quantity with guidance, and the x0 estimates of the positive subprompts."""
        everyone = list(range(len(x)))
        pictures = [picture for picture, rows in enumerate(members) for _ in rows]
        positive = Question(pictures, cond, rows_of(self.image_cond, pictures))
        if self._skips_uncond(sigma) or self._is_unguided(members):
            output, estimate = self._run(x, sigma, [positive])[0]
            self.last_uncond = torch.stack([output[rows[0][0]] for rows in members])
            return combine(output, members, self.last_uncond, 1.0), estimate
        questions = [positive, Question(everyone, uncond, self.image_cond, negative=True)]
        if self.image_cfg_scale is not None:
            questions.append(Question(everyone, uncond, torch.zeros_like(self.image_cond), negative=True))
        (output, estimate), *others = self._run(x, sigma, questions)
        self.last_uncond = others[-1][0]
        if self.image_cfg_scale is None:
            return combine(output, members, self.last_uncond, self.cfg_scale), estimate
        with_image = others[0][0]
        return self.last_uncond + self.cfg_scale * (output - with_image) \
            + self.image_cfg_scale * (with_image - self.last_uncond), estimate

    def _run(self, x: Tensor, sigma: Tensor, questions: list[Question]) -> list[tuple[Tensor, Tensor]]:
        """The model's two answers to each question; in one call if allowed and the prompts have equal length.

        If AND adds more rows than memory allows at once, they are run in slices.
        """
        rows = max(len(question.pictures) for question in questions)
        if rows > len(x) + FEW_ROWS:
            if self.rows_at_once is None:
                self.rows_at_once = rows_that_fit(x, self.p.free_memory and self.p.free_memory(x.device))
            if rows > self.rows_at_once:
                return [self._run_slices(x, sigma, question) for question in questions]
        lengths = {question.cond.length for question in questions}
        if len(lengths) > 1 or not self.p.options.batch_cond_uncond:
            return [self._ask(x, sigma, question.pictures, [question.negative] * len(question.pictures), question.cond, question.image_cond)
                    for question in questions]
        pictures = [picture for question in questions for picture in question.pictures]
        negative = [question.negative for question in questions for _ in question.pictures]
        outputs, estimates = self._ask(x, sigma, pictures, negative, Cond.cat([question.cond for question in questions]),
                                       torch.cat([question.image_cond for question in questions]))
        sizes = [len(question.pictures) for question in questions]
        return list(zip(outputs.split(sizes), estimates.split(sizes)))

    def _run_slices(self, x: Tensor, sigma: Tensor, question: Question) -> tuple[Tensor, Tensor]:
        """The model's two answers to a question, some rows at a time. The job can stop between slices."""
        answers = []
        for start in range(0, len(question.pictures), self.rows_at_once):
            self.p.progress.checkpoint()
            rows = slice(start, start + self.rows_at_once)
            pictures = question.pictures[rows]
            answers.append(self._ask(x, sigma, pictures, [question.negative] * len(pictures), question.cond[rows], question.image_cond[rows]))
        outputs, estimates = zip(*answers)
        return torch.cat(outputs), torch.cat(estimates)

    def _ask(self, x: Tensor, sigma: Tensor, pictures: list[int], negative: list[bool], cond: Cond,
             image_cond: Tensor) -> tuple[Tensor, Tensor]:
        """The model's two answers, for a picture of the batch in each row."""
        if self.p.controls is not None:
            self.p.controls.negative = negative
        return self.model(rows_of(x, pictures), sigma[pictures], cond, image_cond)

    def _reaches_refiner(self, sigma: Tensor) -> bool:
        """Whether this call is the refiner's first."""
        p = self.p
        if p.options.refiner_switch_by_sample_steps:
            # A1111: recorded even without a refiner
            p.extra_generation_params[infotext_name("refiner_switch_by_sample_steps")] = True
        if p.refiner is None or self.family is p.refiner:
            return False
        by_calls = p.options.refiner_switch_by_sample_steps
        completed = self.call / self.calls if by_calls else self.completed(sigma)
        return p.refiner_switch_at is None or completed >= p.refiner_switch_at

    def _switch(self, refiner: Family) -> None:
        """Query another family from now on, with the same prompts."""
        p = self.p
        p.extra_generation_params["Refiner"] = refiner.info.title
        p.extra_generation_params["Refiner switch at"] = p.refiner_switch_at
        self.family, self.model = refiner, self.model_of(refiner)
        self.encoder = replace(p.encoder, family=refiner, networks=p.encoder.refiner_networks)
        self.cond, self.uncond = self.encoder.positive(p.prompts), self.encoder.negative(p.negative_prompts)

    def _skips_uncond(self, sigma: Tensor) -> bool:
        """Whether this call skips the negative prompt; recorded if so."""
        options, record = self.p.options, self.p.extra_generation_params
        if options.skip_early_cond and self.call / self.calls <= options.skip_early_cond:
            record[infotext_name("skip_early_cond")] = options.skip_early_cond
            return True
        if self._beyond_guidance(sigma):
            record[infotext_name("guidance_start")], record[infotext_name("guidance_stop")] = options.guidance_start, options.guidance_stop
            return True
        threshold = options.s_min_uncond if self.p.s_min_uncond is None else self.p.s_min_uncond
        due = self.call % 2 or options.s_min_uncond_all
        if due and threshold > 0 and sigma[0] < threshold and self.image_cfg_scale is None:
            record[infotext_name("s_min_uncond")] = threshold
            if options.s_min_uncond_all:
                record[infotext_name("s_min_uncond_all")] = True
            return True
        return False

    def _is_unguided(self, members: Members) -> bool:
        """Whether the negative prompt has no effect: guidance by exactly 1 is the prompt's own answer."""
        if not self.family.takes_negative_prompt:
            return True
        return (self.cfg_scale == 1.0 and self.image_cfg_scale is None and not self.uses_uncond
                and all(len(parts) == 1 and parts[0][1] == 1.0 for parts in members))

    def _beyond_guidance(self, sigma: Tensor) -> bool:
        """Whether this noise level is outside the options' guidance interval."""
        start, stop = self.p.options.guidance_start, self.p.options.guidance_stop
        if (start, stop) == (0.0, 1.0) or self.image_cfg_scale is not None:
            return False
        return not start <= self.completed(sigma) <= stop

    def _padded(self, cond: Cond, uncond: Cond) -> tuple[Cond, Cond]:
        """Both with the same number of tokens, if the options ask for it."""
        options = self.p.options
        length, other = cond.length, uncond.length
        if length == other:
            return cond, uncond
        if options.pad_cond_uncond_v0:
            self.padding = infotext_name("pad_cond_uncond_v0")
            return cond, uncond.padded(length).cut(length)
        if options.pad_cond_uncond:
            self.padding = infotext_name("pad_cond_uncond")
            return cond.followed_by(self.encoder.empty, other), uncond.followed_by(self.encoder.empty, length)
        return cond, uncond

    def _blend(self, latent: Tensor, sigma: Tensor) -> Tensor:
        """`latent` where the mask regenerates, the init latent where it preserves."""
        p = self.p
        if p.mask is None:
            return latent
        args = MaskBlendArgs(current_latent=latent, nmask=p.nmask, init_latent=self.init_latent, mask=p.mask,
                             blended_latent=latent * p.nmask + self.init_latent * p.mask, denoiser=self, sigma=sigma)
        p.scripts.on_mask_blend(p, args)
        return args.blended_latent


def rows_that_fit(x: Tensor, free: int | None) -> int:
    """Rows like those of x that fit through a network at once, within half of the free bytes."""
    each = x[0, 0].numel() * ROW * x.element_size()
    return MOST_ROWS if free is None else min(max(free // 2 // each, 1), MOST_ROWS)


def rows_of(tensor: Tensor, rows: list[int]) -> Tensor:
    """The named rows, possibly repeated. Avoids indexing by a list, which would synchronize with the device."""
    return tensor if rows == list(range(len(tensor))) else torch.stack([tensor[row] for row in rows])


def combine(output: Tensor, members: Members, uncond: Tensor, cfg_scale: float) -> Tensor:
    """uncond + the sum of weight * cfg_scale * (subprompt - uncond), per picture."""
    guided = uncond.clone()
    for picture, rows in enumerate(members):
        for row, weight in rows:
            guided[picture] += (output[row] - uncond[picture]) * (weight * cfg_scale)
    return guided


def active_image_cfg_scale(p: SamplingJob, family: Family, cond: list[Subprompts]) -> float | None:
    """The image CFG scale for an edit model; None: not guided by the source. Raises InvalidRequest.

    A1111: at exactly 1, the call with the negative prompt but without the source is left out.
    """
    if family.sees != "source" or p.image_cfg_scale in (None, 1.0):
        return None
    if any(len(parts) != 1 for parts in cond):
        raise InvalidRequest("prompt", "prompt: AND cannot be used with an InstructPix2Pix checkpoint, "
                                       "unless image_cfg_scale is 1")
    return p.image_cfg_scale
