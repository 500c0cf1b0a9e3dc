"""Samplers that step through training timesteps instead of noise levels: model(x, t) gives eps; t is (B,).

Timesteps and alphas_cumprod are always on the CPU.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from pipeline.errors import InvalidRequest
from pipeline.samplers.solvers import Callback, Model, NoiseSampler, no_op, row_each


def ddim_timesteps(steps: int) -> Tensor:
    """Evenly spaced timesteps, ascending from 1, for 1 to 1000 steps.

    A1111: the spacing is rounded down, so there may be more than `steps` of them (16 for 15).
    """
    return (torch.arange(0, 1000, 1000 // steps) + 1).clamp(max=999)


def sample_ddim(model: Model, x: Tensor, timesteps: Tensor, *, alphas_cumprod: Tensor, callback: Callback = no_op,
                noise_sampler: NoiseSampler, eta: float = 0.0, uncond_eps: Callable[[], Tensor] | None = None) -> Tensor:
    """Equation 12 of Song et al. (2021). `timesteps` ascend; noise_sampler is called with (t, t_prev).

    uncond_eps: the latest call's eps for the negative prompt; it then sets the direction, as in CFG++ (Chung et al., 2024).

    A1111: each step goes from one timestep to the previous one, so the first timestep is only arrived at, and
    fewer than two leave x unchanged. Noise is drawn even if eta is 0.
    """
    if not 0 <= eta <= 1:
        raise InvalidRequest("eta", f"eta must be between 0 and 1 for DDIM, got {eta}")
    s_in = row_each(x)
    for i, (t, t_prev) in enumerate(pairwise(timesteps.flip(0))):
        alpha, alpha_prev = alphas_cumprod[t].item(), alphas_cumprod[t_prev].item()
        eps = model(x, t * s_in)
        denoised = predicted_x0(x, eps, alphas_cumprod[t])
        callback(i, denoised)
        sigma = eta * ((1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev)) ** 0.5
        direction = (1 - alpha_prev - sigma**2) ** 0.5 * (eps if uncond_eps is None else uncond_eps())
        x = alpha_prev**0.5 * denoised + direction + sigma * noise_sampler(t, t_prev)
    return x


def sample_plms(model: Model, x: Tensor, timesteps: Tensor, *, alphas_cumprod: Tensor,
                callback: Callback = no_op) -> Tensor:
    """Pseudo linear multistep of Liu et al. (2022): DDIM's steps with eps extrapolated from the last four calls.

    A1111: stops at the first timestep, like DDIM.
    """
    s_in = row_each(x)
    older: list[Tensor] = []  # the newest first
    for i, (t, t_prev) in enumerate(pairwise(timesteps.flip(0))):
        def step(eps: Tensor) -> tuple[Tensor, Tensor]:
            denoised = predicted_x0(x, eps, alphas_cumprod[t])
            alpha_prev = alphas_cumprod[t_prev].item()
            return alpha_prev**0.5 * denoised + (1 - alpha_prev) ** 0.5 * eps, denoised

        eps = model(x, t * s_in)
        if older:
            extrapolated = sum(weight * e for weight, e in zip(ADAMS_BASHFORTH[len(older)], [eps, *older]))
        else:
            extrapolated = (eps + model(step(eps)[0], t_prev * s_in)) / 2
        x, denoised = step(extrapolated)
        callback(i, denoised)
        older = [eps, *older[:2]]
    return x


ADAMS_BASHFORTH = {1: (3 / 2, -1 / 2), 2: (23 / 12, -16 / 12, 5 / 12), 3: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}
"""Weights of eps, newest first, by the number of older ones."""


def predicted_x0(x: Tensor, eps: Tensor, alpha: Tensor) -> Tensor:
    """The x0 estimate; `alpha` is alphas_cumprod at the timestep, in the precision to take roots in."""
    return (x - (1 - alpha).sqrt().item() * eps) / alpha.item() ** 0.5
