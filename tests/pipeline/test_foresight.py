"""What is foretold of a mask is what process_images() then does with it."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.comparing import made_from
from pipeline.foresight import Fit, foresee, lying
from pipeline.geometry import Box, Size
from pipeline.images import resize_image, used_part
from pipeline.img2img import Mode, request_of
from pipeline.masking import plan_mask
from pipeline.processing import process_images
from pipeline.scripts import ALWAYS_ON, hooked, resolve, settled_mask
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


# --- masks of other proportions

def ramp(size):
    """A mask of which every row and column can be told from the others: (width, height)."""
    y, x = np.mgrid[:size[1], :size[0]]
    return Image.fromarray((255 * (x / size[0] + y / size[1]) / 2).astype(np.uint8))


@pytest.mark.parametrize("resize_mode", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [(128, 128), (192, 64), (64, 160)])
@pytest.mark.parametrize("shape", [(150, 100), (90, 160)])
def test_a_mask_of_other_proportions_lies_over_the_picture_where_the_pipeline_puts_it(resize_mode, size, shape):
    """Resized with the picture, the mask as it lies is the mask as the pipeline resizes it."""
    picture, mask = Size(240, 200), ramp(shape)
    used = plan_mask(mask, size=Size(*size), round=True, invert=False, blur=(0, 0), resize_mode=resize_mode, only_masked=False, padding=0).image_mask
    lies, _ = lying(mask, picture, only_masked=False, resize_mode=resize_mode, size=Size(*size))
    assert lies.size == picture
    resized = resize_image(0 if resize_mode == 3 else resize_mode, lies, *size).convert("L")  # a latent upscale stretches the picture
    middle = (6, 6, size[0] - 6, size[1] - 6)  # where bands are filled, only the picture's edge is repeated
    if resize_mode == 2:
        x1, y1, x2, y2 = placed_in(picture, size)
        middle = (x1 + 3, y1 + 3, x2 - 3, y2 - 3)
    apart = np.abs(np.asarray(resized.crop(middle)).astype(int) - np.asarray(used.convert("L").crop(middle)))
    assert apart.max() <= 6


def placed_in(picture, size):
    """The picture's box in what "Resize and fill" makes of it."""
    scale = min(size[0] / picture.width, size[1] / picture.height)
    width, height = picture.width * scale, picture.height * scale
    return (round((size[0] - width) / 2), round((size[1] - height) / 2), round((size[0] + width) / 2), round((size[1] + height) / 2))


def test_only_masked_stretches_a_mask_whatever_the_resize_mode():
    picture, mask = Size(240, 200), ramp((150, 100))
    lies, rule = lying(mask, picture, only_masked=True, resize_mode=1, size=Size(64, 64))
    p = request((Image.new("RGB", picture), mask), Mode.INPAINT_UPLOAD, inpaint_full_res=1, resize_mode=1)
    assert rule is Fit.STRETCHED and lies.tobytes() == p.image_mask.convert("L").tobytes()


@pytest.mark.parametrize("resize_mode, rule", [(0, Fit.STRETCHED), (1, Fit.CROPPED), (2, Fit.FILLED), (3, Fit.FILLED)])
def test_the_rule_is_said(resize_mode, rule):
    assert lying(ramp((150, 100)), Size(240, 200), only_masked=False, resize_mode=resize_mode, size=Size(64, 64))[1] is rule


def test_a_long_thin_picture_needs_no_more_than_its_share_of_memory():
    lies, _ = lying(ramp((150, 100)), Size(4, 4000), only_masked=False, resize_mode=2, size=Size(2048, 64))
    assert lies.size == (4, 4000)


def test_the_edge_is_shown_where_a_mask_of_other_proportions_is_used():
    mask = Image.new("L", (150, 100))
    mask.paste(255, (0, 0, 10, 100))
    told = foresee(request((Image.new("RGB", (240, 200)), mask), Mode.INPAINT_UPLOAD, resize_mode=1, mask_blur=2, width=64, height=64))
    assert told.edge is None  # its left part is cut off
    told = foresee(request((Image.new("RGB", (240, 200)), mask), Mode.INPAINT_UPLOAD, resize_mode=0, mask_blur=2, width=64, height=64))
    assert told.edge_box[0] == 0 and told.edge_box[2] < 40 and told.edge_box[3] == 200


# --- soft inpainting

SOFT = {"Soft Inpainting": {"args": [True]}}


def half_opaque():
    """A mask whose opacity counts: 100 of 255 in its left half, 200 in its right."""
    mask = Image.new("RGBA", (240, 200), (255, 255, 255, 0))
    mask.paste((255, 255, 255, 100), (40, 40, 120, 160))
    mask.paste((255, 255, 255, 200), (120, 40, 200, 160))
    return mask


def test_soft_inpainting_keeps_the_greys_that_a_run_without_it_cuts():
    source = (Image.new("RGB", (240, 200)), half_opaque())
    cut = foresee(request(source, Mode.INPAINT_UPLOAD, inpaint_full_res=1, mask_blur=0, inpaint_full_res_padding=0, width=64, height=64))
    soft = foresee(request(source, Mode.INPAINT_UPLOAD, inpaint_full_res=1, mask_blur=0, inpaint_full_res_padding=0, width=64, height=64,
                           alwayson_scripts=SOFT))
    assert cut.frames[0].x1 == 100 and soft.frames[0].x1 == 40


def test_whatever_looks_at_a_soft_inpainted_result_takes_its_mask_as_the_run_did():
    p = request((Image.new("RGB", (240, 200)), half_opaque()), Mode.INPAINT_UPLOAD, mask_blur=0, width=240, height=200, alwayson_scripts=SOFT)
    _, changes = made_from(p, Size(240, 200))
    assert (np.asarray(changes) == 0).sum() == 240 * 200 - 160 * 120


@pytest.mark.parametrize("script", [script for script in ALWAYS_ON.values() if script.uses_greys], ids=lambda script: script.title)
def test_a_script_that_is_said_to_use_greys_does_in_its_run(script, source):
    p = request(source, alwayson_scripts={script.title: {"args": [True]}})
    for hook in resolve(p)[2]:
        hook.process(p)
    assert p.rounds_mask is settled_mask(request(source, alwayson_scripts={script.title: {"args": [True]}}))["round"] is False
    assert settled_mask(request(source))["round"] is True


def test_soft_inpainting_runs_each_area_that_is_foreseen():
    mask = Image.new("RGBA", (240, 200), (255, 255, 255, 0))
    mask.paste((255, 255, 255, 100), (10, 10, 40, 40))
    mask.paste((255, 255, 255, 200), (200, 150, 230, 190))
    p = request((Image.new("RGB", (240, 200)), mask), Mode.INPAINT_UPLOAD, inpaint_full_res=1, mask_blur=0, inpaint_full_res_padding=8,
                alwayson_scripts=SOFT)
    assert len(foresee(p).frames) == len(parts_of(hooked(p, resolve(p)[2]))) == 2
