"""Hires fix: A1111's sizes and steps, what each pass is given, and what infotext says. Numbers worked out by hand."""

import pytest
import torch

from pipeline.errors import InvalidRequest
from pipeline.geometry import Size
from pipeline.hires import LATENT_UPSCALERS, Target, enlarged_latent, target
from pipeline.hooks import Hooks
from pipeline.images import resize_image
from pipeline.infotext import parse
from pipeline.processing import StableDiffusionProcessingImg2Img, process_images
from pipeline.progress import Progress
from pipeline.prompt_parser import parse_timeline
from pipeline.rng import ImageRNG
from pipeline.txt2img import StableDiffusionProcessingTxt2Img
from pipeline.upscaling import lanczos


def request(demo, **fields):
    settings = {"sd_model": demo, "width": 64, "height": 64, "steps": 2, "seed": 1, "sampler_name": "Euler", "enable_hr": True,
                "hr_scale": 1.5, "denoising_strength": 0.5}
    return StableDiffusionProcessingTxt2Img(**settings | fields)


@pytest.mark.parametrize("first, scale, resize, upscaled, excess, size", [
    ((512, 512), 2.0, (0, 0), (1024, 1024), (0, 0), (1024, 1024)),
    ((512, 768), 1.35, (0, 0), (691, 1036), (0, 0), (688, 1032)),
    ((512, 768), 2.0, (1000, 0), (1000, 1500), (0, 0), (1000, 1496)),
    ((512, 768), 2.0, (0, 1000), (666, 1000), (0, 0), (664, 1000)),
    # 512x512 covers 1024x768 as 1024x1024: 32 latent rows too many
    ((512, 512), 2.0, (1024, 768), (1024, 1024), (0, 32), (1024, 768)),
    ((512, 512), 2.0, (768, 1024), (1024, 1024), (32, 0), (768, 1024)),
    ((640, 512), 2.0, (1000, 1000), (1250, 1000), (31, 0), (1000, 1000))])
def test_the_second_passs_size(first, scale, resize, upscaled, excess, size):
    found = target(Size(*first), scale, Size(*resize), 8)
    assert found == Target(Size(*upscaled), Size(*excess)) and found.size(8) == Size(*size)


def test_an_odd_excess_is_cropped_more_at_the_right_and_below():
    latent = torch.arange(48.0).reshape(1, 1, 6, 8)
    assert torch.equal(Target(Size(64, 48), Size(3, 1)).crop(latent), latent[:, :, 0:5, 1:6])


@pytest.mark.parametrize("name", LATENT_UPSCALERS)
def test_latents_are_enlarged_as_torch_does(name):
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    mode = {"Latent": "bilinear", "Latent (antialiased)": "bilinear", "Latent (nearest)": "nearest",
            "Latent (nearest-exact)": "nearest-exact"}.get(name, "bicubic")
    expected = torch.nn.functional.interpolate(latent, size=(12, 10), mode=mode, antialias="antialiased" in name)
    assert torch.equal(enlarged_latent(latent, name, Size(10, 12)), expected)


class Seen(Hooks):
    """Keeps what each sampling starts from."""

    def __init__(self):
        self.passes = []

    def process_before_every_sampling(self, p, *, x, noise, **_):
        self.passes.append((p, x.clone(), noise.clone()))


def run(p):
    p.scripts = seen = Seen()
    return process_images(p), seen.passes


def latent_of(demo, p):
    """The first pass's latent, as the second one gets it from a latent upscaler that changes nothing."""
    return run(StableDiffusionProcessingTxt2Img(**p.arguments() | {"hr_scale": 1.0, "hr_upscaler": "Latent (nearest)"}))[1][1][1]


def test_a_latent_upscaler_enlarges_the_first_passs_latent(demo):
    p = request(demo, hr_upscaler="Latent (bicubic)")
    result, (_, (second, x, noise)) = run(p)
    assert torch.equal(x, enlarged_latent(latent_of(demo, p), "Latent (bicubic)", Size(12, 12)))
    # the second pass draws its noise anew from the seed
    assert torch.equal(noise, ImageRNG((4, 12, 12), [1], source="GPU", device=x.device).next())
    assert result.images[0].size == (96, 96) and second.steps == 2


def test_a_picture_upscaler_enlarges_the_first_passs_picture(demo):
    """It then equals img2img from that picture with the same seed, which is what the second pass is."""
    first = process_images(request(demo, enable_hr=False)).images[0]
    source = resize_image(0, first, 96, 96, lanczos)
    made, _ = run(request(demo, hr_upscaler="Lanczos", hr_second_pass_steps=3))
    again = StableDiffusionProcessingImg2Img(demo, init_images=[source], width=96, height=96, steps=3, seed=1, sampler_name="Euler",
                                             denoising_strength=0.5, override_settings={"img2img_fix_steps": True})
    assert made.images[0].tobytes() == process_images(again).images[0].tobytes()


@pytest.mark.parametrize("steps, second, strength, calls", [(2, 0, 0.5, 2 + 2), (2, 5, 0.3, 2 + 5), (3, 1, 0.9, 3 + 1)])
def test_all_steps_of_the_second_pass_are_run_whatever_the_strength(demo, monkeypatch, steps, second, strength, calls):
    made, denoise = [], type(demo).denoise
    monkeypatch.setattr(type(demo), "denoise", lambda self, x, *rest: made.append(x.shape) or denoise(self, x, *rest))
    process_images(request(demo, steps=steps, hr_second_pass_steps=second, denoising_strength=strength))
    assert len(made) == calls and made[0][2:] == (8, 8) and made[-1][2:] == (12, 12)


def test_each_pass_has_its_prompt_sampler_and_schedule(demo):
    p = request(demo, prompt="a cat", negative_prompt="fog", hr_prompt="a dog", hr_negative_prompt="rain", hr_sampler_name="DPM++ 2M",
                hr_scheduler="Karras", steps=3, hr_second_pass_steps=4)
    result, ((first, _, _), (second, _, _)) = run(p)
    assert first.prompts == ("a cat",) and second.prompts == ["a dog"] and second.negative_prompts == ["rain"]
    assert (second.sampler_name, second.scheduler, second.steps) == ("DPM++ 2M", "Karras", 4)
    params = parse(result.info)
    assert {name: value for name, value in params.items() if name.startswith("Hires") and value not in ("0", "Use same checkpoint")} == {
        "Hires sampler": "DPM++ 2M", "Hires prompt": "a dog", "Hires negative prompt": "rain", "Hires schedule type": "Karras",
        "Hires upscale": "1.5", "Hires steps": "4"}
    assert params["Sampler"] == "Euler" and params["Steps"] == "3" and params["Size-1"] == "64" and params["Denoising strength"] == "0.5"


def test_infotext_names_only_what_differs_in_a1111s_order(demo):
    text = process_images(request(demo, prompt="a cat", hr_prompt="a cat", hr_upscaler="Latent", hr_resize_x=96, hr_resize_y=80)).info
    assert "Denoising strength: 0.5, Hires resize: 96x80, Hires upscaler: Latent" in text
    assert "Hires prompt" not in text and "Hires upscale:" not in text


@pytest.mark.parametrize("text, timeline", [
    ("[a:b:0.5]", [(10, "b")]), ("[a:b:1.5]", [(5, "a"), (10, "b")]), ("[a:b:6]", [(10, "b")]), ("[a:b:23]", [(3, "a"), (10, "b")])])
def test_prompt_editing_counts_on_from_the_first_pass(text, timeline):
    assert parse_timeline(text, 10, earlier=20) == timeline


def test_both_passes_are_cropped_to_the_size_asked_for(demo):
    assert process_images(request(demo, hr_resize_x=96, hr_resize_y=72)).images[0].size == (96, 72)
    assert process_images(request(demo, hr_resize_x=96, hr_resize_y=72, hr_upscaler="Lanczos")).images[0].size == (96, 72)


def test_every_picture_of_a_batch_has_its_second_pass(demo):
    both = process_images(request(demo, batch_size=2, n_iter=2, override_settings={"return_grid": False}))
    assert [image.size for image in both.images] == [(96, 96)] * 4
    alone = process_images(request(demo, seed=4))
    difference = torch.tensor(list(both.images[3].tobytes())) - torch.tensor(list(alone.images[0].tobytes()))
    assert difference.abs().max() <= 2


def test_an_interruption_of_the_first_pass_keeps_its_picture(demo):
    class Stopping(Progress):
        def report(self, step, denoised):
            self.stopped = self.partial = True

    p = request(demo)
    p.progress = Stopping()
    result = process_images(p)
    assert [image.size for image in result.images] == [(64, 64)]


def test_progress_counts_both_passes(demo):
    told = []

    class Watching(Progress):
        def pass_of(self, *, behind, ahead):
            told.append((behind, ahead))

    p = request(demo, steps=3, hr_second_pass_steps=5)
    p.progress = Watching()
    process_images(p)
    assert told == [(0, 5), (3, 0)]


def test_the_first_phases_size_replaces_the_other(demo):
    assert process_images(request(demo, firstphase_width=72, firstphase_height=64)).images[0].size == (104, 96)


def test_it_is_made_again_from_its_record(demo):
    p = request(demo, hr_upscaler="Lanczos", hr_prompt="a dog")
    assert process_images(StableDiffusionProcessingTxt2Img(**p.arguments())).images[0].tobytes() == process_images(p).images[0].tobytes()


@pytest.mark.parametrize("fields, sentence", [
    ({"hr_scale": "x"}, "hr_scale must be a number"), ({"hr_second_pass_steps": 1.5}, "hr_second_pass_steps must be a whole number"),
    ({"hr_prompt": 3}, "hr_prompt must be text"), ({"hr_scale": 0.05}, "the picture would have 3x3 pixels")])
def test_bad_values_are_one_sentence(demo, fields, sentence):
    with pytest.raises(InvalidRequest, match=sentence):
        request(demo, **fields)
    request(demo, enable_hr=False, **fields)  # without effect then
