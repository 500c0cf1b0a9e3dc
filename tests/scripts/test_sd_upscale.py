"""SD upscale: enlarge, then redraw in tiles."""

import numpy as np
import pytest
from PIL import Image

from pipeline import scripts
from pipeline.errors import InvalidRequest
from pipeline.infotext import parse
from pipeline.processing import process_images


def upscale(make, *args, **fields):
    return scripts.run(make(script_name="SD upscale", script_args=["", *args], **fields))


def test_a_picture_of_a_tile_is_redrawn_as_it_is_without_an_upscaler(request_for):
    result = upscale(request_for, 16, "None", 2.0)
    assert result.images[0].tobytes() == process_images(request_for()).images[0].tobytes()


@pytest.mark.parametrize("upscaler, name", [("Lanczos", "Lanczos"), ("nearest", "Nearest"), (1, "Lanczos"), (2, "Nearest")])
def test_an_upscaler_is_named_or_counted(request_for, upscaler, name):
    result = upscale(request_for, 16, upscaler, 1.5)
    assert result.images[0].size == (96, 96)
    params = parse(result.info)
    assert (params["SD upscale overlap"], params["SD upscale upscaler"]) == ("16", name)


def test_each_picture_starts_from_the_next_seed_and_all_tiles_are_counted(watched):
    p = watched(script_name="SD upscale", script_args=["", 32, "Lanczos", 1.5], n_iter=2, batch_size=3)
    result = scripts.run(p)
    assert p.progress.batches == [4] and p.progress.done == 4  # 2x2 tiles in groups of 3 and 1
    assert result.all_seeds == [1, 2] and len(result.images) == 2
    assert result.images[0].tobytes() != result.images[1].tobytes()


def test_tiles_that_were_not_reached_stay_as_they_were_enlarged(watched, picture):
    p = watched(stop_after=1, script_name="SD upscale", script_args=["", 0, "Lanczos", 2.0])
    result = scripts.run(p)
    enlarged = picture.resize((128, 128), Image.Resampling.LANCZOS)
    assert result.interrupted and len(result.images) == 1
    assert np.array_equal(np.asarray(result.images[0])[64:], np.asarray(enlarged)[64:])
    assert not np.array_equal(np.asarray(result.images[0])[:64, :64], np.asarray(enlarged)[:64, :64])


def test_transparent_parts_show_the_background(request_for):
    clear = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    white = Image.new("RGB", (64, 64), "white")
    results = [upscale(request_for, 16, "None", 1, init_images=[source]).images[0].tobytes() for source in (clear, white)]
    assert results[0] == results[1]


def test_the_picture_and_its_tile_are_saved_once(request_for, tmp_path):
    upscale(request_for, 16, "Lanczos", 1.5, outpath_samples=str(tmp_path), outpath_grids=str(tmp_path))
    files = list(tmp_path.rglob("*.png"))
    assert [Image.open(file).size for file in files] == [(96, 96)]


@pytest.mark.parametrize("args, sentence", [
    ([64, "Lanczos", 2.0], "width and height must be larger than the overlap of 64 pixels"),
    ([16, "ESRGAN_4x", 2.0], 'script_args: no upscaler called "ESRGAN_4x"; valid: None, Lanczos, Nearest'),
    ([16, 3, 2.0], "no upscaler called"),
    ([16, "Lanczos", 9], "Scale Factor must be a number between 1.0 and 4.0, got 9"),
])
def test_bad_arguments_are_refused(request_for, args, sentence):
    with pytest.raises(InvalidRequest, match=sentence):
        upscale(request_for, *args)


def test_a_blank_mask_keeps_every_group_of_tiles_but_the_first(request_for, picture):
    """As in A1111, "Only masked" with a blank mask is switched off for good in the first group."""
    fields = {"mask": Image.new("L", (64, 64)), "inpaint_full_res": True, "n_iter": 2}
    first, second = upscale(request_for, 0, "Lanczos", 2.0, **fields).images[-2:]
    plain = upscale(request_for, 0, "Lanczos", 2.0).images[0]
    enlarged = np.asarray(picture.resize((128, 128), Image.Resampling.LANCZOS))
    first, second, plain = map(np.asarray, (first, second, plain))
    assert np.array_equal(first[:64, :64], plain[:64, :64]) and not np.array_equal(first[:64, :64], enlarged[:64, :64])
    assert np.array_equal(first[64:], enlarged[64:]) and np.array_equal(first[:64, 64:], enlarged[:64, 64:])
    assert np.array_equal(second, enlarged)
