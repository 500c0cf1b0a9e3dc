import math

import numpy as np
import pytest
import scipy.stats
import torch

from pipeline.families.prediction import Eps
from pipeline.samplers.schedules import SCHEDULES, beta_quantiles, find_schedule
from tests.oracles.k_diffusion import k_diffusion_sampling

SD1 = Eps((1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0).float())
SIGMA_MIN, SIGMA_MAX = SD1.sigmas[0].item(), SD1.sigmas[-1].item()
FUNCTIONS = [schedule for schedule in SCHEDULES.values() if schedule.sigmas]


def sigmas(name, n, **options):
    return SCHEDULES[name].sigmas(n, SIGMA_MIN, SIGMA_MAX, prediction=SD1, **options)


# A1111's numbers for Stable Diffusion 1, ten steps

@pytest.mark.parametrize("name, levels", [
    ("uniform", [14.6146, 7.8399, 4.6092, 2.9183, 1.9502, 1.3449, 0.9324, 0.6250, 0.3687, 0.0292, 0]),
    ("karras", [14.6146, 9.1029, 5.4784, 3.1686, 1.7494, 0.9141, 0.4469, 0.2014, 0.0819, 0.0292, 0]),
    ("exponential", [14.6146, 7.3249, 3.6712, 1.8400, 0.9222, 0.4622, 0.2317, 0.1161, 0.0582, 0.0292, 0]),
    ("polyexponential", [14.6146, 7.3249, 3.6712, 1.8400, 0.9222, 0.4622, 0.2317, 0.1161, 0.0582, 0.0292, 0]),
    ("sgm_uniform", [14.6146, 8.3072, 5.0924, 3.3251, 2.2797, 1.6156, 1.1629, 0.8319, 0.5712, 0.3437, 0]),
    ("kl_optimal", [14.6146, 4.5650, 2.6329, 1.7864, 1.2948, 0.9616, 0.7116, 0.5094, 0.3356, 0.1783, 0.0292]),
    ("align_your_steps", [14.6150, 6.1135, 3.5651, 2.3939, 1.6500, 1.1358, 0.7425, 0.4450, 0.1692, 0.0290, 0]),
    ("simple", [14.6146, 8.3028, 5.0878, 3.3211, 2.2765, 1.6129, 1.1606, 0.8299, 0.5693, 0.3417, 0]),
    ("normal", [14.6146, 7.8399, 4.6092, 2.9183, 1.9502, 1.3449, 0.9324, 0.6250, 0.3687, 0.0292, 0]),
    ("ddim", [8.3907, 5.1344, 3.3478, 2.2929, 1.6237, 1.1682, 0.8357, 0.5741, 0.3462, 0.0413, 0]),
    ("beta", [14.6146, 13.9278, 12.4910, 10.5976, 8.4424, 6.2014, 4.0462, 2.1528, 0.7160, 0.0292, 0]),
])
def test_ten_steps_have_the_noise_levels_of_a1111(name, levels):
    assert sigmas(name, 10).tolist() == pytest.approx(levels, abs=6e-5)


@pytest.mark.parametrize("index, level", [(20 - 15 - 1, 5.789412), (20 - 10 - 1, 1.483211)])
def test_karras_starts_img2img_at_the_level_of_a1111(index, level):
    assert sigmas("karras", 20)[index].item() == pytest.approx(level, rel=5e-6)  # the vectors are of float64


@pytest.mark.parametrize("name, options", [
    ("karras", {}), ("exponential", {}), ("polyexponential", {}), ("polyexponential", {"rho": 1.7})])
def test_equals_k_diffusion(name, options):
    oracle = getattr(k_diffusion_sampling(), f"get_sigmas_{name}")
    assert torch.equal(sigmas(name, 20, **options), oracle(20, SIGMA_MIN, SIGMA_MAX, **options))


# every schedule

@pytest.mark.parametrize("schedule", FUNCTIONS, ids=lambda schedule: schedule.name)
@pytest.mark.parametrize("n", [1, 2, 15, 150])
def test_n_levels_descend_to_zero(schedule, n):
    levels = schedule.sigmas(n, SIGMA_MIN, SIGMA_MAX, prediction=SD1)
    assert levels.dtype == torch.float32
    assert len(levels) == (n + 1 if schedule.name != "ddim" else math.ceil(999 / (1000 // n)) + 1)
    assert (levels.diff() < 0).all()
    if schedule.name not in ("ddim", "align_your_steps"):
        assert levels[0].item() == pytest.approx(SIGMA_MAX, rel=1e-5)
    assert levels[-1].item() == (0 if schedule.name != "kl_optimal" else pytest.approx(SIGMA_MIN, rel=1e-4))


@pytest.mark.parametrize("name", ["karras", "exponential", "polyexponential", "normal", "beta"])
def test_the_asked_range_is_kept(name):
    levels = SCHEDULES[name].sigmas(8, 0.1, 10.0, prediction=SD1)
    assert levels[[0, -2]].tolist() == pytest.approx([10.0, 0.1], rel=1e-5)


def test_a_larger_rho_spends_more_steps_at_low_noise():
    assert (sigmas("karras", 10, rho=9.0)[1:-2] < sigmas("karras", 10, rho=7.0)[1:-2]).all()


# what is particular to some

@pytest.mark.parametrize("n, count", [(10, 10), (15, 16), (24, 25), (30, 31), (60, 63)])
def test_ddim_has_more_levels_than_steps_where_these_do_not_divide_1000(n, count):
    assert len(sigmas("ddim", n)) == count + 1


@pytest.mark.parametrize("xl, second", [(False, 6.475), (True, 6.315)])
def test_align_your_steps_is_its_published_table_at_eleven_levels(xl, second):
    levels = sigmas("align_your_steps", 11, xl=xl)
    assert levels[[0, 1, -2]].tolist() == pytest.approx([14.615, second, 0.029])


@pytest.mark.parametrize("a, b", [(0.6, 0.6), (0.3, 0.9), (1.0, 0.2), (0.05, 0.5)])
def test_beta_quantiles_are_those_of_scipy(a, b):
    p = np.linspace(0, 1, 23)
    assert beta_quantiles(p, a, b) == pytest.approx(scipy.stats.beta.ppf(p, a, b), abs=1e-12)


def test_quantized_levels_are_those_of_whole_timesteps():
    quantized = type(SD1)(SD1.alphas_cumprod, quantize=True)
    t = quantized.sigma_to_t(torch.tensor([SIGMA_MIN, 1.0, 3.21, SIGMA_MAX]))
    assert t.tolist() == SD1.sigma_to_t(torch.tensor([SIGMA_MIN, 1.0, 3.21, SIGMA_MAX])).round().tolist()


# names

@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=lambda schedule: schedule.name)
def test_a_schedule_is_found_by_name_and_by_label(schedule):
    assert find_schedule(schedule.name) is schedule
    assert find_schedule(schedule.label) is schedule


@pytest.mark.parametrize("name", ["", "SGMUniform", "KARRAS"])
def test_nothing_else_finds_a_schedule(name):
    assert find_schedule(name) is None
