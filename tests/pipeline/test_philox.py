import numpy as np
import pytest

from pipeline.philox import PhiloxGenerator

CUDA_SEED_0 = [[-0.92466259, -0.42534415, -2.6438457, 0.14518388],
               [-0.12086647, -0.57972564, -0.62285122, -0.32838709],
               [-1.07454231, -0.36314407, -1.67105067, 2.26550497]]


def test_the_first_draw_is_what_cuda_draws():
    assert PhiloxGenerator(0).randn((3, 4)) == pytest.approx(np.array(CUDA_SEED_0), abs=2e-6)


@pytest.mark.parametrize("seed, numbers", [
    (42, [0.19401887, 2.1613739, -0.17205095, 0.84906]),
    (1234567890123, [0.47459313, 0.8396766, -0.764283, -1.0388207]),
])
def test_both_halves_of_the_seed_count(seed, numbers):
    assert PhiloxGenerator(seed).randn((4,)) == pytest.approx(np.array(numbers), abs=1e-6)


def test_the_second_draw_does_not_depend_on_the_size_of_the_first():
    after = [0.18082589, -0.5522627, 0.9238134, -0.73497033]
    for first_shape in ((3, 4), (1,)):
        generator = PhiloxGenerator(0)
        generator.randn(first_shape)
        assert generator.randn((4,)) == pytest.approx(np.array(after), abs=1e-6)


def test_a_larger_draw_begins_like_a_smaller_one():
    assert np.array_equal(PhiloxGenerator(3).randn((8,))[:5], PhiloxGenerator(3).randn((5,)))


@pytest.mark.parametrize("seed", [-1, 2**64 - 1, 2**65 - 1])
def test_seeds_wrap_at_64_bits(seed):
    assert np.array_equal(PhiloxGenerator(seed).randn((4,)), PhiloxGenerator(2**64 - 1).randn((4,)))


def test_numbers_are_float32_and_standard_normal():
    numbers = PhiloxGenerator(1).randn((100, 100))
    assert numbers.dtype == np.float32
    assert abs(numbers.mean()) < 0.03
    assert abs(numbers.std() - 1) < 0.03
