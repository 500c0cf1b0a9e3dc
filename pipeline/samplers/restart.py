"""The Restart sampler of Xu et al. (2023): Heun's method that repeatedly goes back up by adding noise."""

from itertools import pairwise

from torch import Tensor

from pipeline.samplers.schedules import karras
from pipeline.samplers.solvers import Callback, Model, NoiseSampler, no_op, row_each, to_d

RESTART_FROM, RESTART_TO = 0.1, 2.0
"""Sigmas between which restarts go back up."""


def sample_restart(model: Model, x: Tensor, sigmas: Tensor, *, callback: Callback = no_op,
                   noise_sampler: NoiseSampler) -> Tensor:
    """Heun steps along `restart_steps`, adding noise if a step starts above the previous one's end."""
    s_in = row_each(x)
    last = sigmas[0]
    for i, (sigma, sigma_next) in enumerate(restart_steps(sigmas)):
        if last < sigma:
            x = x + noise_sampler(last, sigma) * (sigma**2 - last**2) ** 0.5
        denoised = model(x, sigma * s_in)
        callback(i, denoised)
        d = to_d(x, sigma, denoised)
        dt = sigma_next - sigma
        if sigma_next == 0:
            # Euler method
            x = x + d * dt
        else:
            # Heun's method
            x_2 = x + d * dt
            d_2 = to_d(x_2, sigma_next, model(x_2, sigma_next * s_in))
            x = x + (d + d_2) / 2 * dt
        last = sigma_next
    return x


def restart_steps(sigmas: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(from, to) of every step. From 20 steps on, some are spent on restarts.

    A1111: the others then follow Karras et al.'s schedule, whatever schedule was requested.
    """
    steps = len(sigmas) - 1
    if steps < 20:
        return list(pairwise(sigmas))
    count, times = (steps // 4, 2) if steps >= 36 else (9, 1)
    sigmas = karras(steps - count * times, sigmas[-2].item(), sigmas[0].item()).to(sigmas)
    low, high = ((sigmas - level).abs().argmin().item() for level in (RESTART_FROM, RESTART_TO))
    main = list(pairwise(sigmas))
    if high >= low:
        return main
    restart = karras(count + 1, sigmas[low].item(), sigmas[high].item())[:-1].to(sigmas)
    return main[:low] + list(pairwise(restart)) * times + main[low:]
