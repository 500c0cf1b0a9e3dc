import pytest
import torch

from pipeline.errors import UnknownName
from pipeline.philox import PhiloxGenerator
from pipeline.rng import RANDN_SOURCES, ImageRNG, fixed_seed, randn_local, random_seed, slerp

CPU = torch.device("cpu")
SHAPE = (4, 6, 5)


def torch_randn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def first(seeds, **options):
    return ImageRNG(SHAPE, seeds, source="CPU", **options).first()


# seeds

@pytest.mark.parametrize("unset", [None, "", -1, "-1", "cat"])
def test_an_unset_seed_becomes_random(unset):
    assert 0 <= fixed_seed(unset) <= 4294967293


@pytest.mark.parametrize("seed, value", [(0, 0), (-2, -2), ("17", 17), (2**80, 2**80)])
def test_a_chosen_seed_stays(seed, value):
    assert fixed_seed(seed) == value


def test_random_seeds_differ():
    assert len({random_seed() for _ in range(8)}) > 1


# sources

def test_cpu_source_is_the_cpu_generator_of_torch():
    assert torch.equal(randn_local(7, SHAPE, source="CPU", device=CPU), torch_randn(7, *SHAPE))


def test_gpu_source_without_a_gpu_is_the_cpu_source():
    assert torch.equal(randn_local(7, SHAPE, source="GPU", device=CPU), torch_randn(7, *SHAPE))


def test_nv_source_is_philox():
    noise = randn_local(7, SHAPE, source="NV", device=CPU)
    assert torch.equal(noise, torch.from_numpy(PhiloxGenerator(7).randn(SHAPE)))


def test_unknown_source_is_refused_by_name():
    with pytest.raises(UnknownName, match='"NVidia"; did you mean "NV"') as error:
        ImageRNG(SHAPE, [1], source="NVidia")
    assert error.value.field == "randn_source"


@pytest.mark.parametrize("source", RANDN_SOURCES)
@pytest.mark.parametrize("seed", [-3, 2**64 - 3, 2**64 * 5 - 3])
def test_any_integer_is_a_seed_modulo_64_bits(source, seed):
    noise = randn_local(seed, SHAPE, source=source, device=CPU)
    assert torch.equal(noise, randn_local(2**64 - 3, SHAPE, source=source, device=CPU))


@pytest.mark.parametrize("source", RANDN_SOURCES)
def test_the_global_generator_is_left_alone(source):
    before = torch.get_rng_state()
    rng = ImageRNG(SHAPE, [1, 2], source=source, subseeds=[3, 4], subseed_strength=0.5, seed_resize_from_h=32,
                   seed_resize_from_w=32, eta_noise_seed_delta=1)
    rng.next()
    rng.next()
    assert torch.equal(torch.get_rng_state(), before)


# one stream per image

@pytest.mark.parametrize("source", RANDN_SOURCES)
@pytest.mark.parametrize("options", [
    {},
    {"subseeds": [8, 9, 10], "subseed_strength": 0.3},
    {"seed_resize_from_h": 32, "seed_resize_from_w": 64},
    {"eta_noise_seed_delta": 31337},
])
def test_an_image_of_a_batch_gets_the_noise_it_would_get_alone(source, options):
    batch = ImageRNG(SHAPE, [1, 2, 3], source=source, **options)
    if "subseeds" in options:
        options = options | {"subseeds": [9]}
    alone = ImageRNG(SHAPE, [2], source=source, **options)
    for _ in range(3):
        assert torch.equal(batch.next()[1], alone.next()[0])


def test_draws_continue_the_stream_of_each_image():
    generator = torch.Generator().manual_seed(5)
    rng = ImageRNG(SHAPE, [5], source="CPU")
    for _ in range(3):
        assert torch.equal(rng.next()[0], torch.randn(SHAPE, generator=generator))


def test_next_begins_with_first():
    options = {"subseeds": [3], "subseed_strength": 0.5}
    assert torch.equal(ImageRNG(SHAPE, [1], source="CPU", **options).next(), first([1], **options))


def test_ensd_changes_every_draw_but_the_first():
    rng = ImageRNG(SHAPE, [5], source="CPU", eta_noise_seed_delta=100)
    assert torch.equal(rng.next()[0], torch_randn(5, *SHAPE))
    assert torch.equal(rng.next()[0], torch_randn(105, *SHAPE))


# subseeds

def test_subseed_strength_0_is_the_noise_of_the_seed():
    assert torch.equal(first([1], subseeds=[2], subseed_strength=0.0), first([1]))


def test_subseed_strength_1_is_the_noise_of_the_subseed():
    assert torch.allclose(first([1], subseeds=[2], subseed_strength=1.0), first([2]), atol=1e-6)


def test_a_missing_subseed_is_0():
    noise = first([1, 1], subseeds=[5], subseed_strength=0.4)
    assert torch.equal(noise[1], slerp(0.4, torch_randn(1, *SHAPE), torch_randn(0, *SHAPE)))


def test_the_subseed_draws_nothing_from_the_stream_of_the_seed():
    plain = ImageRNG(SHAPE, [1], source="CPU")
    mixed = ImageRNG(SHAPE, [1], source="CPU", subseeds=[2], subseed_strength=0.5)
    plain.next()
    mixed.next()
    assert torch.equal(plain.next(), mixed.next())


def test_slerp_turns_each_column_along_the_height():
    low, high = torch.tensor([[[2.0, 0.0], [0.0, 3.0]]]), torch.tensor([[[0.0, 3.0], [2.0, 0.0]]])
    half = torch.full((1, 2, 2), 0.5) ** 0.5 * torch.tensor([2.0, 3.0])
    assert torch.allclose(slerp(0.5, low, high), half)


def test_slerp_of_equal_noises_is_that_noise():
    noise = torch_randn(1, *SHAPE)
    assert torch.allclose(slerp(0.25, noise, noise), noise)


def test_slerp_of_nearly_equal_noises_has_its_weights_reversed():
    noise = torch_randn(1, *SHAPE)
    assert torch.allclose(slerp(0.25, noise, 1.01 * noise), 1.0075 * noise)


# seed resizing

def test_resizing_from_a_smaller_size_centres_its_noise():
    noise = first([1], seed_resize_from_h=32, seed_resize_from_w=24)[0]
    expected = torch_randn(1, *SHAPE)
    expected[:, 1:5, 1:4] = torch_randn(1, 4, 4, 3)
    assert torch.equal(noise, expected)


def test_resizing_from_a_larger_size_keeps_its_middle():
    noise = first([1], seed_resize_from_h=80, seed_resize_from_w=72)[0]
    assert torch.equal(noise, torch_randn(1, 4, 10, 9)[:, 2:8, 2:7])


def test_resizing_from_an_odd_excess_leaves_the_last_line_new():
    noise = first([1], seed_resize_from_h=72, seed_resize_from_w=40)[0]
    expected = torch_randn(1, *SHAPE)
    expected[:, :5, :] = torch_randn(1, 4, 9, 5)[:, 2:7]
    assert torch.equal(noise, expected)


@pytest.mark.parametrize("size", [(0, 32), (32, -1), (48, 40)])
def test_resizing_from_no_size_or_the_same_changes_nothing(size):
    assert torch.equal(first([1], seed_resize_from_h=size[0], seed_resize_from_w=size[1]), first([1]))


def test_subseeds_mix_at_the_size_resized_from():
    noise = first([1], subseeds=[2], subseed_strength=0.5, seed_resize_from_h=32, seed_resize_from_w=24)[0]
    mixed = slerp(0.5, torch_randn(1, 4, 4, 3), torch_randn(2, 4, 4, 3))
    assert torch.equal(noise[:, 1:5, 1:4], mixed)
