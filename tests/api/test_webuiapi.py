"""The client package that A1111's users have, unchanged, against a live server."""

import threading
from urllib.parse import urlsplit

import pytest
import webuiapi
from PIL import Image

from tests.api.conftest import wait_until


@pytest.fixture
def api(server):
    address = urlsplit(server)
    return webuiapi.WebUIApi(host=address.hostname, port=address.port, steps=3)


SMALL = {"width": 64, "height": 64, "seed": 5}


def test_img2img(api, picture):
    result = api.img2img(images=[picture], prompt="a house", cfg_scale=6.5, **SMALL)
    assert result.image.size == (64, 64) and result.info["seed"] == 5 and result.parameters["cfg_scale"] == 6.5
    assert result.info["sampler_name"] == "Euler a" and result.info["infotexts"][0].startswith("a house\n")


def test_img2img_with_a_mask_and_a_batch(api, picture, mask):
    result = api.img2img(images=[picture], mask_image=mask, inpainting_fill=1, inpaint_full_res=False, batch_size=2, n_iter=2,
                         **SMALL)
    assert len(result.images) == 4 and result.info["all_seeds"] == [5, 6, 7, 8]
    assert all(image.getpixel((1, 1)) == picture.getpixel((1, 1)) for image in result.images)


def test_img2img_in_threads(api, picture):
    results = {}

    def make(seed):
        results[seed] = api.img2img(images=[picture], **SMALL | {"seed": seed})

    threads = [threading.Thread(target=make, args=[seed]) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [result.info["seed"] for _, result in sorted(results.items())] == [0, 1, 2, 3]


def test_txt2img(api):
    assert api.txt2img(prompt="a house", **SMALL).image.size == (64, 64)


def test_progress_interrupt_and_skip(api, picture):
    results = []

    def make():
        results.append(api.img2img(images=[picture], steps=1000, denoising_strength=1, n_iter=3, **SMALL))

    maker = threading.Thread(target=make)
    maker.start()
    wait_until(lambda: api.get_progress()["state"]["sampling_step"] > 0)
    assert 0 < api.get_progress()["progress"] <= 1 and api.get_progress()["state"]["job_count"] == 3
    assert api.skip() is None
    wait_until(lambda: api.get_progress()["state"]["job_no"] == 1)
    assert api.interrupt() == {}
    maker.join(60)
    assert 1 <= len(results[0].images) <= 2
    api.util_wait_for_ready(check_interval=0.05)


def test_options_are_read_set_and_read_again(api):
    assert api.get_options()["samples_format"] == "png"
    assert api.set_options({"samples_format": "jpg", "CLIP_stop_at_last_layers": 2}) is None
    assert api.get_options()["samples_format"] == "jpg" and api.get_options()["CLIP_stop_at_last_layers"] == 2


def test_a_model_is_chosen_by_its_listed_name(api):
    names = api.util_get_model_names()
    api.util_set_model(names[0])
    assert api.util_get_current_model().startswith("demo-model")
    api.refresh_checkpoints()


def test_png_info_gives_back_what_img2img_wrote(api, picture):
    made = api.img2img(images=[picture], prompt="a cat, a dog", negative_prompt="rain", **SMALL)
    read = api.png_info(made.image)
    assert read.info == made.info["infotexts"][0]
    assert (read.parameters["Prompt"], read.parameters["Seed"]) == ("a cat, a dog", "5")


def test_extras(api, picture):
    one = api.extra_single_image(image=picture, upscaler_1=webuiapi.Upscaler.Lanczos, upscaling_resize=1.5)
    assert one.image.size == (96, 96) and one.info.startswith("<p>")
    many = api.extra_batch_images(images=[picture, Image.new("RGB", (16, 8))], upscaler_1="Nearest", upscaling_resize=2)
    assert [image.size for image in many.images] == [(128, 128), (32, 16)]


def test_interrogating_says_that_there_is_no_model(api, picture):
    with pytest.raises(RuntimeError, match="Model not found"):
        api.interrogate(image=picture)


@pytest.mark.parametrize("call, kind", [
    ("get_samplers", list), ("get_schedulers", list), ("get_sd_vae", list), ("get_upscalers", list),
    ("get_latent_upscale_modes", list),
    ("get_loras", list), ("get_sd_models", list), ("get_hypernetworks", list), ("get_face_restorers", list),
    ("get_realesrgan_models", list),
    ("get_prompt_styles", list), ("get_scripts", dict), ("get_embeddings", dict), ("get_memory", dict), ("get_cmd_flags", dict),
    ("get_options", dict), ("get_progress", dict), ("util_get_sampler_names", list), ("util_get_scheduler_names", list)])
def test_every_list_is_given(api, call, kind):
    assert isinstance(getattr(api, call)(), kind)


def test_what_a1111_does_not_have_either_is_told_so(api):
    assert api.get_artists() == {"detail": "Not Found"}
