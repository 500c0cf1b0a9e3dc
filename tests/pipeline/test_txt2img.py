"""Pictures from noise alone."""

import pytest
import torch

from pipeline.hooks import Hooks
from pipeline.processing import process_images
from pipeline.txt2img import StableDiffusionProcessingTxt2Img


def request(demo, **fields):
    settings = {"sd_model": demo, "width": 64, "height": 64, "steps": 3, "seed": 1, "sampler_name": "Euler"}
    return StableDiffusionProcessingTxt2Img(**settings | fields)


def calls(monkeypatch, demo, p):
    """The network's calls: (x, t) each."""
    made = []
    denoise = type(demo).denoise
    monkeypatch.setattr(type(demo), "denoise", lambda self, x, t, *rest: made.append((x, t)) or denoise(self, x, t, *rest))
    process_images(p)
    return made


@pytest.mark.parametrize("sampler_name, count, first", [("Euler", 3, 999), ("Heun", 5, 999), ("DDIM", 3, 999),
                                                        ("UniPC", 4, 999)])
def test_the_whole_schedule_is_run_from_pure_noise(demo, monkeypatch, sampler_name, count, first):
    made = calls(monkeypatch, demo, request(demo, sampler_name=sampler_name))
    x, t = made[0]
    assert len(made) == count and t.max() == pytest.approx(first, abs=1)
    assert abs(x.std().item() - 1) < 0.15  # unit variance, as the network knows pure noise


def test_it_starts_from_the_seeds_noise_times_the_first_sigma(demo):
    class Seen(Hooks):
        def process_before_every_sampling(self, p, *, x, noise, **_):
            self.latent, self.noise = x, noise

    p = request(demo)
    p.scripts = seen = Seen()
    process_images(p)
    assert torch.count_nonzero(seen.latent) == 0 and seen.noise.shape == (1, 4, 8, 8)


def test_options_of_img2img_do_not_act(demo):
    plain = process_images(request(demo)).images[0]
    for changes in ({"override_settings": {"img2img_fix_steps": True}}, {"override_settings": {"img2img_extra_noise": 0.5}},
                    {"denoising_strength": 0.2}):
        assert process_images(request(demo, **changes)).images[0].tobytes() == plain.tobytes()


def test_the_sgm_noise_multiplier_acts_and_is_recorded(demo):
    made = process_images(request(demo, override_settings={"sgm_noise_multiplier": True}))
    assert made.images[0].tobytes() != process_images(request(demo)).images[0].tobytes()
    assert "SGM noise multiplier: True" in made.info


def test_infotext_speaks_of_no_strength(demo):
    assert "Denoising strength" not in process_images(request(demo)).info


def test_the_size_is_made_a_multiple_of_8(demo):
    assert process_images(request(demo, width=70, height=65)).images[0].size == (64, 64)
