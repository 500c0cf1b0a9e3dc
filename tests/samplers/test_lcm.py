"""The noise levels of latent consistency models and what their output means."""

import pytest
import torch

from pipeline.samplers.lcm import LCMSchedule
from pipeline.samplers.schedules import SCHEDULES

ALPHAS = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0).float()
SCHEDULE = LCMSchedule(ALPHAS)


def sigma_at(t):
    return ((1 - ALPHAS[t]) / ALPHAS[t]).sqrt()


def test_it_has_the_levels_of_every_20th_timestep():
    assert SCHEDULE.sigmas.tolist() == [sigma_at(t).item() for t in range(19, 1000, 20)]


@pytest.mark.parametrize("t, nearest", [(19, 19), (0, 19), (27, 19), (31, 39), (500, 499), (999, 999)])
def test_a_level_stands_for_the_nearest_of_its_timesteps(t, nearest):
    assert SCHEDULE.sigma_to_t(sigma_at(t)[None]).tolist() == [nearest]


@pytest.mark.parametrize("t", [19, 39, 519, 999])
def test_a_timestep_has_the_level_of_the_network(t):
    assert SCHEDULE.t_to_sigma(torch.tensor([t])).item() == pytest.approx(sigma_at(t).item(), rel=1e-6)


def test_timesteps_outside_count_as_the_ends():
    assert SCHEDULE.t_to_sigma(torch.tensor([0.0, 1500.0])).tolist() == pytest.approx(
        [sigma_at(19).item(), sigma_at(999).item()], rel=1e-6)


def test_uniform_goes_from_the_last_of_its_timesteps_to_the_first():
    low, high = SCHEDULE.sigmas[0].item(), SCHEDULE.sigmas[-1].item()
    levels = SCHEDULES["uniform"].sigmas(4, low, high, prediction=SCHEDULE)
    between = SCHEDULE.t_to_sigma(torch.tensor([999 - 980 / 3, 999 - 1960 / 3])).tolist()
    assert levels.tolist() == pytest.approx([high, *between, low, 0])


def test_the_estimate_keeps_a_trace_of_its_input_by_the_boundary_condition():
    x, eps, sigma = torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), 0.5), sigma_at(19)[None]
    scaled = 190.0
    c_skip, c_out = 0.25 / (scaled**2 + 0.25), scaled / (scaled**2 + 0.25) ** 0.5
    assert SCHEDULE.to_denoised(eps, x, sigma).item() == pytest.approx(c_out * (3 - sigma.item() * 0.5) + c_skip * 3)
