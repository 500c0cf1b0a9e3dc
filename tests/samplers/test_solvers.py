import math
import random
from itertools import pairwise

import pytest
import torch

from pipeline.samplers import solvers
from pipeline.samplers.lcm import sample_lcm
from tests.oracles.k_diffusion import k_diffusion_sampling

SIGMAS = [14.6, 8.0, 4.2, 2.1, 1.0, 0.45, 0.2, 0.03, 0.0]

# (solver, options, result of the scalar toy model)
CASES = [
    ("sample_euler", {}, 0.3923501821),
    ("sample_euler", {"s_churn": 3.0, "s_noise": 1.05}, -0.4325742943),
    ("sample_heun", {"s_churn": 2.0}, -0.0989747326),
    ("sample_euler_ancestral", {}, -0.4139143760),
    ("sample_euler_ancestral", {"eta": 0.6}, -0.4120765822),
    ("sample_dpm_2", {}, 0.2742063730),
    ("sample_dpm_2_ancestral", {}, 0.2142626397),
    ("sample_dpmpp_2s_ancestral", {"s_noise": 0.9}, -0.3103544634),
    ("sample_dpmpp_sde", {}, -0.2292589347),
    ("sample_dpmpp_sde", {"eta": 0.5}, -0.3604428896),
    ("sample_dpmpp_2m", {}, 0.3417235432),
    ("sample_dpmpp_2m_sde", {}, -0.4332917099),
    ("sample_dpmpp_2m_sde", {"solver_type": "heun", "eta": 0.7}, -0.4431265035),
    ("sample_dpmpp_3m_sde", {}, -0.2954395256),
    ("sample_dpmpp_3m_sde", {"eta": 0.0}, 0.2664820565),
]
ORACLE_CASES = [(name, options) for name, options, _ in CASES] + [
    ("sample_euler", {"s_churn": 3.0, "s_tmin": 0.3, "s_tmax": 5.0}),
    ("sample_heun", {"s_churn": 90.0, "s_tmin": 0.3, "s_tmax": 5.0, "s_noise": 0.9}),
    ("sample_dpm_2", {"s_churn": 9.0, "s_tmin": 0.3, "s_tmax": 5.0, "s_noise": 0.9}),
    ("sample_euler_ancestral", {"eta": 0.0}),
    ("sample_euler_ancestral", {"s_noise": 0.9}),
    ("sample_dpm_2_ancestral", {"eta": 0.4, "s_noise": 0.9}),
    ("sample_dpmpp_2s_ancestral", {"eta": 0.4}),
    ("sample_dpmpp_3m_sde", {"eta": 0.4, "s_noise": 0.9}),
    ("sample_dpmpp_sde", {"r": 0.4, "s_noise": 0.9}),
    ("sample_dpmpp_2m_sde", {"eta": 0.0}),
    ("sample_dpmpp_2m_sde", {"s_noise": 0.9}),
]
SOLVERS = [*dict.fromkeys(name for name, *_ in CASES), "sample_lms"]
CHURNED = ("sample_euler", "sample_heun", "sample_dpm_2")
NOISELESS = ("sample_dpmpp_2m", "sample_lms")


def toy(x, sigma):
    """A smooth nonlinear model."""
    sigma = sigma.reshape(-1, *[1] * (x.ndim - 1))
    return 0.8 * (x / (1 + sigma**2).sqrt()).tanh() + 0.1 * sigma.sin()


def gaussian(x, sigma):
    """The ideal denoiser of standard normal data."""
    return x / (sigma.reshape(-1, *[1] * (x.ndim - 1)) ** 2 + 1)


def run(name, model, x, sigmas, noise_sampler, **options):
    """The solver's result. Those that have no noise at all are not given a noise sampler."""
    if name not in NOISELESS:
        options["noise_sampler"] = noise_sampler
    return getattr(solvers, name)(model, x, sigmas, **options)


def no_noise(sigma, sigma_next):
    return torch.zeros(())


def recorded_noise(x):
    """A noise sampler that gives every user the same sequence."""
    generator = torch.Generator().manual_seed(1)
    return lambda *_: torch.randn(x.shape, generator=generator)


@pytest.mark.parametrize("name, options, result", CASES)
def test_scalar_toy_model(name, options, result):
    gauss = random.Random(5).gauss
    x = run(name, toy, torch.tensor([[9.7]], dtype=torch.float64), torch.tensor(SIGMAS, dtype=torch.float64),
            lambda *_: torch.tensor(gauss(0, 1), dtype=torch.float64), **options)
    assert x.item() == pytest.approx(result, abs=1e-9)


@pytest.mark.parametrize("name, options", ORACLE_CASES)
@pytest.mark.parametrize("model", [toy, gaussian])
def test_equals_k_diffusion_bit_for_bit(name, options, model, monkeypatch):
    x = torch.randn((2, 4, 3, 3), generator=torch.Generator().manual_seed(0)) * SIGMAS[0]
    ours = run(name, model, x, torch.tensor(SIGMAS), recorded_noise(x), **options)
    oracle = getattr(k_diffusion_sampling(), name)
    if name in CHURNED:
        monkeypatch.setattr(torch, "randn_like", recorded_noise(x))
    elif name not in NOISELESS:
        options = options | {"noise_sampler": recorded_noise(x)}
    assert torch.equal(ours, oracle(model, x, torch.tensor(SIGMAS), disable=True, **options))


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("model", [toy, gaussian])
def test_lms_equals_k_diffusion_which_integrates_numerically(model, order):
    x = torch.randn((2, 4, 3, 3), generator=torch.Generator().manual_seed(0)) * SIGMAS[0]
    oracle = k_diffusion_sampling().sample_lms(model, x, torch.tensor(SIGMAS), disable=True, order=order)
    assert torch.allclose(solvers.sample_lms(model, x, torch.tensor(SIGMAS), order=order), oracle, atol=1e-5)


def test_the_weights_of_lms_integrate_polynomials_exactly():
    nodes = [1.0, 1.5, 2.5, 4.0]
    weights = solvers.lagrange_integrals(nodes, 1.0, 0.3)
    assert sum(weight * node**3 for weight, node in zip(weights, nodes)) == pytest.approx((0.3**4 - 1) / 4)


# the probability-flow ODE of Gaussian data: x(sigma) = x(sigma_0) * sqrt((sigma^2 + 1) / (sigma_0^2 + 1))

def gaussian_error(name, steps, **options):
    """How far the solver ends from the exact solution, going from sigma 10 to 0.1 in even steps of log sigma."""
    sigmas = torch.linspace(math.log(10), math.log(0.1), steps + 1, dtype=torch.float64).exp()
    x = torch.ones((1, 1), dtype=torch.float64) * 10
    exact = 10 * math.sqrt((0.1**2 + 1) / (10**2 + 1))
    return abs(run(name, gaussian, x, sigmas, no_noise, **options).item() - exact)


@pytest.mark.parametrize("name, options, order", [
    ("sample_euler", {}, 1),
    ("sample_euler_ancestral", {"eta": 0.0}, 1),
    ("sample_heun", {}, 2),
    ("sample_dpm_2", {}, 2),
    ("sample_dpm_2_ancestral", {"eta": 0.0}, 2),
    ("sample_dpmpp_2s_ancestral", {"eta": 0.0}, 2),
    ("sample_dpmpp_sde", {"eta": 0.0}, 2),
    ("sample_dpmpp_2m", {}, 2),
    ("sample_dpmpp_2m_sde", {"eta": 0.0}, 2),
    ("sample_dpmpp_2m_sde", {"eta": 0.0, "solver_type": "heun"}, 2),
])
def test_halving_the_step_halves_the_error_once_per_order(name, options, order):
    ratio = gaussian_error(name, 64, **options) / gaussian_error(name, 128, **options)
    assert ratio == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize("name", [
    "sample_euler_ancestral", "sample_dpm_2_ancestral", "sample_dpmpp_2s_ancestral", "sample_dpmpp_sde",
    "sample_dpmpp_2m_sde", "sample_dpmpp_3m_sde"])
def test_stochastic_solvers_end_with_the_variance_of_the_data(name):
    sigmas = torch.cat([torch.linspace(math.log(20), math.log(0.02), 60).exp(), torch.zeros(1)])
    x = torch.randn((20000, 1), generator=torch.Generator().manual_seed(2)) * 20
    assert run(name, gaussian, x, sigmas, recorded_noise(x)).std().item() == pytest.approx(1, abs=0.06)


# what the caller relies on

@pytest.mark.parametrize("name", SOLVERS)
def test_callback_sees_the_first_estimate_of_each_step_before_the_next_model_call(name):
    log = []

    def model(x, sigma):
        log.append((sigma[0].item(), toy(x, sigma)))
        return log[-1][1]

    seen = []
    run(name, model, torch.ones((1, 1)), torch.tensor(SIGMAS), no_noise,
        callback=lambda step, denoised: seen.append((step, *log[-1], denoised)))
    assert [step for step, *_ in seen] == list(range(8))
    assert [sigma for _, sigma, *_ in seen] == pytest.approx(SIGMAS[:-1])
    assert all(denoised is last for *_, last, denoised in seen)


@pytest.mark.parametrize("name", SOLVERS)
def test_model_gets_one_sigma_per_image(name):
    shapes = set()

    def model(x, sigma):
        shapes.add(tuple(sigma.shape))
        return gaussian(x, sigma)

    run(name, model, torch.ones((3, 4, 2, 2)), torch.tensor(SIGMAS), no_noise)
    assert shapes == {(3,)}


@pytest.mark.parametrize("name", SOLVERS)
def test_a_single_step_to_zero_gives_the_estimate(name):
    x = torch.full((1, 1), 3.0)
    result = run(name, toy, x, torch.tensor([2.0, 0.0]), no_noise)
    assert torch.allclose(result, toy(x, torch.tensor([2.0])))


@pytest.mark.parametrize("name", SOLVERS)
def test_the_start_latent_is_not_written_to(name):
    x = torch.ones((1, 1))
    run(name, toy, x, torch.tensor(SIGMAS), no_noise)
    assert x.item() == 1


@pytest.mark.parametrize("name", CHURNED)
def test_noise_is_drawn_once_a_step_even_without_churn(name):
    draws = []
    run(name, toy, torch.ones((1, 1)), torch.tensor(SIGMAS), lambda *levels: draws.append(levels) or torch.zeros(()))
    assert len(draws) == 8


@pytest.mark.parametrize("name", CHURNED)
def test_without_churn_no_noise_sampler_is_needed(name):
    assert getattr(solvers, name)(toy, torch.ones((1, 1)), torch.tensor(SIGMAS)).isfinite()


@pytest.mark.parametrize("name", [
    "sample_euler_ancestral", "sample_dpm_2_ancestral", "sample_dpmpp_2s_ancestral", "sample_dpmpp_2m_sde",
    "sample_dpmpp_3m_sde"])
def test_ancestral_noise_is_asked_for_the_levels_of_the_step_but_never_for_zero(name):
    asked, sigmas = [], torch.tensor(SIGMAS)
    run(name, toy, torch.ones((1, 1)), sigmas, lambda *levels: asked.append(levels) or torch.zeros(()))
    assert asked == list(pairwise(sigmas))[:-1]


def test_consistency_sampling_jumps_to_the_estimate_and_adds_the_next_level_s_noise():
    jumps = []

    def model(x, sigma):
        jumps.append((x.item(), sigma.item()))
        return x * 0 + len(jumps)

    result = sample_lcm(model, torch.full((1, 1), 5.0), torch.tensor([3.0, 2.0, 0.0]), noise_sampler=lambda *_: 10.0)
    assert jumps == [(5.0, 3.0), (1 + 2 * 10.0, 2.0)]
    assert result.item() == 2
