"""Fast: with the demo model its options act, are told in infotext, and the way back is exact."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.fast import EXACT, exactly, is_fast
from pipeline.processing import StableDiffusionProcessingImg2Img
from tests.conftest import ROOT

SOURCE = Image.open(ROOT / "assets" / "samples" / "sea.png").convert("RGB").resize((128, 128))


def mask(*box):
    image = Image.new("L", SOURCE.size)
    ImageDraw.Draw(image).rectangle(box, fill=255)
    return image


def request(**changes):
    settings = {"init_images": [SOURCE], "prompt": "a red house", "seed": 7, "steps": 12, "denoising_strength": 0.6, "width": 128,
                "height": 128, "inpaint_full_res": False, "inpainting_fill": 1}
    return StableDiffusionProcessingImg2Img(**settings | changes)


def run(engine, p):
    """(pixels, infotext)."""
    processed = engine.submit([p]).result()[0]
    return np.asarray(processed.images[0]).astype(int), processed.infotexts[0]


@pytest.mark.parametrize("options, said", [
    ({"step_cache_interval": 3}, "Step cache interval: 3"), ({"step_cache_threshold": 0.5}, "Step cache threshold: 0.5"),
    ({"guidance_stop": 0.5}, "Guidance stop: 0.5")])
def test_an_option_changes_pixels_a_little_and_is_told_and_taken_back(engine, options, said):
    exact, plain = run(engine, request())
    p = request(override_settings=options)
    fast, told = run(engine, p)
    assert is_fast(p) and said in told and said.partition(":")[0] not in plain
    another, _ = run(engine, request(seed=8))
    assert 0 < np.abs(fast - exact).mean() < np.abs(another - exact).mean()
    assert np.array_equal(run(engine, exactly(p))[0], exact) and not is_fast(exactly(p))


EDIT = {"mask": mask(8, 8, 30, 30), "override_settings": {"edit_reuse": True}}


def test_the_first_edit_is_exact_and_the_next_one_nearly(engine):
    first, told = run(engine, request(**EDIT))
    assert np.array_equal(first, run(engine, request(mask=EDIT["mask"]))[0]) and "Edit reuse" not in told
    again, told = run(engine, request(**EDIT))
    assert "Edit reuse: True" in told and 0 < np.abs(again - first)[8:30, 8:30].mean() < 5
    other, told = run(engine, request(**EDIT, prompt="a green tree"))
    assert "Edit reuse: True" in told and np.abs(other - first)[8:30, 8:30].mean() > np.abs(again - first)[8:30, 8:30].mean()
    assert np.array_equal(other[64:], first[64:]), "what is preserved is the source"


@pytest.mark.parametrize("changes", [{"init_images": [SOURCE.rotate(90)]}, {"denoising_strength": 0.5}, {"sampler_name": "DDIM"}])
def test_another_picture_or_another_way_is_a_first_edit(engine, changes):
    run(engine, request(**EDIT))
    edit, told = run(engine, request(**EDIT | changes))
    assert "Edit reuse" not in told
    assert np.array_equal(edit, run(engine, request(**{"mask": EDIT["mask"]} | changes))[0])


def test_the_options_that_are_taken_back_are_at_their_defaults():
    assert not is_fast(request()) and not is_fast(request(override_settings=EXACT))
