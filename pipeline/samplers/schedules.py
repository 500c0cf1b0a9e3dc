"""Noise schedules: n noise levels from high to low, then 0. float32 on the CPU.

A schedule is a function (n, sigma_min, sigma_max, *, prediction, **options) → Tensor and a row of SCHEDULES.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.families.base import Prediction


def append_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas, sigmas.new_zeros([1])])


def uniform(n: int, sigma_min: float, sigma_max: float, *, prediction: Prediction) -> Tensor:
    """Every (1000/n)th training timestep. The range is the network's own; sigma_min and sigma_max are not asked."""
    timesteps = torch.linspace(len(prediction.sigmas) - 1, 0, n)
    return append_zero(prediction.t_to_sigma(timesteps))


def karras(n: int, sigma_min: float, sigma_max: float, *, prediction: Prediction, rho: float = 7.0) -> Tensor:
    """Equation 5 of Karras et al. (2022)."""
    ramp = torch.linspace(0, 1, n)
    min_inv_rho = sigma_min ** (1 / rho)
    max_inv_rho = sigma_max ** (1 / rho)
    return append_zero((max_inv_rho + ramp * (min_inv_rho - max_inv_rho)) ** rho)


def exponential(n: int, sigma_min: float, sigma_max: float, *, prediction: Prediction) -> Tensor:
    """Even steps of log sigma."""
    return append_zero(torch.linspace(math.log(sigma_max), math.log(sigma_min), n).exp())


def sgm_uniform(n: int, sigma_min: float, sigma_max: float, *, prediction: Prediction) -> Tensor:
    """Even steps of t as in Stability's generative-models: the last one leads to sigma_min, which 0 replaces."""
    start, end = prediction.sigma_to_t(torch.tensor([sigma_max, sigma_min])).tolist()
    return append_zero(prediction.t_to_sigma(torch.linspace(start, end, n + 1)[:-1]))


@dataclass(frozen=True)
class Schedule:
    name: str
    label: str
    sigmas: Callable[..., Tensor] | None
    """None for the one that stands for the sampler's own default."""
    aliases: tuple[str, ...] = ()
    default_rho: float = -1.0
    """Below 0: takes no rho."""
    need_inner_model: bool = False
    """Whether the levels depend on the network's timesteps and not on sigma_min and sigma_max alone."""


SCHEDULES = {schedule.name: schedule for schedule in (
    Schedule("automatic", "Automatic", None),
    Schedule("uniform", "Uniform", uniform, need_inner_model=True),
    Schedule("karras", "Karras", karras, default_rho=7.0),
    Schedule("exponential", "Exponential", exponential),
    Schedule("sgm_uniform", "SGM Uniform", sgm_uniform, aliases=("SGMUniform",), need_inner_model=True),
)}


def find_schedule(name_or_label: str) -> Schedule | None:
    """The schedule of that exact name or label. Aliases only count as the end of a sampler's name."""
    matches = (s for s in SCHEDULES.values() if name_or_label in (s.name, s.label))
    return next(matches, None)
