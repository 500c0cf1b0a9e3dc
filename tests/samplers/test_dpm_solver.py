"""DPM fast and DPM adaptive, against k-diffusion and against the exact solution for Gaussian data."""

import math
from itertools import pairwise

import pytest
import torch

from pipeline.errors import InvalidRequest
from pipeline.samplers.dpm_solver import fast_orders, noise_prediction, sample_dpm_adaptive, sample_dpm_fast, solver_step
from tests.oracles.k_diffusion import k_diffusion_sampling

X = torch.randn((2, 4, 3, 3), generator=torch.Generator().manual_seed(0)) * 14.6


def schedule(steps, low=0.03, high=14.6):
    return torch.cat([torch.linspace(math.log(high), math.log(low), steps).exp(), torch.zeros(1)])


def toy(x, sigma):
    """A smooth nonlinear model."""
    sigma = sigma.reshape(-1, 1, 1, 1)
    return 0.8 * (x / (1 + sigma**2).sqrt()).tanh() + 0.1 * sigma.sin()


def gaussian(x, sigma):
    """The ideal denoiser of standard normal data."""
    return x / (sigma.reshape(-1, 1, 1, 1) ** 2 + 1)


def recorded_noise():
    generator = torch.Generator().manual_seed(1)
    return lambda *_: torch.randn(X.shape, generator=generator)


@pytest.mark.parametrize("steps", [2, 3, 4, 5, 6, 14])
@pytest.mark.parametrize("options", [{}, {"eta": 1.0}, {"eta": 0.4, "s_noise": 0.9}])
def test_fast_equals_k_diffusion_bit_for_bit(steps, options):
    sigmas = schedule(steps)
    oracle = k_diffusion_sampling().sample_dpm_fast(toy, X, sigmas[-2].item(), sigmas[0].item(), steps, disable=True,
                                                    noise_sampler=recorded_noise(), **options)
    assert torch.equal(sample_dpm_fast(toy, X, sigmas, noise_sampler=recorded_noise(), **options), oracle)


@pytest.mark.parametrize("options", [{}, {"eta": 1.0}, {"eta": 0.4, "s_noise": 0.9}, {"rtol": 0.2, "atol": 0.001}])
def test_adaptive_equals_k_diffusion(options):
    sigmas = schedule(8)
    oracle = k_diffusion_sampling().sample_dpm_adaptive(toy, X, sigmas[-2].item(), sigmas[0].item(), disable=True,
                                                        noise_sampler=recorded_noise(), **options)
    ours = sample_dpm_adaptive(toy, X, sigmas, noise_sampler=recorded_noise(), **options)
    assert torch.allclose(ours, oracle, atol=1e-5)


@pytest.mark.parametrize("calls, orders", [
    (1, [1]), (2, [2]), (3, [2, 1]), (4, [3, 1]), (5, [3, 2]), (6, [3, 2, 1]), (7, [3, 3, 1])])
def test_fast_has_steps_of_third_order_and_a_rest(calls, orders):
    assert fast_orders(calls) == orders


@pytest.mark.parametrize("steps", [2, 3, 7])
def test_fast_makes_as_many_model_calls_as_there_are_steps(steps):
    asked = []
    sample_dpm_fast(lambda x, sigma: asked.append(sigma) or toy(x, sigma), X, schedule(steps), noise_sampler=recorded_noise())
    assert len(asked) == steps


def error(solve):
    """How far solve(x, sigmas) ends from the exact solution, going from sigma 10 to 0.1."""
    result = solve(torch.full((1, 1, 1, 1), 10.0, dtype=torch.float64), schedule(8, 0.1, 10.0).double())
    return abs(result.item() - 10 * math.sqrt((0.1**2 + 1) / (10**2 + 1)))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_halving_the_step_halves_the_error_once_per_order(order):
    def solve(steps):
        def run(x, sigmas):
            eps_fn = noise_prediction(gaussian)
            for t, t_next in pairwise(torch.linspace(-math.log(10), -math.log(0.1), steps + 1, dtype=torch.float64)):
                x = solver_step(eps_fn, x, eps_fn(x, t), t, t_next, order)
            return x
        return run

    assert error(solve(64)) / error(solve(128)) == pytest.approx(2**order, rel=0.15)


def adaptive(**options):
    return lambda x, sigmas: sample_dpm_adaptive(gaussian, x, sigmas, noise_sampler=lambda *_: 0.0, **options)


def test_a_lower_tolerance_brings_adaptive_closer():
    assert error(adaptive(rtol=0.005, atol=0.0008)) < error(adaptive()) / 4


def test_adaptive_asks_no_number_of_steps():
    few, many = (sample_dpm_adaptive(toy, X, schedule(steps), noise_sampler=recorded_noise()) for steps in (2, 50))
    assert torch.allclose(few, many, atol=1e-5)


@pytest.mark.parametrize("solver", [sample_dpm_fast, sample_dpm_adaptive])
def test_the_last_level_but_one_is_where_they_end(solver):
    seen = []
    solver(lambda x, sigma: seen.append(sigma.min().item()) or toy(x, sigma), X, schedule(6), noise_sampler=recorded_noise())
    assert min(seen) >= 0.03


@pytest.mark.parametrize("solver", [sample_dpm_fast, sample_dpm_adaptive])
def test_a_single_level_is_refused(solver):
    with pytest.raises(InvalidRequest, match="^denoising_strength: DPM fast and DPM adaptive need at least two noise levels"):
        solver(toy, X, schedule(1), noise_sampler=recorded_noise())
