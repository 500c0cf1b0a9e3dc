"""Solvers of the diffusion ODE and SDE, after k-diffusion (Katherine Crowson, MIT licence).

A solver takes the noisy latent x (B, C, h, w) down `sigmas`, where model(x, sigma) gives `denoised`; sigma is (B,).
Operations come in k-diffusion's order, so float32 results agree with it. All randomness is the `noise_sampler`'s.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Model = Callable[[Tensor, Tensor], Tensor]
NoiseSampler = Callable[[Tensor, Tensor], Tensor]
"""(sigma, sigma_next) → standard normals like x."""
Callback = Callable[[int, Tensor], None]
"""(step, denoised), once a step, after the step's first look at the model and before x moves."""


def no_op(step: int, denoised: Tensor) -> None:
    """The callback of somebody who does not watch."""


def to_d(x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """The derivative of x by sigma, from a denoised estimate."""
    return (x - denoised) / sigma


def ancestral_step(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """(sigma_down, sigma_up): go down to the one without noise, then add noise of the other to be at sigma_next."""
    if not eta:
        return sigma_next, torch.zeros_like(sigma_next)
    sigma_up = torch.minimum(
        sigma_next, eta * (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5)
    return (sigma_next**2 - sigma_up**2) ** 0.5, sigma_up


def churn_gamma(sigma: Tensor, steps: int, s_churn: float, s_tmin: float, s_tmax: float) -> float:
    """By which fraction of itself sigma is raised before the step."""
    return min(s_churn / steps, 2**0.5 - 1) if s_tmin <= sigma <= s_tmax else 0.0


def raise_noise(x: Tensor, sigma: Tensor, gamma: float, noise: Tensor | None) -> tuple[Tensor, Tensor]:
    """x with the noise that takes it from sigma to sigma_hat = sigma * (1 + gamma), and sigma_hat."""
    sigma_hat = sigma * (gamma + 1)
    if gamma > 0:
        x = x + noise * (sigma_hat**2 - sigma**2) ** 0.5
    return x, sigma_hat


def sample_euler(model: Model, x: Tensor, sigmas: Tensor, *, callback: Callback = no_op,
                 noise_sampler: NoiseSampler | None = None, s_churn: float = 0.0, s_tmin: float = 0.0,
                 s_tmax: float = math.inf, s_noise: float = 1.0) -> Tensor:
    """Algorithm 2 (Euler steps) of Karras et al. (2022). Churn needs the noise_sampler."""
    s_in = x.new_ones([len(x)])
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        gamma = churn_gamma(sigma, len(sigmas) - 1, s_churn, s_tmin, s_tmax)
        # A1111: one draw a step even where churn is 0
        noise = noise_sampler(sigma, sigma_next) * s_noise if noise_sampler else None
        x, sigma_hat = raise_noise(x, sigma, gamma, noise)
        denoised = model(x, sigma_hat * s_in)
        callback(i, denoised)
        d = to_d(x, sigma_hat, denoised)
        x = x + d * (sigma_next - sigma_hat)
    return x


def sample_euler_ancestral(model: Model, x: Tensor, sigmas: Tensor, *, callback: Callback = no_op,
                           noise_sampler: NoiseSampler, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """Ancestral sampling with Euler steps."""
    s_in = x.new_ones([len(x)])
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma * s_in)
        callback(i, denoised)
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        d = to_d(x, sigma, denoised)
        x = x + d * (sigma_down - sigma)
        if sigma_next > 0:
            x = x + noise_sampler(sigma, sigma_next) * s_noise * sigma_up
    return x


def sample_heun(model: Model, x: Tensor, sigmas: Tensor, *, callback: Callback = no_op,
                noise_sampler: NoiseSampler | None = None, s_churn: float = 0.0, s_tmin: float = 0.0,
                s_tmax: float = math.inf, s_noise: float = 1.0) -> Tensor:
    """Algorithm 2 (Heun steps) of Karras et al. (2022). Churn needs the noise_sampler."""
    s_in = x.new_ones([len(x)])
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        gamma = churn_gamma(sigma, len(sigmas) - 1, s_churn, s_tmin, s_tmax)
        # A1111: one draw a step even where churn is 0
        noise = noise_sampler(sigma, sigma_next) * s_noise if noise_sampler else None
        x, sigma_hat = raise_noise(x, sigma, gamma, noise)
        denoised = model(x, sigma_hat * s_in)
        callback(i, denoised)
        d = to_d(x, sigma_hat, denoised)
        dt = sigma_next - sigma_hat
        if sigma_next == 0:
            # Euler method
            x = x + d * dt
        else:
            # Heun's method
            x_2 = x + d * dt
            d_2 = to_d(x_2, sigma_next, model(x_2, sigma_next * s_in))
            x = x + (d + d_2) / 2 * dt
    return x


# DPM-Solver++ steps in t = -log(sigma)

def t_fn(sigma: Tensor) -> Tensor:
    return sigma.log().neg()


def sigma_fn(t: Tensor) -> Tensor:
    return t.neg().exp()


def sample_dpmpp_sde(model: Model, x: Tensor, sigmas: Tensor, *, callback: Callback = no_op,
                     noise_sampler: NoiseSampler, eta: float = 1.0, s_noise: float = 1.0, r: float = 0.5) -> Tensor:
    """DPM-Solver++ (stochastic), of Lu et al. (2022): second order by a model call at the fraction r of the step."""
    s_in = x.new_ones([len(x)])
    fac = 1 / (2 * r)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma * s_in)
        callback(i, denoised)
        if sigma_next == 0:
            # Euler method
            x = x + to_d(x, sigma, denoised) * (sigma_next - sigma)
            continue
        t, t_next = t_fn(sigma), t_fn(sigma_next)
        s = t + (t_next - t) * r

        # Step 1
        sigma_down, sigma_up = ancestral_step(sigma_fn(t), sigma_fn(s), eta)
        t_down = t_fn(sigma_down)
        x_2 = sigma_fn(t_down) / sigma_fn(t) * x - (t - t_down).expm1() * denoised
        x_2 = x_2 + noise_sampler(sigma_fn(t), sigma_fn(s)) * s_noise * sigma_up
        denoised_2 = model(x_2, sigma_fn(s) * s_in)

        # Step 2
        sigma_down, sigma_up = ancestral_step(sigma_fn(t), sigma_fn(t_next), eta)
        t_down = t_fn(sigma_down)
        denoised_d = (1 - fac) * denoised + fac * denoised_2
        x = sigma_fn(t_down) / sigma_fn(t) * x - (t - t_down).expm1() * denoised_d
        x = x + noise_sampler(sigma_fn(t), sigma_fn(t_next)) * s_noise * sigma_up
    return x


def sample_dpmpp_2m(model: Model, x: Tensor, sigmas: Tensor, *, callback: Callback = no_op) -> Tensor:
    """DPM-Solver++(2M), of Lu et al. (2022)."""
    s_in = x.new_ones([len(x)])
    old_denoised = h_last = None
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma * s_in)
        callback(i, denoised)
        t, t_next = t_fn(sigma), t_fn(sigma_next)
        h = t_next - t
        denoised_d = denoised
        if old_denoised is not None and sigma_next > 0:
            r = h_last / h
            denoised_d = (1 + 1 / (2 * r)) * denoised - 1 / (2 * r) * old_denoised
        x = sigma_fn(t_next) / sigma_fn(t) * x - (-h).expm1() * denoised_d
        old_denoised, h_last = denoised, h
    return x


def sample_dpmpp_2m_sde(model: Model, x: Tensor, sigmas: Tensor, *, callback: Callback = no_op,
                        noise_sampler: NoiseSampler, eta: float = 1.0, s_noise: float = 1.0,
                        solver_type: str = "midpoint") -> Tensor:
    """DPM-Solver++(2M) SDE. solver_type: "midpoint" or "heun"."""
    s_in = x.new_ones([len(x)])
    old_denoised = h_last = None
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma * s_in)
        callback(i, denoised)
        if sigma_next == 0:
            return denoised
        h = t_fn(sigma_next) - t_fn(sigma)
        eta_h = eta * h
        gain = (-h - eta_h).expm1().neg()  # the share of denoised in the new x
        x = sigma_next / sigma * (-eta_h).exp() * x + gain * denoised
        if old_denoised is not None:
            r = h_last / h
            weight = {"midpoint": 0.5 * gain, "heun": gain / (-h - eta_h) + 1}[solver_type]
            x = x + weight * (1 / r) * (denoised - old_denoised)
        if eta:
            x = x + noise_sampler(sigma, sigma_next) * sigma_next * (-2 * eta_h).expm1().neg().sqrt() * s_noise
        old_denoised, h_last = denoised, h
    return x
