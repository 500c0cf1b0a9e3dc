import warnings
from functools import partial
from itertools import pairwise

import pytest
import torch

from pipeline.rng import randn_local
from pipeline.samplers.brownian import BrownianNoise
from pipeline.samplers.solvers import sample_dpmpp_2m_sde, sample_dpmpp_sde
from tests.oracles.k_diffusion import k_diffusion_sampling

CPU = torch.device("cpu")
SHAPE = (4, 3, 3)
SIGMA_MIN, SIGMA_MAX = 0.0292, 14.6146
KARRAS = [14.6146, 9.1029, 5.4784, 3.1686, 1.7494, 0.9141, 0.4469, 0.2014, 0.0819, 0.0292]


def brownian(seeds, shape=SHAPE, source="CPU"):
    return BrownianNoise(shape, seeds, SIGMA_MIN, SIGMA_MAX, randn=partial(randn_local, source=source, device=CPU),
                         device=CPU)


def k_diffusion_brownian(seeds):
    sampler = k_diffusion_sampling().BrownianTreeNoiseSampler
    return sampler(torch.zeros(len(seeds), *SHAPE), SIGMA_MIN, SIGMA_MAX, seed=seeds)


def assert_same_noise(ours, oracle, sigma, sigma_next):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchsde warns where float32 levels round out of its range
        expected = oracle(sigma, sigma_next)
    assert torch.equal(ours(sigma, sigma_next), expected)


@pytest.mark.parametrize("seeds", [[0], [1234567], [2**64 - 1], [5, 6, 2**40]])
def test_equals_torchsde_from_step_to_step(seeds):
    ours, oracle = brownian(seeds), k_diffusion_brownian(seeds)
    for sigma, sigma_next in pairwise(torch.tensor(KARRAS)):
        assert_same_noise(ours, oracle, sigma, sigma_next)


@pytest.mark.parametrize("solver", [sample_dpmpp_sde, sample_dpmpp_2m_sde])
def test_equals_torchsde_where_the_solver_asks(solver):
    ours, oracle = brownian([3, 4]), k_diffusion_brownian([3, 4])

    def noise_sampler(sigma, sigma_next):
        assert_same_noise(ours, oracle, sigma, sigma_next)
        return ours(sigma, sigma_next)

    solver(lambda x, sigma: x * 0, torch.zeros(2, *SHAPE), torch.tensor(KARRAS + [0.0]), noise_sampler=noise_sampler)


def test_equals_torchsde_in_any_order_and_beyond_the_range():
    ours, oracle = brownian([8]), k_diffusion_brownian([8])
    for levels in [(0.5, 7.0), (20.0, 3.0), (2.0, 0.001), (0.0292, 14.6146), (1.000001, 1.000003), (7.0, 0.5)]:
        assert_same_noise(ours, oracle, *torch.tensor(levels))


def test_noise_depends_on_the_levels_and_not_on_what_was_asked_before():
    fresh, used = brownian([1]), brownian([1])
    for sigma, sigma_next in pairwise(torch.tensor(KARRAS)):
        used(sigma, sigma_next)
    levels = torch.tensor(5.0), torch.tensor(2.5)
    assert torch.equal(fresh(*levels), used(*levels))


def test_two_steps_add_up_to_one():
    noise, (high, middle, low) = brownian([1]), torch.tensor([9.0, 4.0, 1.5])
    both = noise(high, middle) * (high - middle).sqrt() + noise(middle, low) * (middle - low).sqrt()
    assert torch.allclose(both, noise(high, low) * (high - low).sqrt(), atol=1e-5)


def test_the_other_direction_has_the_other_sign():
    noise, levels = brownian([1]), torch.tensor([9.0, 4.0])
    assert torch.equal(noise(*levels), -noise(*levels.flip(0)))


def test_an_image_of_a_batch_gets_the_noise_it_would_get_alone():
    levels = torch.tensor([9.0, 4.0])
    assert torch.equal(brownian([1, 2, 3])(*levels)[1], brownian([2])(*levels)[0])


@pytest.mark.parametrize("source", ["CPU", "NV"])
def test_noise_is_standard_normal(source):
    noise = brownian([7], shape=(4, 64, 64), source=source)(torch.tensor(3.0), torch.tensor(2.0))
    assert noise.mean().abs() < 0.03
    assert noise.std() == pytest.approx(1, abs=0.03)


def test_negative_seeds_wrap_at_64_bits():
    levels = torch.tensor([9.0, 4.0])
    assert torch.equal(brownian([-1])(*levels), brownian([2**64 - 1])(*levels))


def test_the_same_level_twice_has_no_increment():
    assert brownian([1]).trees[0].increment(2.0, 2.0).count_nonzero() == 0
