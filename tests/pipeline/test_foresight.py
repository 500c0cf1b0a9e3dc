"""What is foretold of a mask is what process_images() then does with it."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.foresight import foresee
from pipeline.geometry import Box, Size
from pipeline.images import resize_image, used_part
from pipeline.img2img import Mode, request_of
from pipeline.masking import plan_mask
from pipeline.processing import process_images
from pipeline.scripts.each_island import parts_of

PICTURE = (96, 64)
SMALL = {"width": 64, "height": 64, "steps": 1, "seed": 1, "sampler_name": "Euler", "denoising_strength": 0.5}
BOXES = (10, 10, 20, 20), (70, 40, 84, 52)


@pytest.fixture
def source():
    """A picture and a mask with two parts."""
    y, x = np.mgrid[:64, :96]
    mask = Image.new("L", PICTURE)
    for box in BOXES:
        ImageDraw.Draw(mask).rectangle(box, fill=255)
    return Image.fromarray(np.stack([2 * x, 4 * y, x + y], axis=-1).astype(np.uint8)), mask


def request(source, mode=Mode.INPAINT, **settings):
    return request_of(mode, source, **SMALL | {"mask_blur": 2, "inpaint_full_res": 0} | settings)


@pytest.mark.parametrize("settings", [
    {"inpaint_full_res_padding": 0}, {"inpaint_full_res_padding": 32}, {"width": 128}, {"height": 96, "mask_blur": 0},
    {"inpainting_mask_invert": 1}, {"selected_scale_tab": 1, "scale_by": 0.5}])
def test_only_masked_it_is_the_crop_and_the_mask_that_the_run_uses(source, demo, settings):
    p = request(source, inpaint_full_res=1, **settings)
    told = foresee(p)
    p.sd_model = demo
    process_images(p)
    x, y, width, height = p.paste_to
    assert (told.together or told.frames[0]) == Box(x, y, x + width, y + height) and told.only_masked
    assert told.size == p.size == Size(p.init_latent.shape[3] * 8, p.init_latent.shape[2] * 8)
    acting = np.zeros(PICTURE[::-1], np.uint8)
    if told.edge is None:
        acting = np.asarray(source[1])
    else:
        acting[told.edge_box.y1:told.edge_box.y2, told.edge_box.x1:told.edge_box.x2] = np.asarray(told.edge)
    assert (acting == np.asarray(p.mask_for_overlay)).all()


def test_the_parts_that_lie_far_apart_are_those_that_the_script_runs(source):
    p = request(source, inpaint_full_res=1, inpaint_full_res_padding=4)
    told = foresee(p)
    runs = [plan_mask(mask, **p.mask_settings).crop_region for mask in parts_of(p)]
    assert told.frames == runs and len(runs) == 2 and told.together is not None
    near = foresee(request(source, inpaint_full_res=1, inpaint_full_res_padding=32))
    assert len(near.frames) == 1 and near.together is None
    whole = foresee(request(source))
    assert whole.frames == [(0, 0, *PICTURE)] and whole.together is None and not whole.only_masked


def test_hundreds_of_specks_are_not_offered_one_by_one():
    mask = Image.new("L", (400, 400))
    mask.putdata([255 if x % 40 == 0 and y % 40 == 0 else 0 for y in range(400) for x in range(400)])
    told = foresee(request((Image.new("RGB", (400, 400)), mask), inpaint_full_res=1, mask_blur=0))
    assert len(told.frames) == 1 and told.together is None


@pytest.mark.parametrize("size", [(64, 64), (200, 64), (64, 200), (48, 32)])
def test_crop_and_resize_shows_the_part_that_is_left(size):
    picture = np.zeros((64, 96, 3), np.uint8)
    box = used_part(1, Size(*PICTURE), *size)
    picture[box.y1:box.y2, box.x1:box.x2] = 255
    assert (np.asarray(resize_image(1, Image.fromarray(picture), *size))[8:-8, 8:-8] == 255).all()  # but for the smoothed edge
    assert box.size.width / box.size.height == pytest.approx(size[0] / size[1], rel=0.05)
    shrunk = Image.new("RGB", PICTURE)
    shrunk.paste("white", (box.x1 + 4, box.y1 + 4, box.x2 - 4, box.y2 - 4))
    assert np.asarray(resize_image(1, shrunk, *size))[0, 0].max() < 50  # nothing more of it is left


@pytest.mark.parametrize("mode", [0, 2, 3])
def test_otherwise_it_is_the_whole_picture(mode):
    assert used_part(mode, Size(*PICTURE), 64, 200) == (0, 0, *PICTURE)


def test_a_mask_that_acts_as_painted_needs_no_edge_and_a_large_one_is_reduced(source):
    assert foresee(request(source, mask_blur=0)).edge is None
    assert foresee(request(source, inpainting_mask_invert=1, mask_blur=0)).edge_box == (0, 0, *PICTURE)
    picture, mask = (part.resize((4800, 3200)) for part in source)
    told = foresee(request((picture, mask), inpainting_mask_invert=1))
    assert told.edge.size == (1024, 683) and told.edge_box == (0, 0, 4800, 3200)


def test_a_sketch_is_foretold_by_what_was_painted(source):
    picture, _ = source
    painted = picture.copy()
    painted.paste("red", BOXES[0])
    told = foresee(request((picture, painted), Mode.INPAINT_SKETCH, inpaint_full_res=1, mask_blur=0))
    mask = Image.new("L", PICTURE)
    mask.paste(255, BOXES[0])
    assert told.frames == foresee(request((picture, mask), inpaint_full_res=1, mask_blur=0)).frames
