"""What the demo model is drawn and trained from, and what was shipped."""

from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import ROOT
from tools.demo_model.attributes import CHOICES, in_numbers, in_words
from tools.demo_model.captions import caption
from tools.demo_model.draw import draw, to_tensor
from tools.demo_model.exam import hand_written_captions, jump
from tools.demo_model.export import LIMIT_MB, folder_size, latent_rgb
from tools.demo_model.masks import mask_of, thing_box
from tools.demo_model.sampling import sd1_scheduler, unmasked
from tools.demo_model.scenes import PLACES, SKY_BODIES, STYLES, THINGS, TIMES, sample_scenes, scene
from tools.demo_model.train_autoencoder import psnr
from tools.demo_model.train_unet import eps_loss, spread_times
from tools.demo_model.training import Optimizer, Workers
from tools.demo_model.words import PLURAL, STYLE_WORDS

MODEL = ROOT / "assets" / "demo-model"


@pytest.mark.parametrize("names", [*({"place": place} for place in PLACES), *({"style": style} for style in STYLES),
                                   *({"thing": thing} for thing in THINGS), *({"time": time} for time in TIMES),
                                   *({"weather": weather} for weather in ("rain", "snow", "fog",
                                           "cloudy")), {"season": "winter"},
                                   *({"sky_body": body, "time": "night"} for body in SKY_BODIES)])
def test_every_choice_is_drawn_the_same_again_and_differs_from_the_plain_scene(names):
    picture = draw(scene(**{"place": "meadow"} | names, seed=7), 64)
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
    assert np.array_equal(picture, draw(scene(**{"place": "meadow"} | names, seed=7), 64))
    plain = draw(scene(place="meadow", seed=7), 64)
    same = names in ({"place": "meadow"}, {"style": "flat"}, {"thing": "none"}, {"time": "day"})
    assert np.array_equal(picture, plain) == same


@pytest.mark.parametrize("place", PLACES)
def test_a_scene_is_the_same_at_any_size(place):
    flat = scene(place=place, thing="house", colour="red", seed=3)
    small = torch.nn.functional.interpolate(to_tensor(draw(flat, 256)[None]), (64, 64), mode="area")
    assert (small - to_tensor(draw(flat, 64)[None])).abs().mean() < 0.04  # of a range of 2


def test_more_scenes_can_be_added_to_a_bank_later():
    assert sample_scenes(6, 1)[4:] == sample_scenes(2, 1, first=4)
    assert {made.style for made in sample_scenes(200, 1)} == set(STYLES)


def test_another_thing_leaves_the_landscape_as_it_is():
    tree, house = (draw(scene(place="meadow", thing=thing, seed=5, spot="left", size="small"), 64)
                   for thing in ("tree", "house"))
    assert np.array_equal(tree[:, 40:], house[:, 40:]) and not np.array_equal(tree, house)


@pytest.mark.parametrize("thing", THINGS[1:])
def test_a_thing_is_drawn_inside_its_box(thing):
    with_it, without = scene(place="desert", thing=thing, colour="red", seed=8), scene(place="desert", seed=8)
    left, top, right, bottom = (round(v / 2) for v in thing_box(with_it))
    inside = np.abs(draw(with_it, 128).astype(int) - draw(without, 128)).sum(2)[max(0, top):bottom,
            max(0, left):right] > 40
    assert inside.mean() > 0.15
    assert 0 <= left < right <= 128 and 0 <= top < bottom <= 128


def test_masks_are_of_every_size_and_the_same_again():
    shares = [mask_of(made, 64).mean() for made in sample_scenes(40, 2)]
    assert 0 < min(shares) < 0.1 and max(shares) > 0.35
    made = sample_scenes(1, 2)[0]
    assert np.array_equal(mask_of(made, 64), mask_of(made, 64))


def test_choices_are_numbered_by_their_lists():
    made = scene(place="sea", time="night", thing="boat", colour="blue", spot="left")
    numbers = dict(zip(CHOICES, in_numbers([made])[0].tolist()))
    assert {key: CHOICES[key][n] for key, n in numbers.items()} == in_words(made)
    assert in_words(made) | dict(place="sea", thing="boat", colour="blue", spot="left", other="none") == in_words(made)


@pytest.mark.parametrize("style", [style for style in STYLES if style != "flat"])
def test_captions_of_a_style_mostly_name_it(style):
    said = [caption(scene(place="forest", style=style), Random(n)) for n in range(100)]
    assert sum(any(name in text for name in STYLE_WORDS[style]) for text in said) > 80
    assert len(set(said)) > 60 and all(text == text.strip() and "  " not in text for text in said)


def test_captions_are_lower_case_english():
    said = [caption(made, Random(n)) for n, made in enumerate(sample_scenes(400, 3))]
    assert all(text == text.lower() for text in said)
    words = [text.split() for text in said]
    pairs = [pair for text in words for pair in zip(text, text[1:])]
    assert not [pair for pair in pairs if pair[0] == "a" and pair[1][0] in "aeio8" or pair[0] == "an"
                and pair[1][0] not in "aeio8"]
    assert not [pair for pair in pairs if pair[0] in ("a", "an") and pair[1].strip(",") in PLURAL]


def test_hand_written_captions_ask_for_what_can_be_drawn():
    asked, strange = hand_written_captions()
    texts = [text for text, _ in asked] + strange
    assert len(texts) > 200 and len(set(texts)) == len(texts) and len(strange) > 10
    assert all(word in CHOICES[key] for _, shown in asked for key, word in shown.items())


def test_a_seam_is_measured_only_along_the_edge_of_the_mask():
    picture, mask = torch.zeros(3, 8, 8), torch.zeros(8, 8, dtype=torch.bool)
    picture[:, :, 4:], mask[:, 4:] = 1.0, True
    assert jump(picture, mask) == 1.0
    assert jump(picture, mask.roll(2, 1) & (torch.arange(8) > 5)) == 0.0


def test_without_a_mask_the_unet_sees_a_full_mask_and_grey():
    condition = unmasked(torch.full((4, 2, 2), 0.5))
    assert condition.shape == (1, 5, 2, 2) and condition[:, 0].eq(1).all() and condition[:, 1:].eq(0.5).all()


def test_the_noise_schedule_is_that_of_stable_diffusion_1():
    alphas = sd1_scheduler().alphas_cumprod
    assert alphas[[0, 500, 999]].tolist() == pytest.approx([0.99915, 0.27636, 0.0046600], rel=1e-4)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_optimizer_moves_every_weight_in_the_models_own_memory(workers):
    threads = torch.get_num_threads()
    model = torch.nn.ModuleDict(dict(conv_in=torch.nn.Conv2d(3, 4, 3), inner=torch.nn.Conv2d(4, 6, 3),
                                     linear=torch.nn.Linear(6, 2)))
    model = model.to(memory_format=torch.channels_last)
    optimizer = Optimizer(model.named_parameters(), Workers(workers))
    assert [flat.shape for _, flat in optimizer.matrices] == [(6, 36), (2, 6)]
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step(0.01)
    torch.set_num_threads(threads)
    assert all((weight < before[name]).any() for name, weight in model.named_parameters())
    again = Optimizer(model.named_parameters(), Workers(1))
    again.load_state_dict(optimizer.state_dict())
    torch.set_num_threads(threads)


def test_times_are_spread_over_the_whole_schedule():
    times = spread_times(10, torch.Generator().manual_seed(1))
    assert (times // 100).tolist() == list(range(10))


def test_the_loss_weighs_low_noise_less():
    wrong = torch.ones(1, 4, 2, 2)
    low, high = (eps_loss(wrong, 0 * wrong, torch.tensor([snr])) for snr in (100.0, 0.01))
    assert low < 0.06 and high > 1


def test_the_preview_matrix_recovers_a_linear_latent():
    latents = torch.randn(8, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    factors, bias = torch.tensor([[0.3, 0, 0.1], [0, 0.2, 0], [0.1, 0.1, 0.4], [-0.2, 0, 0]]), torch.tensor([0.1, 0,
            -0.1])
    pictures = torch.nn.functional.interpolate(
        torch.einsum("bchw,cr->brhw", latents, factors) + bias[:, None, None], scale_factor=8.0)
    solved = latent_rgb(latents, pictures)
    assert torch.allclose(solved[0], factors, atol=1e-5) and torch.allclose(solved[1], bias, atol=1e-5)


def test_the_shipped_model_is_small_and_keeps_the_sample_pictures():
    from diffusers import AutoencoderKL

    assert folder_size(MODEL) < LIMIT_MB * 1e6
    vae = AutoencoderKL.from_pretrained(MODEL / "vae", torch_dtype=torch.float32).eval()
    samples = [Image.open(path).convert("RGB").resize((128, 128))
               for path in sorted((ROOT / "assets" / "samples").glob("*.png"))
               if "mask" not in path.name]
    assert psnr(vae, to_tensor(np.stack([np.asarray(sample) for sample in samples])))[0] > 24
