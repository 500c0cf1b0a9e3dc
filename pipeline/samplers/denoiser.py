"""One look at the model with classifier-free guidance, as the solvers see it: denoised = denoiser(x, sigma)."""

from typing import TYPE_CHECKING, Callable

import torch
from torch import Tensor

from pipeline.conditioning import Parts, Schedule, negative_at, pad_with_empty, positive_at, repeat_last
from pipeline.families.base import Cond, Family
from pipeline.hooks import MaskBlendArgs

if TYPE_CHECKING:
    from pipeline.samplers.sampler import SamplingJob

Model = Callable[[Tensor, Tensor, Cond, Tensor], tuple[Tensor, Tensor]]
"""(x, sigma or t, cond, image_cond) → (what the solver asks for, the x0 estimate)."""


class CFGDenoiser:
    """Guides the model from the negative prompt to the prompt, and holds the unmasked part where it was.

    `last_latent`: the latest x0 estimate of the prompt alone, (B, C, h, w); the init latent before the first call.
    """

    def __init__(self, p: "SamplingJob", family: Family, init_latent: Tensor, cond: list[Parts], uncond: list[Schedule],
                 image_cond: Tensor, *, model: Model, blend_before: bool, calls: int):
        self.p, self.family, self.model = p, family, model
        self.init_latent = self.last_latent = init_latent
        self.cond, self.uncond, self.image_cond = cond, uncond, image_cond
        self.blend_before = blend_before
        self.calls, self.call = calls, 0

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.p.progress.checkpoint()
        cond, members = positive_at(self.cond, self.call)
        uncond = negative_at(self.uncond, self.call)
        if self.blend_before:
            x = self._blend(x, sigma)
        cond, uncond = self._padded(cond, uncond)
        if self._skips_uncond(sigma):
            output, estimate = self._run(x, sigma, cond, members)
            guided = combine(output, members, None, self.p.cfg_scale)
        else:
            output, estimate = self._run(x, sigma, cond, members, uncond)
            guided = combine(output, members, output[-len(x):], self.p.cfg_scale)
        if not self.blend_before:
            guided = self._blend(guided, sigma)
        self.last_latent = torch.stack([estimate[rows[0][0]] for rows in members])
        self.call += 1
        return guided

    def _run(self, x: Tensor, sigma: Tensor, cond: Cond, members: list[list[tuple[int, float]]],
             uncond: Cond | None = None) -> tuple[Tensor, Tensor]:
        """The model for every part of every picture, and then for every negative prompt."""
        picture = [index for index, rows in enumerate(members) for _ in rows]
        together = uncond is None or cond.crossattn.shape[1] == uncond.crossattn.shape[1]
        if uncond is not None and together and self.p.options.batch_cond_uncond:
            batches = [(picture + list(range(len(x))), Cond.cat([cond, uncond]))]
        else:
            batches = [(picture, cond)] + ([] if uncond is None else [(list(range(len(x))), uncond)])
        results = [self.model(x[rows], sigma[rows], part, self.image_cond[rows]) for rows, part in batches]
        outputs, estimates = zip(*results)
        return torch.cat(outputs), torch.cat(estimates)

    def _skips_uncond(self, sigma: Tensor) -> bool:
        """Whether this call does without the negative prompt; recorded when it does."""
        options, record = self.p.options, self.p.extra_generation_params
        if options.skip_early_cond and self.call / self.calls <= options.skip_early_cond:
            record["Skip Early CFG"] = options.skip_early_cond
            return True
        threshold = options.s_min_uncond if self.p.s_min_uncond is None else self.p.s_min_uncond
        if (self.call % 2 or options.s_min_uncond_all) and threshold > 0 and sigma[0] < threshold:
            record["NGMS"] = threshold
            if options.s_min_uncond_all:
                record["NGMS all steps"] = True
            return True
        return False

    def _padded(self, cond: Cond, uncond: Cond) -> tuple[Cond, Cond]:
        """Both with the same number of tokens, where the options ask for it."""
        options, record = self.p.options, self.p.extra_generation_params
        length, other = cond.crossattn.shape[1], uncond.crossattn.shape[1]
        if length == other:
            return cond, uncond
        if options.pad_cond_uncond_v0:
            record["Pad conds v0"] = True
            return cond, Cond(repeat_last(uncond.crossattn, max(length, other))[:, :length], uncond.vector)
        if options.pad_cond_uncond:
            record["Pad conds"] = True
            empty = self.p.encoder.empty()
            return pad_with_empty(cond, other, empty), pad_with_empty(uncond, length, empty)
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


def combine(output: Tensor, members: list[list[tuple[int, float]]], uncond: Tensor | None, cfg_scale: float) -> Tensor:
    """uncond + sum of weight * cfg_scale * (cond - uncond) per picture.

    Without uncond the first part stands in for it, and the scale is 1.
    """
    if uncond is None:
        uncond, cfg_scale = torch.stack([output[rows[0][0]] for rows in members]), 1.0
    guided = uncond.clone()
    for picture, rows in enumerate(members):
        for row, weight in rows:
            guided[picture] += (output[row] - uncond[picture]) * (weight * cfg_scale)
    return guided
