"""DPM fast and DPM adaptive: DPM-Solver of Lu et al. (2022), with x as a function of t = -log(sigma) and a model for eps.

After k-diffusion (Katherine Crowson, MIT licence), in its order of operations. Both end at the schedule's next-to-last
level, since they cannot reach 0.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from pipeline.errors import InvalidRequest
from pipeline.samplers.solvers import Callback, Model, NoiseSampler, ancestral_step, no_op, row_each, sigma_fn, t_fn

Eps = Callable[[Tensor, Tensor], Tensor]
"""(x, t) → the noise in x."""


def solver_step(eps_fn: Eps, x: Tensor, eps: Tensor, t: Tensor, t_next: Tensor, order: int) -> Tensor:
    """x at t_next; eps is the noise at t. Order n makes n - 1 more model calls. Order 2 is the paper's with r1 = 1/2."""
    h = t_next - t
    if order == 1:
        return x - sigma_fn(t_next) * h.expm1() * eps
    if order == 2:
        return second_order(x, eps, first_probe(eps_fn, x, eps, t, h, 1 / 2), h, t_next, 1 / 2)
    return third_order(eps_fn, x, eps, first_probe(eps_fn, x, eps, t, h, 1 / 3), t, h, t_next)


def first_probe(eps_fn: Eps, x: Tensor, eps: Tensor, t: Tensor, h: Tensor, r: float) -> Tensor:
    """The noise at fraction r of the step."""
    s = t + r * h
    return eps_fn(x - sigma_fn(s) * (r * h).expm1() * eps, s)


def second_order(x: Tensor, eps: Tensor, eps_r: Tensor, h: Tensor, t_next: Tensor, r: float) -> Tensor:
    """DPM-Solver-2, from the noise at the step's start and at fraction r."""
    scale = sigma_fn(t_next)
    return x - scale * h.expm1() * eps - scale / (2 * r) * h.expm1() * (eps_r - eps)


def third_order(eps_fn: Eps, x: Tensor, eps: Tensor, eps_r1: Tensor, t: Tensor, h: Tensor, t_next: Tensor) -> Tensor:
    """DPM-Solver-3, from the noise at the step's start and at one third."""
    r1, r2 = 1 / 3, 2 / 3
    s2 = t + r2 * h
    u2 = x - sigma_fn(s2) * (r2 * h).expm1() * eps \
        - sigma_fn(s2) * (r2 / r1) * ((r2 * h).expm1() / (r2 * h) - 1) * (eps_r1 - eps)
    eps_r2 = eps_fn(u2, s2)
    return x - sigma_fn(t_next) * h.expm1() * eps - sigma_fn(t_next) / r2 * (h.expm1() / h - 1) * (eps_r2 - eps)


def noise_prediction(model: Model) -> Eps:
    """The model as a function of t that gives eps."""
    def eps(x: Tensor, t: Tensor) -> Tensor:
        return (x - model(x, sigma_fn(t) * row_each(x))) / sigma_fn(t)

    return eps


def ancestral_t(t: Tensor, t_next: Tensor, t_end: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """(the t to step to without noise, sigma of the noise that leads back to t_next)."""
    if not eta:
        return t_next, torch.zeros_like(t_next)
    sigma_down, _ = ancestral_step(sigma_fn(t), sigma_fn(t_next), eta)
    t_down = torch.minimum(t_end, t_fn(sigma_down))
    return t_down, (sigma_fn(t_next) ** 2 - sigma_fn(t_down) ** 2) ** 0.5


def span(sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """(first t, last t) of a schedule that ends in 0. Raises InvalidRequest if there are fewer than two levels."""
    start, end = t_fn(sigmas[0]), t_fn(sigmas[-2])
    if not start < end:
        raise InvalidRequest("denoising_strength", "denoising_strength: DPM fast and DPM adaptive need at least two noise "
                                                   "levels; use more steps or a higher strength")
    return start, end


def sample_dpm_fast(model: Model, x: Tensor, sigmas: Tensor, *, callback: Callback = no_op, noise_sampler: NoiseSampler,
                    eta: float = 0.0, s_noise: float = 1.0) -> Tensor:
    """DPM-Solver-Fast: even steps in log sigma, with as many model calls as the schedule has steps.

    A1111: ends at the schedule's next-to-last level, so that much noise remains.
    """
    t_start, t_end = span(sigmas)
    eps_fn = noise_prediction(model)
    orders = fast_orders(len(sigmas) - 1)
    ts = torch.linspace(t_start, t_end, len(orders) + 1)
    for i, (order, (t, t_next)) in enumerate(zip(orders, pairwise(ts))):
        t_down, sigma_up = ancestral_t(t, t_next, t_end, eta)
        eps = eps_fn(x, t)
        callback(i, x - sigma_fn(t) * eps)
        x = solver_step(eps_fn, x, eps, t, t_down, order)
        x = x + sigma_up * s_noise * noise_sampler(sigma_fn(t), sigma_fn(t_next))
    return x


def fast_orders(calls: int) -> list[int]:
    """Orders of the steps for that many model calls: threes, then the remainder."""
    threes = calls // 3
    return [3] * (threes - 1) + [2, 1] if calls % 3 == 0 else [3] * threes + [calls % 3]


def sample_dpm_adaptive(model: Model, x: Tensor, sigmas: Tensor, *, callback: Callback = no_op, noise_sampler: NoiseSampler,
                        eta: float = 0.0, s_noise: float = 1.0, rtol: float = 0.05, atol: float = 0.0078,
                        h_init: float = 0.05) -> Tensor:
    """DPM-Solver-23: step lengths keep the difference between orders 2 and 3 below the tolerances.

    A1111: ends at the schedule's next-to-last level, ignores the number of steps, and measures the error over all
    pictures of the batch, so a picture depends on the others.
    """
    s, t_end = span(sigmas)
    eps_fn, x_prev = noise_prediction(model), x
    control = StepSizeController(h_init, order=1.5 if eta else 3)
    i = 0
    while s < t_end - 1e-5:
        t = torch.minimum(t_end, s + control.h)
        t_down, sigma_up = ancestral_t(s, t, t_end, eta)
        eps = eps_fn(x, s)
        callback(i, x - sigma_fn(s) * eps)
        h = t_down - s
        eps_r1 = first_probe(eps_fn, x, eps, s, h, 1 / 3)
        x_low = second_order(x, eps, eps_r1, h, t_down, 1 / 3)
        x_high = third_order(eps_fn, x, eps, eps_r1, s, h, t_down)
        tolerance = torch.clamp(rtol * torch.maximum(x_low.abs(), x_prev.abs()), min=atol)
        error = torch.linalg.norm((x_low - x_high) / tolerance) / x.numel() ** 0.5
        if control.accepts(float(error)):
            x_prev = x_low
            x = x_high + sigma_up * s_noise * noise_sampler(sigma_fn(s), sigma_fn(t))
            s = t
            i += 1
    return x


class StepSizeController:
    """Proposes the next step's length from the last one's error: the integral part of a PID controller."""

    def __init__(self, h: float, *, order: float, accept_safety: float = 0.81):
        self.h = h
        self._order, self._accept_safety = order, accept_safety

    def accepts(self, error: float) -> bool:
        """Whether a step with this error is accepted. Sets the next step's length."""
        factor = (1 / (error + 1e-8)) ** (1 / self._order)
        factor = 1 + math.atan(factor - 1)
        self.h *= factor
        return factor >= self._accept_safety
