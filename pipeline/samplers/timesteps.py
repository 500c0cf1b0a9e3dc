"""Samplers that step through training timesteps, not noise levels: model(x, t) gives eps; t is (B,)."""

import torch
from torch import Tensor

from pipeline.errors import InvalidRequest
from pipeline.samplers.solvers import Callback, Model, NoiseSampler, no_op


def ddim_timesteps(steps: int) -> Tensor:
    """Evenly spaced timesteps, ascending from 1, for 1 to 1000 steps.

    A1111: the spacing is rounded down, so there may be more of them than `steps` (16 for 15).
    """
    return (torch.arange(0, 1000, 1000 // steps) + 1).clamp(max=999)


def sample_ddim(model: Model, x: Tensor, timesteps: Tensor, *, alphas_cumprod: Tensor, callback: Callback = no_op,
                noise_sampler: NoiseSampler, eta: float = 0.0) -> Tensor:
    """Equation 12 of Song et al. (2021). `timesteps` ascend; noise_sampler is asked for (t, t_prev).

    A1111: each step goes from one timestep to the one before it, so the first timestep is only arrived at, and
    fewer than two leave x as it is. Noise is drawn even where eta is 0.
    """
    if not 0 <= eta <= 1:
        raise InvalidRequest("eta", f"eta must be between 0 and 1 for DDIM, got {eta}")
    s_in = x.new_ones([len(x)])
    descending = timesteps.flip(0)
    for i, (t, t_prev) in enumerate(zip(descending[:-1], descending[1:])):
        alpha, alpha_prev = alphas_cumprod[t].item(), alphas_cumprod[t_prev].item()
        eps = model(x, t * s_in)
        denoised = (x - (1 - alpha) ** 0.5 * eps) / alpha**0.5
        callback(i, denoised)
        sigma = eta * ((1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev)) ** 0.5
        direction = (1 - alpha_prev - sigma**2) ** 0.5 * eps
        x = alpha_prev**0.5 * denoised + direction + sigma * noise_sampler(t, t_prev)
    return x
