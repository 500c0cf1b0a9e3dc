"""Solvers of the diffusion ODE and SDE, after k-diffusion (Katherine Crowson, MIT licence).

A solver takes the noisy latent x (B, C, h, w) down along `sigmas`; model(x, sigma) gives `denoised`; sigma is (B,).
Noise levels are always on the CPU, so that a solver can branch on them without waiting for the device.
Operations follow k-diffusion's order, so float32 results agree. All randomness comes from `noise_sampler`.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

Model = Callable[[Tensor, Tensor], Tensor]
NoiseSampler = Callable[[Tensor, Tensor], Tensor]
"""(sigma, sigma_next) → standard normals like x."""
Callback = Callable[[int, Tensor], None]
"""(step, denoised), called once per step, after the step's first model call and before x moves."""


def no_op(step: int, denoised: Tensor) -> None:
    """A callback that does nothing."""


def row_each(x: Tensor) -> Tensor:
    """(B,) ones on the CPU, to give each picture of x its noise level."""
    return x.new_ones([len(x)], device="cpu")


def to_d(x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """The derivative of x by sigma, given a denoised estimate."""
    return (x - denoised) / sigma


def ancestral_step(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """(sigma_down, sigma_up): step down to sigma_down, then add noise of sigma_up to arrive at sigma_next."""
    if not eta:
        return sigma_next, torch.zeros_like(sigma_next)
    sigma_up = torch.minimum(
        sigma_next, eta * (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5)
    return (sigma_next**2 - sigma_up**2) ** 0.5, sigma_up


def churn_gamma(sigma: Tensor, steps: int, s_churn: float, s_tmin: float, s_tmax: float) -> float:
    """The fraction by which sigma is raised before the step."""
    return min(s_churn / steps, 2**0.5 - 1) if s_tmin <= sigma <= s_tmax else 0.0


def raise_noise(x: Tensor, sigma: Tensor, gamma: float, noise: Tensor | None) -> tuple[Tensor, Tensor]:
    """(x with noise added to go from sigma to sigma_hat = sigma * (1 + gamma), sigma_hat)."""
    sigma_hat = sigma * (gamma + 1)
    if gamma > 0:
        x = x + noise * (sigma_hat**2 - sigma**2) ** 0.5
    return x, sigma_hat


def sample_euler(model: Model, x: Tensor, sigmas: Tensor, *, callback: Callback = no_op,
                 noise_sampler: NoiseSampler | None = None, s_churn: float = 0.0, s_tmin: float = 0.0,
                 s_tmax: float = math.inf, s_noise: float = 1.0) -> Tensor:
    """Algorithm 2 (Euler steps) of Karras et al. (2022). Churn needs the noise_sampler."""
    s_in = row_each(x)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        gamma = churn_gamma(sigma, len(sigmas) - 1, s_churn, s_tmin, s_tmax)
        # A1111: one draw per step even if churn is 0
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
    s_in = row_each(x)
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
    s_in = row_each(x)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        gamma = churn_gamma(sigma, len(sigmas) - 1, s_churn, s_tmin, s_tmax)
        # A1111: one draw per step even if churn is 0
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


def midpoint_step(model: Model, x: Tensor, sigma: Tensor, sigma_next: Tensor, d: Tensor) -> Tensor:
    """DPM-Solver-2: x moved by the derivative at the midpoint in log sigma; d is the one at sigma."""
    sigma_mid = sigma.log().lerp(sigma_next.log(), 0.5).exp()
    x_2 = x + d * (sigma_mid - sigma)
    d_2 = to_d(x_2, sigma_mid, model(x_2, sigma_mid * row_each(x)))
    return x + d_2 * (sigma_next - sigma)


def sample_dpm_2(model: Model, x: Tensor, sigmas: Tensor, *, callback: Callback = no_op,
                 noise_sampler: NoiseSampler | None = None, s_churn: float = 0.0, s_tmin: float = 0.0,
                 s_tmax: float = math.inf, s_noise: float = 1.0) -> Tensor:
    """DPM-Solver-2 of Lu et al. (2022), with the churn of Karras et al. (2022), which needs the noise_sampler."""
    s_in = row_each(x)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        gamma = churn_gamma(sigma, len(sigmas) - 1, s_churn, s_tmin, s_tmax)
        # A1111: one draw per step even if churn is 0
        noise = noise_sampler(sigma, sigma_next) * s_noise if noise_sampler else None
        x, sigma_hat = raise_noise(x, sigma, gamma, noise)
        denoised = model(x, sigma_hat * s_in)
        callback(i, denoised)
        d = to_d(x, sigma_hat, denoised)
        if sigma_next == 0:
            # Euler method
            x = x + d * (sigma_next - sigma_hat)
        else:
            x = midpoint_step(model, x, sigma_hat, sigma_next, d)
    return x


def sample_dpm_2_ancestral(model: Model, x: Tensor, sigmas: Tensor, *, callback: Callback = no_op,
                           noise_sampler: NoiseSampler, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """Ancestral sampling with DPM-Solver-2 steps."""
    s_in = row_each(x)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma * s_in)
        callback(i, denoised)
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        d = to_d(x, sigma, denoised)
        if sigma_down == 0:
            # Euler method
            x = x + d * (sigma_down - sigma)
        else:
            x = midpoint_step(model, x, sigma, sigma_down, d)
            x = x + noise_sampler(sigma, sigma_next) * s_noise * sigma_up
    return x


def sample_lms(model: Model, x: Tensor, sigmas: Tensor, *, callback: Callback = no_op, order: int = 4) -> Tensor:
    """Linear multistep: the last `order` derivatives as a polynomial of sigma (Adams-Bashforth)."""
    s_in = row_each(x)
    levels = sigmas.tolist()
    ds: list[Tensor] = []  # the newest first
    for i, sigma in enumerate(sigmas[:-1]):
        denoised = model(x, sigma * s_in)
        callback(i, denoised)
        ds = [to_d(x, sigma, denoised), *ds[:order - 1]]
        nodes = levels[i::-1][:len(ds)]
        x = x + sum(weight * d for weight, d in zip(lagrange_integrals(nodes, levels[i], levels[i + 1]), ds))
    return x


def lagrange_integrals(nodes: list[float], start: float, end: float) -> list[float]:
    """For each node, the integral over start..end of its Lagrange basis polynomial."""
    integrals = []
    for k, node in enumerate(nodes):
        others = nodes[:k] + nodes[k + 1:]
        antiderivative = np.polyint(np.atleast_1d(np.poly(others)) / np.prod([node - other for other in others]))
        integrals.append(float(np.polyval(antiderivative, end) - np.polyval(antiderivative, start)))
    return integrals


# DPM-Solver++ steps in t = -log(sigma)

def t_fn(sigma: Tensor) -> Tensor:
    return sigma.log().neg()


def sigma_fn(t: Tensor) -> Tensor:
    return t.neg().exp()


def sample_dpmpp_2s_ancestral(model: Model, x: Tensor, sigmas: Tensor, *, callback: Callback = no_op,
                              noise_sampler: NoiseSampler, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """Ancestral sampling with DPM-Solver++(2S) steps, of Lu et al. (2022)."""
    s_in = row_each(x)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma * s_in)
        callback(i, denoised)
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        if sigma_down == 0:
            # Euler method
            x = x + to_d(x, sigma, denoised) * (sigma_down - sigma)
        else:
            t, t_next = t_fn(sigma), t_fn(sigma_down)
            r = 1 / 2
            h = t_next - t
            s = t + r * h
            x_2 = sigma_fn(s) / sigma_fn(t) * x - (-h * r).expm1() * denoised
            denoised_2 = model(x_2, sigma_fn(s) * s_in)
            x = sigma_fn(t_next) / sigma_fn(t) * x - (-h).expm1() * denoised_2
        if sigma_next > 0:
            x = x + noise_sampler(sigma, sigma_next) * s_noise * sigma_up
    return x


def sample_dpmpp_sde(model: Model, x: Tensor, sigmas: Tensor, *, callback: Callback = no_op,
                     noise_sampler: NoiseSampler, eta: float = 1.0, s_noise: float = 1.0, r: float = 0.5) -> Tensor:
    """DPM-Solver++ (stochastic), of Lu et al. (2022): second order, with a model call at fraction r of the step."""
    s_in = row_each(x)
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
    s_in = row_each(x)
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
    s_in = row_each(x)
    old_denoised = h_last = None
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma * s_in)
        callback(i, denoised)
        if sigma_next == 0:
            return denoised
        h = t_fn(sigma_next) - t_fn(sigma)
        eta_h = eta * h
        gain = (-h - eta_h).expm1().neg()  # the weight of denoised in the new x
        x = sigma_next / sigma * (-eta_h).exp() * x + gain * denoised
        if old_denoised is not None:
            r = h_last / h
            weight = {"midpoint": 0.5 * gain, "heun": gain / (-h - eta_h) + 1}[solver_type]
            x = x + weight * (1 / r) * (denoised - old_denoised)
        if eta:
            x = x + noise_sampler(sigma, sigma_next) * sigma_next * (-2 * eta_h).expm1().neg().sqrt() * s_noise
        old_denoised, h_last = denoised, h
    return x


def sample_dpmpp_3m_sde(model: Model, x: Tensor, sigmas: Tensor, *, callback: Callback = no_op,
                        noise_sampler: NoiseSampler, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """DPM-Solver++(3M) SDE."""
    s_in = row_each(x)
    denoised_1 = denoised_2 = h_1 = h_2 = None  # from the last step and the one before
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma * s_in)
        callback(i, denoised)
        if sigma_next == 0:
            return denoised
        h = t_fn(sigma_next) - t_fn(sigma)
        h_eta = h * (eta + 1)
        x = (-h_eta).exp() * x + (-h_eta).expm1().neg() * denoised
        phi_2 = h_eta.neg().expm1() / h_eta + 1
        if h_2 is not None:
            r0, r1 = h_1 / h, h_2 / h
            d1_0 = (denoised - denoised_1) / r0
            d1_1 = (denoised_1 - denoised_2) / r1
            d1 = d1_0 + (d1_0 - d1_1) * r0 / (r0 + r1)
            d2 = (d1_0 - d1_1) / (r0 + r1)
            phi_3 = phi_2 / h_eta - 0.5
            x = x + phi_2 * d1 - phi_3 * d2
        elif h_1 is not None:
            x = x + phi_2 * ((denoised - denoised_1) / (h_1 / h))
        if eta:
            x = x + noise_sampler(sigma, sigma_next) * sigma_next * (-2 * h * eta).expm1().neg().sqrt() * s_noise
        denoised_1, denoised_2 = denoised, denoised_1
        h_1, h_2 = h, h_1
    return x
