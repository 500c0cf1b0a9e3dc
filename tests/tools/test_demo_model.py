"""What the demo model is drawn and trained from, and what was shipped."""

from random import Random

import pytest
import torch

from tests.conftest import ROOT
from tools.demo_model.captions import STYLE_WORDS, caption, in_words
from tools.demo_model.draw import draw
from tools.demo_model.export import LIMIT_MB, folder_size, latent_rgb
from tools.demo_model.sampling import sd1_scheduler
from tools.demo_model.scenes import PLACES, STYLES, THINGS, sample_scenes, scene
from tools.demo_model.train_autoencoder import UNSEEN_SEED, psnr
from tools.demo_model.train_unet import eps_loss, spread_times

MODEL = ROOT / "assets" / "demo-model"


@pytest.mark.parametrize("names", [*({"place": place} for place in PLACES), *({"style": style} for style in STYLES),
                                   *({"thing": thing} for thing in THINGS), {"weather": "rain"}, {"season": "winter"}])
def test_every_choice_is_drawn_the_same_again_and_differs_from_the_plain_scene(names):
    picture = draw(scene(**{"place": "meadow"} | names, seed=7), 64)
    assert picture.shape == (1, 3, 64, 64) and picture.min() >= 0 and picture.max() <= 1
    assert torch.equal(picture, draw(scene(**{"place": "meadow"} | names, seed=7), 64))
    plain = draw(scene(place="meadow", seed=7), 64)
    assert torch.equal(picture, plain) == (names in ({"place": "meadow"}, {"style": "flat"}, {"thing": "none"}))


def test_a_scene_is_the_same_at_any_size():
    flat = scene(place="mountains", thing="house", colour="red", seed=3)
    small = torch.nn.functional.interpolate(draw(flat, 128), (64, 64), mode="area")
    assert (small - draw(flat, 64)).abs().mean() < 0.02


def test_scenes_are_drawn_by_lot_from_all_styles():
    assert set(sample_scenes(400, 1).style.tolist()) == set(range(len(STYLES)))


@pytest.mark.parametrize("style", [style for style in STYLES if style != "flat"])
def test_captions_of_a_style_mostly_name_it(style):
    words = in_words(scene(place="forest", style=style))[0]
    said = [caption(words, Random(n)) for n in range(100)]
    assert sum(any(name in text for name in STYLE_WORDS[style]) for text in said) > 80
    assert len(set(said)) > 60 and all(text == text.strip() and "  " not in text for text in said)


def test_the_noise_schedule_is_that_of_stable_diffusion_1():
    alphas = sd1_scheduler().alphas_cumprod
    assert alphas[[0, 500, 999]].tolist() == pytest.approx([0.99915, 0.27636, 0.0046600], rel=1e-4)


def test_times_are_spread_over_the_whole_schedule():
    times = spread_times(10, torch.Generator().manual_seed(1))
    assert (times // 100).tolist() == list(range(10))


def test_the_loss_weighs_low_noise_less():
    wrong = torch.ones(1, 4, 2, 2)
    low, high = (eps_loss(wrong, 0 * wrong, torch.tensor([snr])) for snr in (100.0, 0.01))
    assert low < 0.06 and high > 1


def test_the_preview_matrix_recovers_a_linear_latent():
    latents = torch.randn(8, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    factors, bias = torch.tensor([[0.3, 0, 0.1], [0, 0.2, 0], [0.1, 0.1, 0.4], [-0.2, 0, 0]]), torch.tensor([0.1, 0, -0.1])
    pictures = torch.nn.functional.interpolate(
        torch.einsum("bchw,cr->brhw", latents, factors) + bias[:, None, None], scale_factor=8.0)
    solved = latent_rgb(latents, pictures)
    assert torch.allclose(solved[0], factors, atol=1e-5) and torch.allclose(solved[1], bias, atol=1e-5)


def test_the_shipped_model_is_small_and_keeps_unseen_scenes():
    from diffusers import AutoencoderKL

    assert folder_size(MODEL) < LIMIT_MB * 1e6
    vae = AutoencoderKL.from_pretrained(MODEL / "vae", torch_dtype=torch.float32).eval()
    assert psnr(vae, draw(sample_scenes(16, UNSEEN_SEED), 128) * 2 - 1)[0] > 24
