"""Each masked area by itself: the same as painting and running each by hand."""

import pytest
from PIL import Image

from pipeline import scripts
from pipeline.errors import InvalidRequest
from pipeline.infotext import parse
from pipeline.processing import process_images
from pipeline.scripts import EACH_ISLAND

FIRST, SECOND = (4, 4, 16, 16), (44, 40, 58, 56)
MASKED = {"inpaint_full_res": True, "inpaint_full_res_padding": 4, "mask_blur": 2, "inpainting_fill": 1}


def mask_of(*boxes, size=(64, 64), painted=255, rest=0):
    mask = Image.new("L", size, rest)
    for box in boxes:
        mask.paste(painted, box)
    return mask


def each(make, **fields):
    return scripts.run(make(script_name=EACH_ISLAND, script_args=[], **MASKED | {"mask": mask_of(FIRST, SECOND)} | fields))


@pytest.mark.parametrize("fields", [{}, {"mask_blur": 0, "inpainting_fill": 2}, {"inpainting_fill": 0, "width": 128, "height": 64},
                                    {"seed": 5, "subseed": 9, "subseed_strength": 0.3}])
def test_it_is_pixel_for_pixel_what_two_runs_by_hand_give(request_for, fields):
    result = each(request_for, **fields)
    by_hand = request_for(**MASKED | {"mask": mask_of(FIRST)} | fields)
    by_hand = process_images(request_for(**MASKED | {"mask": mask_of(SECOND)} | fields | {"init_images": process_images(by_hand).images}))
    assert [image.tobytes() for image in result.images] == [image.tobytes() for image in by_hand.images]
    together = process_images(request_for(**MASKED | {"mask": mask_of(FIRST, SECOND)} | fields))
    assert result.images[0].tobytes() != together.images[0].tobytes()


def test_not_masked_works_too(request_for):
    how = {"inpainting_mask_invert": 1}
    result = each(request_for, mask=mask_of(FIRST, SECOND, painted=0, rest=255), **how)
    image = None
    for box in (FIRST, SECOND):
        given = {"init_images": [image]} if image else {}
        image, = process_images(request_for(**MASKED | how | given | {"mask": mask_of(box, painted=0, rest=255)})).images
    assert result.images[0].tobytes() == image.tobytes()


def test_each_picture_of_every_batch_has_its_own_seed_and_one_pass_an_area(watched, request_for):
    p = watched(script_name=EACH_ISLAND, script_args=[], mask=mask_of(FIRST, SECOND), batch_size=2, n_iter=2, **MASKED)
    result = scripts.run(p)
    assert p.progress.batches == [8] and p.progress.done == 8
    assert result.all_seeds == [1, 2, 3, 4] and len(result.images) == 5  # and a grid
    assert each(request_for, seed=3).images[0].tobytes() == result.images[3].tobytes()


def test_what_hangs_together_is_run_once(request_for, watched):
    p = watched(script_name=EACH_ISLAND, script_args=[], mask=mask_of(FIRST), **MASKED)
    result = scripts.run(p)
    assert p.progress.batches == [1]
    assert result.images[0].tobytes() == process_images(request_for(mask=mask_of(FIRST), **MASKED)).images[0].tobytes()


def test_only_one_picture_is_kept_and_it_tells_how_many_areas(request_for, tmp_path):
    result = each(request_for, outpath_samples=str(tmp_path))
    assert len(list(tmp_path.rglob("*.png"))) == 1 and len(result.paths) == 1
    said = parse(result.info)
    assert (said["Masked areas"], said["Inpaint area"], said["Seed"]) == ("2", "Only masked", "1")


def test_interrupted_it_gives_the_areas_that_are_done(watched, request_for):
    p = watched(interrupt_behind=1, script_name=EACH_ISLAND, script_args=[], mask=mask_of(FIRST, SECOND), **MASKED)
    result = scripts.run(p)
    first = process_images(request_for(mask=mask_of(FIRST), **MASKED)).images[0]
    assert result.interrupted
    assert result.images[0].crop((0, 0, 30, 30)).tobytes() == first.crop((0, 0, 30, 30)).tobytes()


@pytest.mark.parametrize("fields", [{"inpaint_full_res": False}, {"mask": None}])
def test_without_only_masked_it_is_refused(request_for, fields):
    with pytest.raises(InvalidRequest, match="Only masked") as caught:
        each(request_for, **fields)
    assert caught.value.field == "inpaint_full_res"
