"""Noise schedules: n noise levels from high to low, then 0. float32 on the CPU.

A schedule is a function (n, sigma_min, sigma_max, *, prediction, **options) → Tensor and a row of SCHEDULES.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.families.prediction import Prediction


def append_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas, sigmas.new_zeros([1])])


def uniform(n: int, sigma_min: float, sigma_max: float, *, prediction: Prediction) -> Tensor:
    """Even steps of t over the network's whole range; sigma_min and sigma_max are ignored."""
    start, end = prediction.sigma_to_t(prediction.sigmas[[-1, 0]].cpu()).tolist()
    return append_zero(prediction.t_to_sigma(torch.linspace(start, end, n)))


def karras(n: int, sigma_min: float, sigma_max: float, *, prediction: Prediction | None = None,
           rho: float = 7.0) -> Tensor:
    """Equation 5 of Karras et al. (2022)."""
    ramp = torch.linspace(0, 1, n)
    min_inv_rho = sigma_min ** (1 / rho)
    max_inv_rho = sigma_max ** (1 / rho)
    return append_zero((max_inv_rho + ramp * (min_inv_rho - max_inv_rho)) ** rho)


def exponential(n: int, sigma_min: float, sigma_max: float, *, prediction: Prediction) -> Tensor:
    """Even steps of log sigma."""
    return append_zero(torch.linspace(math.log(sigma_max), math.log(sigma_min), n).exp())


def polyexponential(n: int, sigma_min: float, sigma_max: float, *, prediction: Prediction, rho: float = 1.0) -> Tensor:
    """Steps of log sigma along ramp ** rho; rho 1 is Exponential."""
    ramp = torch.linspace(1, 0, n) ** rho
    return append_zero((ramp * (math.log(sigma_max) - math.log(sigma_min)) + math.log(sigma_min)).exp())


def sgm_uniform(n: int, sigma_min: float, sigma_max: float, *, prediction: Prediction) -> Tensor:
    """Even steps of t as in Stability's generative-models: n + 1 levels, with 0 in place of the last, sigma_min."""
    start, end = prediction.sigma_to_t(torch.tensor([sigma_max, sigma_min])).tolist()
    return append_zero(prediction.t_to_sigma(torch.linspace(start, end, n + 1)[:-1]))


def normal(n: int, sigma_min: float, sigma_max: float, *, prediction: Prediction) -> Tensor:
    """Even steps of t from sigma_max to sigma_min."""
    start, end = prediction.sigma_to_t(torch.tensor([sigma_max, sigma_min])).tolist()
    return append_zero(prediction.t_to_sigma(torch.linspace(start, end, n)))


def kl_optimal(n: int, sigma_min: float, sigma_max: float, *, prediction: Prediction) -> Tensor:
    """Theorem 3.1 of Sabour et al. (2024): even steps of arctan(sigma).

    A1111: n + 1 levels ending at sigma_min, without a final 0, so that much noise remains.
    """
    if n == 0:
        return torch.zeros(1)
    low, high = torch.tensor([sigma_min, sigma_max]).arctan()
    ramp = torch.arange(n + 1) / n
    return (ramp * low + (1.0 - ramp) * high).tan()


AYS_SIGMAS = {
    False: (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    True: (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
}
"""The published levels for ten steps: other networks (False), and SDXL-like ones (True)."""


def align_your_steps(n: int, sigma_min: float, sigma_max: float, *, prediction: Prediction, xl: bool = False) -> Tensor:
    """The optimised levels of Sabour et al. (2024), log-linearly interpolated, over their own range."""
    published = np.array(AYS_SIGMAS[xl])
    places = np.linspace(0, 1, n), np.linspace(0, 1, len(published))
    levels = published if n == len(published) else np.exp(np.interp(*places, np.log(published[::-1])))[::-1].copy()
    return append_zero(torch.from_numpy(levels).float())


def simple(n: int, sigma_min: float, sigma_max: float, *, prediction: Prediction) -> Tensor:
    """Every (1000/n)th of the network's levels, from the highest down, rounded to a timestep."""
    step = len(prediction.sigmas) / max(n, 1)
    return append_zero(prediction.sigmas[[-1 - int(i * step) for i in range(n)]].float())


def ddim(n: int, sigma_min: float, sigma_max: float, *, prediction: Prediction) -> Tensor:
    """The levels of DDIM's timesteps.

    A1111: spaced by 1000 // n, so there may be more than n of them (16 for 15).
    """
    if n == 0:
        return torch.zeros(1)
    step = max(len(prediction.sigmas) // n, 1)
    return append_zero(prediction.sigmas[1::step].flip(0).float())


def beta(n: int, sigma_min: float, sigma_max: float, *, prediction: Prediction, alpha: float = 0.6,
         beta: float = 0.6) -> Tensor:
    """Quantiles of the beta distribution, by Lee et al. (2024).

    A1111: spread over sigma, whereas the paper spreads them over t. So do ComfyUI and Forge, and we with flow models.
    """
    if prediction.steps is None:
        quantiles = beta_quantiles(1 - np.linspace(0, 1, n, endpoint=False), alpha, beta)
        levels = len(prediction.sigmas)
        return append_zero(prediction.t_to_sigma(torch.from_numpy((1 + quantiles * (levels - 1)) / levels).float()))
    quantiles = beta_quantiles(1 - np.linspace(0, 1, n), alpha, beta)
    return append_zero(torch.from_numpy(sigma_min + quantiles * (sigma_max - sigma_min)).float())


def beta_quantiles(p: np.ndarray, a: float, b: float) -> np.ndarray:
    """Quantiles of the beta distribution at cumulative probabilities p, by bisection."""
    low, high = np.zeros_like(p), np.ones_like(p)
    for _ in range(60):
        middle = (low + high) / 2
        below = beta_cdf(middle, a, b) < p
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.select([p <= 0, p >= 1], [0.0, 1.0], (low + high) / 2)


def beta_cdf(x: np.ndarray, a: float, b: float) -> np.ndarray:
    """The regularised incomplete beta function for 0 < x <= 1, by its continued fraction (DLMF 8.17.22)."""
    right = x > (a + 1) / (a + b + 2)  # there the fraction converges slowly, but its mirror image fast
    x = np.where(right, np.maximum(1 - x, 1e-300), x)
    a, b = np.where(right, b, a), np.where(right, a, b)
    fraction = 1.0
    for j in range(120, 0, -1):
        m = j // 2
        top = -(a + m) * (a + b + m) if j % 2 else m * (b - m)
        fraction = 1 + top * x / ((a + j - 1) * (a + j)) / fraction
    log_gamma = np.vectorize(math.lgamma, otypes=[float])
    log_beta = log_gamma(a) + log_gamma(b) - log_gamma(a + b)
    result = np.exp(a * np.log(x) + b * np.log1p(-x) - log_beta) / (a * fraction)
    return np.where(right, 1 - result, result)


@dataclass(frozen=True)
class Schedule:
    name: str
    label: str
    sigmas: Callable[..., Tensor] | None
    """None: stands for the sampler's default."""
    aliases: tuple[str, ...] = ()
    default_rho: float = -1.0
    """Negative: takes no rho."""
    need_inner_model: bool = False
    """In A1111's list: whether its function takes the network's timesteps, even if unused."""
    takes: tuple[str, ...] = ()
    """Further keywords of the function: "alpha" and "beta" of the distribution; "xl" for SDXL-like networks."""


SCHEDULES = {schedule.name: schedule for schedule in (
    Schedule("automatic", "Automatic", None),
    Schedule("uniform", "Uniform", uniform, need_inner_model=True),
    Schedule("karras", "Karras", karras, default_rho=7.0),
    Schedule("exponential", "Exponential", exponential),
    Schedule("polyexponential", "Polyexponential", polyexponential, default_rho=1.0),
    Schedule("sgm_uniform", "SGM Uniform", sgm_uniform, aliases=("SGMUniform",), need_inner_model=True),
    Schedule("kl_optimal", "KL Optimal", kl_optimal),
    Schedule("align_your_steps", "Align Your Steps", align_your_steps, takes=("xl",)),
    Schedule("simple", "Simple", simple, need_inner_model=True),
    Schedule("normal", "Normal", normal, need_inner_model=True),
    Schedule("ddim", "DDIM", ddim, need_inner_model=True),
    Schedule("beta", "Beta", beta, need_inner_model=True, takes=("alpha", "beta")),
)}


def find_schedule(name_or_label: str) -> Schedule | None:
    """The schedule of that exact name or label. Aliases are recognised only at the end of a sampler's name."""
    matches = (s for s in SCHEDULES.values() if name_or_label in (s.name, s.label))
    return next(matches, None)
