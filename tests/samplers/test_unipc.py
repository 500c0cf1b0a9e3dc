"""UniPC against the exact solution for Gaussian data, whose eps is known."""

import math

import pytest
import torch

from pipeline.errors import InvalidRequest
from pipeline.samplers.unipc import SKIP_TYPES, ContinuousSchedule, phis, sample_unipc, times

ALPHAS = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)
SCHEDULE = ContinuousSchedule(ALPHAS)
SPREAD = 0.5
"""Standard deviation of the data."""


def gaussian(x, t):
    """The ideal eps at a fractional timestep for normal data of that spread."""
    t = (t + 1) / 1000
    alpha, sigma = SCHEDULE.log_alpha(t).exp(), SCHEDULE.sigma(t)
    return x * (sigma / (alpha**2 * SPREAD**2 + sigma**2)).reshape(-1, 1, 1, 1)


def run(steps, *, model=gaussian, last=901, **options):
    """From timestep `last` to 0, in the precision of x."""
    timesteps = torch.linspace(1, last, steps).round().long()
    x = torch.ones((2, 1, 1, 1), dtype=torch.float64)
    return sample_unipc(model, x, timesteps, alphas_cumprod=ALPHAS, **options)


def error(steps, **options):
    def spread(t):
        alpha, sigma = SCHEDULE.log_alpha(t).exp(), SCHEDULE.sigma(t)
        return (alpha**2 * SPREAD**2 + sigma**2).sqrt().item()

    exact = spread(torch.tensor([1 / 1000])) / spread(torch.tensor([902 / 1000]))
    return abs(run(steps, skip_type="logSNR", **options)[0].item() - exact)


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2])
def test_the_error_falls_with_at_least_the_predictor_s_order(variant, order):
    options = {"variant": variant, "order": order, "lower_order_final": False}
    assert error(12, **options) / error(24, **options) > 2**order


# what the authors' uni_pc.py (github.com/wl-zhao/UniPC) gives for this model and these timesteps

@pytest.mark.parametrize("variant, order, skip_type, lower_order_final, results", [
    ("bh1", 3, "time_uniform", True, [5.33849, -1.22400]),
    ("bh1", 3, "time_uniform", False, [5.29572, -1.41142]),
    ("bh1", 1, "time_uniform", True, [5.33722, -1.26157]),
    ("bh2", 2, "time_uniform", True, [5.34002, -1.23429]),
    ("bh2", 3, "time_quadratic", True, [5.37588, -1.33583]),
    ("bh1", 4, "logSNR", True, [5.33807, -1.27338]),
    ("vary_coeff", 1, "time_uniform", True, [5.33942, -1.28269]),
    ("vary_coeff", 2, "time_uniform", True, [5.33169, -1.24018]),
    ("vary_coeff", 3, "logSNR", True, [5.34752, -1.32021]),
])
def test_equals_the_authors_code(variant, order, skip_type, lower_order_final, results):
    def toy(x, t):
        return 0.7 * x.tanh() + 0.2 * (t / 1000).sin().reshape(-1, 1, 1, 1)

    x = torch.tensor([1.5, -0.5]).reshape(2, 1, 1, 1)
    result = sample_unipc(toy, x, torch.arange(1, 1000, 125), alphas_cumprod=ALPHAS.float(), variant=variant, order=order,
                          skip_type=skip_type, lower_order_final=lower_order_final)
    assert result.flatten().tolist() == pytest.approx(results, abs=5e-5)


def test_a_higher_order_is_closer():
    first, second, third = (error(16, order=order) for order in (1, 2, 3))
    assert third < second < first


@pytest.mark.parametrize("skip_type", SKIP_TYPES)
def test_times_go_from_the_start_to_the_first_timestep(skip_type):
    result = times(SCHEDULE, torch.tensor(0.8), 7, skip_type)
    assert len(result) == 8 and (result.diff() < 0).all()
    assert result[[0, -1]].tolist() == pytest.approx([0.8, 0.001], abs=1e-5)


def test_times_are_even_in_what_their_name_says():
    uniform, quadratic, snr = (times(SCHEDULE, torch.tensor(0.8), 7, skip_type) for skip_type in SKIP_TYPES)
    for even in (uniform, quadratic.sqrt(), SCHEDULE.lambda_(snr)):
        assert even.diff().std() < 1e-3 * even.diff().mean().abs()


@pytest.mark.parametrize("timestep", [0, 1, 500, 999])
def test_the_continuous_schedule_passes_through_the_network_s_timesteps(timestep):
    t = torch.tensor([(timestep + 1) / 1000])
    assert SCHEDULE.log_alpha(t).item() == pytest.approx(0.5 * math.log(ALPHAS[timestep]), rel=1e-4)
    assert SCHEDULE.time_of_lambda(SCHEDULE.lambda_(t)).item() == pytest.approx(t.item(), rel=1e-3)


def test_phis_are_the_remainders_of_exp():
    h = -0.7
    assert phis(h, 3) == pytest.approx([
        sum(h ** (j - k) / math.factorial(j) for j in range(k + 1, 20)) for k in (1, 2, 3)])


def test_the_model_is_asked_once_a_step_at_fractional_timesteps_but_never_at_the_last():
    asked = []
    run(4, last=376, order=3, model=lambda x, t: asked.append(t.tolist()) or gaussian(x, t))
    assert [t[0] for t in asked] == pytest.approx([376, 282, 188, 94], abs=1e-3)
    assert all(len(t) == 2 for t in asked)


def test_pure_noise_is_followed_from_the_network_s_last_timestep():
    asked = []
    run(4, model=lambda x, t: asked.append(t[0].item()) or gaussian(x, t), order=2, from_noise=True)
    assert asked[0] == pytest.approx(999)


def test_the_callback_is_called_once_a_step():
    seen = []
    run(5, callback=lambda step, denoised: seen.append((step, tuple(denoised.shape))))
    assert seen == [(step, (2, 1, 1, 1)) for step in range(5)]


def test_fewer_steps_than_the_order_are_refused():
    with pytest.raises(InvalidRequest, match="^steps: UniPC of order 3 needs at least 3 steps, but .* only 2 are run"):
        run(2)
    run(2, order=2)
