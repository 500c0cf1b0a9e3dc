"""A result beside its source, and what changed that its mask should have kept."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pipeline.comparing import changed_pixels, made_from
from pipeline.geometry import Size
from pipeline.processing import StableDiffusionProcessingImg2Img


def request(picture, mask, **settings):
    return StableDiffusionProcessingImg2Img(**{"init_images": [picture], "mask": mask, "width": 64, "height": 64, "steps": 1,
                                               "denoising_strength": 1, "mask_blur": 2, "inpainting_fill": 1, "inpaint_full_res": False,
                                               "seed": 1} | settings)


def kept_of(mask):
    return np.asarray(mask) == 0


def made(engine, p):
    *_, finished = engine.submit([p]).events()
    return finished.results[0].images[0]


@pytest.mark.parametrize("settings", [{}, {"inpaint_full_res": True}, {"inpainting_mask_invert": 1}, {"width": 96, "height": 64},
                                      {"width": 96, "height": 64, "resize_mode": 1}, {"mask_blur": 0}, {"width": 100, "height": 76}], ids=str)
def test_no_pixel_changes_outside_a_mask(engine, picture, mask, settings):
    p = request(picture, mask, **settings)
    after = made(engine, p)
    source, changes = made_from(p, Size(*after.size))
    assert 0 < kept_of(changes).sum() < kept_of(changes).size
    assert changed_pixels(source, after, kept_of(changes)) == 0 < changed_pixels(source, after)


def test_what_changed_outside_a_mask_is_counted(engine, picture, mask):
    p = request(picture, mask)
    after = made(engine, p)
    for x, y in ((0, 0), (5, 60), (32, 32)):  # the last is inside
        after.putpixel((x, y), (1, 2, 3))
    source, changes = made_from(p, Size(64, 64))
    assert changed_pixels(source, after, kept_of(changes)) == 2


def test_the_blurred_edge_belongs_to_the_mask(picture, mask):
    kept = kept_of(made_from(request(picture, mask, mask_blur=4), Size(64, 64))[1])
    grown = np.asarray(mask.filter(ImageFilter.MaxFilter(21))) > 0  # a blur of 4 is cut at 10 pixels
    assert not kept[np.asarray(mask) > 0].any() and kept[~grown].all() and (~kept).sum() > (np.asarray(mask) > 0).sum()


def test_without_a_mask_or_at_another_size_nothing_is_kept(picture, mask):
    assert made_from(request(picture, None), Size(64, 64))[1] is None
    assert made_from(request(picture, Image.new("L", (64, 64)), inpaint_full_res=True), Size(64, 64))[1] is None
    assert made_from(request(picture, mask), Size(128, 64))[1] is None  # such as a grid


def test_the_source_is_enlarged_as_the_request_enlarges_it(engine, picture, mask):
    """By the upscaler that the options name, or all of it would count as changed."""
    p = request(picture, mask, width=160, height=160, override_settings={"upscaler_for_img2img": "Nearest"})
    after = made(engine, p)
    source, changes = made_from(p, Size(*after.size))
    assert changed_pixels(source, after, kept_of(changes)) == 0
