"""UniPC of Zhao et al. (2023): a multistep predictor, corrected by the next model call. Equations are the paper's.

Works in the continuous time of a discrete noise schedule: t is (timestep + 1) / 1000, with log alpha linear between
timesteps; x = alpha * data + sigma * noise, and lambda = log(alpha / sigma).
"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import InvalidRequest
from pipeline.samplers.solvers import Callback, Model, no_op

VARIANTS = ("bh1", "bh2", "vary_coeff")
SKIP_TYPES = ("time_uniform", "time_quadratic", "logSNR")


class ContinuousSchedule:
    """log alpha, sigma and lambda at any time between a network's timesteps; float32."""

    def __init__(self, alphas_cumprod: Tensor):
        self.log_alphas = (0.5 * alphas_cumprod.log()).float()
        self.times = torch.linspace(0.0, 1.0, len(alphas_cumprod) + 1, device=alphas_cumprod.device)[1:]

    def log_alpha(self, t: Tensor) -> Tensor:
        return interpolate(t, self.times, self.log_alphas)

    def sigma(self, t: Tensor) -> Tensor:
        return (1.0 - (2.0 * self.log_alpha(t)).exp()).sqrt()

    def lambda_(self, t: Tensor) -> Tensor:
        log_alpha = self.log_alpha(t)
        return log_alpha - 0.5 * (1.0 - (2.0 * log_alpha).exp()).log()

    def time_of_lambda(self, lambda_: Tensor) -> Tensor:
        log_alpha = -0.5 * torch.logaddexp(torch.zeros_like(lambda_), -2.0 * lambda_)
        return interpolate(log_alpha, self.log_alphas.flip(0), self.times.flip(0))


def interpolate(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """The piecewise linear function through ascending xs, extrapolated linearly."""
    right = torch.searchsorted(xs, x.contiguous()).clamp(1, len(xs) - 1)
    left = right - 1
    return ys[left] + (x - xs[left]) * (ys[right] - ys[left]) / (xs[right] - xs[left])


def times(schedule: ContinuousSchedule, start: Tensor, steps: int, skip_type: str) -> Tensor:
    """steps + 1 times from `start` down to the first timestep's, 1/1000."""
    end = 1 / 1000
    if skip_type == "logSNR":
        first, last = schedule.lambda_(torch.stack([start, start.new_tensor(end)])).tolist()
        return schedule.time_of_lambda(torch.linspace(first, last, steps + 1, device=start.device))
    if skip_type == "time_quadratic":
        return torch.linspace(start.item() ** 0.5, end**0.5, steps + 1, device=start.device) ** 2
    return torch.linspace(start.item(), end, steps + 1, device=start.device)


@dataclass(frozen=True)
class Estimate:
    """The model's output at a time."""

    denoised: Tensor
    lambda_: Tensor


def sample_unipc(model: Model, x: Tensor, timesteps: Tensor, *, alphas_cumprod: Tensor, callback: Callback = no_op,
                 variant: str = "bh1", skip_type: str = "time_uniform", order: int = 3,
                 lower_order_final: bool = True, from_noise: bool = False) -> Tensor:
    """UniPC that predicts the data. model(x, t) gives eps at fractional timesteps; `timesteps` ascend.

    lower_order_final: lower the order to 1 towards the end. from_noise: x is pure noise, so all of the network's
    timesteps are gone through.
    A1111: otherwise it starts at the last of `timesteps`, although x is as noisy as the one after it. The steps in between
    are its own.
    """
    steps = len(timesteps)
    if steps < order:
        raise InvalidRequest("steps", f"steps: UniPC of order {order} needs at least {order} steps, but at this "
                                      f"denoising_strength only {steps} are run")
    schedule = ContinuousSchedule(alphas_cumprod)

    def estimate(x: Tensor, t: Tensor) -> Estimate:
        eps = model(x, ((t - 1 / 1000) * 1000).expand(len(x)))
        denoised = (x - schedule.sigma(t) * eps) / schedule.log_alpha(t).exp()
        return Estimate(denoised, schedule.lambda_(t))

    ts = times(schedule, schedule.times[-1] if from_noise else timesteps[-1] / 1000 + 1 / 1000, steps, skip_type)
    estimates = [estimate(x, ts[0])]  # the newest last
    for step in range(1, steps + 1):
        t_prev, t = ts[step - 1], ts[step]
        this_order = min(order, steps + 1 - step) if lower_order_final and step >= order else min(order, step)
        update = partial(advance, schedule, x, t_prev, t, estimates[-this_order:], variant=variant)
        x = update()
        if step < steps:
            new = estimate(x, t)
            x = update(new=new)
            estimates = [*estimates[-(order - 1):], new] if order > 1 else [new]
        callback(step - 1, estimates[-1].denoised)
    return x


def advance(schedule: ContinuousSchedule, x: Tensor, t_prev: Tensor, t: Tensor, estimates: list[Estimate], *, variant: str,
            new: Estimate | None = None) -> Tensor:
    """x at t, of order len(estimates), from x at t_prev, the time of the last estimate.

    With the `new` estimate at the predicted x, this is the corrector, of one order more.
    """
    latest = estimates[-1]
    h = schedule.lambda_(t) - latest.lambda_
    alpha, hh = schedule.log_alpha(t).exp(), -h
    x = schedule.sigma(t) / schedule.sigma(t_prev) * x - alpha * hh.expm1() * latest.denoised
    earlier = estimates[-2::-1]
    ratios = [((other.lambda_ - latest.lambda_) / h).item() for other in earlier]
    differences = [(other.denoised - latest.denoised) / ratio for other, ratio in zip(earlier, ratios)]
    if new is not None:
        ratios, differences = [*ratios, 1.0], [*differences, new.denoised - latest.denoised]
    if variant == "vary_coeff":
        weights = varying_weights(ratios, hh.item(), corrects=new is not None)
    else:
        weights = fixed_weights(ratios, hh.item(), hh.item() if variant == "bh1" else hh.expm1().item())
    return x - alpha * sum(weight * difference for weight, difference in zip(weights, differences))


def phis(hh: float, count: int) -> list[float]:
    """hh * phi_2(hh), hh * phi_3(hh), …: Taylor remainders of exp, each divided by one power of hh less than its own."""
    values, value, factorial = [], math.expm1(hh), 1
    for k in range(1, count + 1):
        value = value / hh - 1 / factorial
        factorial *= k + 1
        values.append(value)
    return values


def fixed_weights(ratios: list[float], hh: float, b_h: float) -> list[float]:
    """The weights of UniPC-bh1 and bh2, where B(h) is h or exp(h) - 1; a single one is 1/2, as in the paper."""
    count = len(ratios)
    if count <= 1:
        return [0.5 * b_h] * count
    rows = np.array([[ratio**power for ratio in ratios] for power in range(count)])
    right = [phi * math.factorial(i + 1) / b_h for i, phi in enumerate(phis(hh, count))]
    return [b_h * weight for weight in np.linalg.solve(rows, right)]


def varying_weights(ratios: list[float], hh: float, *, corrects: bool) -> list[float]:
    """The weights of UniPC-v, which depend on the step's length beyond B(h).

    A1111: like its authors' code, a corrector's last row of coefficients is left out; the new estimate takes the row before.
    """
    count = len(ratios)
    if not count:
        return []
    columns = np.array([[ratio**k / math.factorial(k + 1) for k in range(count)] for ratio in ratios])
    rows, phi = np.linalg.inv(columns), np.array(phis(hh, count))
    if not corrects or count == 1:
        return list(phi @ rows)
    return [*(phi[:-1] @ rows[:-1, :-1]), phi[-1] * rows[-2, -1]]
