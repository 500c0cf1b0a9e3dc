"""The fields of the processing object that samplers read."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.conditioning import PromptEncoder
from pipeline.families.base import Family
from pipeline.families.controls import Controls
from pipeline.hooks import Hooks
from pipeline.kept import Kept
from pipeline.options import Options
from pipeline.progress import Progress
from pipeline.rng import ImageRNG


class SamplingJob(Protocol):
    """The part of the processing object that samplers use."""

    steps: int
    denoising_strength: float
    cfg_scale: float
    image_cfg_scale: float | None
    scheduler: str
    eta: float | None
    s_churn: float | None
    s_tmin: float | None
    s_tmax: float | None
    s_noise: float | None
    s_min_uncond: float | None
    refiner: Family | None
    refiner_switch_at: float | None
    prompts: list[str]
    negative_prompts: list[str]
    seeds: list[int]
    rng: ImageRNG
    mask: Tensor | None
    nmask: Tensor | None
    options: Options
    override_settings: dict[str, Any]
    scripts: Hooks
    progress: Progress
    kept: Kept
    free_memory: Callable[[torch.device], int | None] | None
    encoder: PromptEncoder
    extra_generation_params: dict[str, Any]
    controls: Controls | None
    """None: no picture guides the sampling."""

    def say(self, *sentences: str) -> None:
        """Add sentences for the person who asked."""
