"""What the options let a network reuse from earlier calls, and the record in infotext of what changed pixels."""

import hashlib
from typing import Any

from torch import Tensor

from pipeline.families.base import Calls
from pipeline.families.reuse import Edit, Reuse, Reused, Window
from pipeline.options import infotext_name
from pipeline.samplers.denoiser import CFGDenoiser
from pipeline.samplers.sampling_job import SamplingJob

MARGIN = 1
"""Latent cells around a mask that are computed with it."""


def planned(denoiser: CFGDenoiser, sampler: str, schedule: Tensor) -> Reuse:
    """What the network may reuse, by the options, when that sampler runs on that schedule."""
    p, options = denoiser.p, denoiser.p.options
    if p.controls is not None:  # what is reused would lack the controls' part
        if remembers_edit(p) or options.step_cache_interval > 1 or options.step_cache_threshold > 0:
            p.say("With ControlNet, step cache and edit reuse are at rest.")
        return Reuse()
    edit = None
    if remembers_edit(p):
        digest = hashlib.blake2b(denoiser.init_latent.cpu().numpy().tobytes()).digest()
        edit = Edit((digest, p.encoder.networks, sampler, *schedule.tolist()), surroundings(p.nmask))
    return Reuse(options.step_cache_interval, options.step_cache_threshold, edit)


def remembers_edit(p: SamplingJob) -> bool:
    """Whether the network records this edit, and reuses a similar earlier one."""
    return p.options.edit_reuse and p.nmask is not None


def surroundings(nmask: Tensor) -> Window:
    """The part of a latent that a mask (C, h, w) regenerates, plus MARGIN."""
    regenerated = nmask.amax(dim=0) > 0
    bounds = []
    for axis, length in ((1, nmask.shape[-2]), (0, nmask.shape[-1])):
        places = regenerated.any(dim=axis).nonzero()
        low, high = (places.min().item(), places.max().item() + 1) if len(places) else (0, 0)
        bounds.append((max(low - MARGIN, 0), min(high + MARGIN, length)))
    (top, bottom), (left, right) = bounds
    return Window(top, left, bottom, right)


def record(params: dict[str, Any], plan: Reuse, reused: Reused, calls: Calls) -> None:
    """Record in infotext whatever made the pixels differ from the exact ones."""
    if calls.compiled:
        params[infotext_name("compile_networks")] = True
    if reused.calls and plan.edit is not None:
        params[infotext_name("edit_reuse")] = True
    elif reused.calls:
        params[infotext_name("step_cache_interval")] = plan.interval if plan.interval > 1 else None
        params[infotext_name("step_cache_threshold")] = plan.threshold or None
