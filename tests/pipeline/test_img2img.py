"""The modes: what each needs, and what it makes of what it is given."""

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import InvalidRequest
from pipeline.img2img import Mode, check_source, fitted, img2img
from pipeline.job import Finished

SMALL = {"width": 64, "height": 64, "steps": 2, "seed": 1, "sampler_name": "Euler"}


def run(engine, mode, source, **settings):
    """The one picture that a mode gives."""
    events = list(img2img(engine, mode, source, **SMALL | settings))
    assert isinstance(events[-1], Finished)
    return events[-1].results[0].images[0]


def test_img2img_ignores_a_mask(engine, picture, mask):
    assert run(engine, Mode.IMG2IMG, (picture, mask)).tobytes() == run(engine, Mode.IMG2IMG, (picture, None)).tobytes()


@pytest.mark.parametrize("mode", [Mode.INPAINT, Mode.INPAINT_UPLOAD])
def test_the_mask_modes_leave_the_rest_alone(engine, picture, mask, mode):
    result = np.asarray(run(engine, mode, (picture, mask), mask_blur=0, denoising_strength=1.0))
    changed = (result != np.asarray(picture)).any(axis=-1)
    assert changed[24:40, 24:40].any() and not changed[:16].any()


@pytest.mark.parametrize("mode", Mode)
def test_every_mode_needs_a_picture(engine, mask, mode):
    with pytest.raises(InvalidRequest, match="init_images: no picture is given") as error:
        next(img2img(engine, mode, (None, mask)))
    assert error.value.field == "init_images"


@pytest.mark.parametrize("mode, mask, sentence", [
    (Mode.INPAINT, None, "mask: it is blank; paint over what should change"),
    (Mode.INPAINT, Image.new("L", (64, 64)), "mask: it is blank; paint over what should change"),
    (Mode.INPAINT_UPLOAD, None, "mask: missing; add a picture that is white where the first one should change"),
    (Mode.INPAINT_UPLOAD, Image.new("RGB", (64, 64)), "mask: it is all black; it must be white where the picture should change"),
])
def test_a_mask_that_masks_nothing_is_refused(picture, mode, mask, sentence):
    with pytest.raises(InvalidRequest) as error:
        check_source(mode, (picture, mask), inverted=False)
    assert str(error.value) == sentence


def test_a_blank_mask_is_everything_when_it_is_inverted(engine, picture):
    result = run(engine, Mode.INPAINT_UPLOAD, (picture, Image.new("L", (64, 64))), inpainting_mask_invert=1)
    assert result.size == (64, 64)


def test_an_uploaded_mask_of_another_size_is_stretched_over_the_picture(picture, mask):
    stretched = fitted(mask.resize((200, 100)), picture)
    assert stretched.size == (64, 64) and stretched.getpixel((32, 32)) == 255 and stretched.getpixel((4, 4)) == 0


def test_resize_by_takes_the_size_from_the_picture(engine, picture):
    settings = {"selected_scale_tab": 1, "scale_by": 1.5, "width": 640, "height": 640}
    assert run(engine, Mode.IMG2IMG, (picture.crop((0, 0, 64, 48)), None), **settings).size == (96, 72)


def test_a_wrong_value_is_refused_before_anything_is_queued(engine, picture):
    with pytest.raises(InvalidRequest, match="steps must be"):
        next(img2img(engine, Mode.IMG2IMG, (picture, None), steps=0))
    assert engine.find() is None


def test_an_unknown_setting_is_a_type_error(engine, picture):
    with pytest.raises(TypeError, match="no_such_setting"):
        next(img2img(engine, Mode.IMG2IMG, (picture, None), no_such_setting=1))


def test_a_sketch_is_an_ordinary_picture(engine, picture):
    assert run(engine, Mode.SKETCH, (picture, None)).tobytes() == run(engine, Mode.IMG2IMG, (picture, None)).tobytes()


def test_an_inpaint_sketch_starts_from_the_paint_and_leaves_the_rest_alone(engine, picture):
    painted = picture.copy()
    painted.paste((255, 0, 0), (24, 24, 40, 40))
    sketched = run(engine, Mode.INPAINT_SKETCH, (picture, painted), mask_blur=0, inpainting_fill=1)
    assert np.array_equal(np.asarray(sketched)[:16], np.asarray(picture)[:16])
    mask = Image.new("L", picture.size)
    mask.paste(255, (24, 24, 40, 40))
    uploaded = run(engine, Mode.INPAINT_UPLOAD, (painted, mask), mask_blur=0, inpainting_fill=1)
    assert sketched.tobytes() == uploaded.tobytes()


def test_an_inpaint_sketch_without_paint_is_refused(engine, picture):
    with pytest.raises(InvalidRequest, match="mask: it is blank; paint over what should change"):
        next(img2img(engine, Mode.INPAINT_SKETCH, (picture, picture.copy())))


def test_a_script_that_is_not_there_is_refused_before_it_is_queued(engine, picture):
    with pytest.raises(InvalidRequest, match='no script called "Loopbak"; did you mean "Loopback"'):
        img2img(engine, Mode.IMG2IMG, (picture, None), script_name="Loopbak")


@pytest.mark.parametrize("mask, settings, told", [
    ("red", {}, "The mask has colours; coloured parts were treated as white."), ("white", {}, None),
    ("grey", {}, "The mask was nowhere more than half white; it was brightened until its lightest part was white."),
    ("grey", {"alwayson_scripts": {"Soft Inpainting": {"args": [True]}}}, None)])
@pytest.mark.parametrize("mode", [Mode.INPAINT, Mode.INPAINT_UPLOAD])
def test_a_mask_does_what_it_looks_like_and_says_so(engine, picture, mode, mask, settings, told):
    colour = {"red": (255, 0, 0), "grey": (100, 100, 100), "white": (255, 255, 255)}[mask]
    upload = Image.new("RGB", picture.size)
    upload.paste(colour, (0, 0, 32, 32))
    events = list(img2img(engine, mode, (picture, upload), width=64, height=64, steps=2, sampler_name="Euler",
                          seed=1, denoising_strength=1, mask_blur=0, inpaint_full_res=False, **settings))
    result = events[-1].results[0]
    assert [comment for comment in result.comments if "mask" in comment] == ([told] if told else [])
    if mask != "grey" or told:
        changed = np.asarray(result.images[0]) != np.asarray(picture.convert("RGB").resize((64, 64)))
        assert changed[4:28, 4:28].any(axis=-1).mean() > 0.9 and not changed[40:, 40:].any()
