"""Both outpainting scripts: how far a picture grows, and that the rest of it stays."""

import numpy as np
import pytest

from pipeline import scripts
from pipeline.errors import InvalidRequest
from pipeline.geometry import Size
from pipeline.infotext import parse
from pipeline.matched_noise import matched_noise
from pipeline.scripts.outpainting import DIRECTIONS, growth

MK2, POOR = "Outpainting mk2", "Poor man's outpainting"


@pytest.mark.parametrize("size, pixels, directions, expected", [
    ((128, 128), 64, ["left", "right"], (64, 64, 0, 0, (256, 128))),
    ((128, 128), 32, ["left"], (64, 0, 0, 0, (192, 128))),
    ((100, 128), 32, ["left", "right"], (46, 46, 0, 0, (192, 128))),
    ((100, 100), 8, ["up", "down", "right"], (0, 28, 14, 14, (128, 128))),
    ((100, 128), 64, ["down"], (0, 0, 0, 64, (128, 192))),
])
def test_the_whole_becomes_a_multiple_of_64(size, pixels, directions, expected):
    grown = growth(Size(*size), pixels, directions)
    assert (grown.left, grown.right, grown.up, grown.down, grown.target) == expected


@pytest.mark.parametrize("title, args", [(MK2, ["", 16, 4, [], 1.0, 0.05]), (POOR, [16, 4, 0, []])])
def test_a_side_must_be_named(request_for, title, args):
    with pytest.raises(InvalidRequest, match="must name at least one side"):
        scripts.run(request_for(script_name=title, script_args=args))


@pytest.mark.parametrize("title, args", [
    (MK2, ["", 64, 2, ["left", "down"], 1.0, 0.05]), (POOR, [32, 2, "fill", ["left", "down"]]),
])
def test_the_middle_of_the_picture_stays(request_for, picture, title, args):
    result = scripts.run(request_for(script_name=title, script_args=args, width=128, height=128))
    image, = result.images
    assert image.size == (128, 128)
    kept = np.asarray(image.crop((64 + 24, 0, 128, 40))).astype(int)
    assert np.abs(kept - np.asarray(picture.crop((24, 0, 64, 40)))).mean() < 2
    assert "Mask blur" in parse(result.info)


def test_mk2_runs_once_a_side_and_gives_every_picture_of_every_batch(watched):
    p = watched(script_name=MK2, script_args=["", 64, 2, list(DIRECTIONS), 1.0, 0.05], batch_size=2)
    result = scripts.run(p)
    assert p.progress.batches == [4] and p.progress.done == 4
    assert [image.size for image in result.images] == [(384, 192), (192, 192), (192, 192)]
    assert result.images[1].tobytes() != result.images[2].tobytes()


def test_mk2_blurs_only_along_the_axes_that_grow(request_for):
    args = ["", 64, 3, ["left"], 1.0, 0.05]
    assert "Mask blur" not in parse(scripts.run(request_for(script_name=MK2, script_args=args)).info)


def test_mk2_refuses_a_blur_that_leaves_nothing(request_for, picture):
    p = request_for(script_name=MK2, script_args=["", 8, 64, ["left"], 1.0, 0.05], init_images=[picture.resize((16, 64))])
    with pytest.raises(InvalidRequest, match="Mask blur is larger than the picture"):
        scripts.run(p)


def test_poor_mans_skips_tiles_of_the_source_alone_and_counts_seeds_up(watched, picture):
    p = watched(script_name=POOR, script_args=[16, 2, 1, ["right"]], init_images=[picture.resize((192, 64))])
    result = scripts.run(p)
    assert result.images[0].size == (256, 64)
    boxes = 5  # of 64 pixels with 16 shared: at 0, 48, 96, 144 and 192; the first three lie within the source
    assert p.progress.batches == [boxes - 3]


def test_poor_mans_keeps_what_was_not_reached(watched, picture):
    p = watched(stop_after=1, script_name=POOR, script_args=[32, 2, 0, ["left", "right"]], width=64, height=64)
    result = scripts.run(p)
    image, = result.images
    assert result.interrupted and p.progress.done == 1
    assert np.asarray(image.crop((80, 0, 96, 64))).tobytes() == np.asarray(picture.crop((48, 0, 64, 64))).tobytes()


# --- matched noise

@pytest.fixture
def noised(picture):
    pixels = np.asarray(picture) / 255.0
    mask = np.zeros_like(pixels)
    mask[:, 32:] = 1
    return pixels, mask, matched_noise(pixels * (1 - mask), mask, 1.0, 0.05)


def test_the_picture_is_left_alone(noised):
    pixels, mask, result = noised
    assert np.array_equal(result[:, :32], pixels[:, :32])


def test_the_noise_has_the_colours_of_the_picture(noised):
    pixels, mask, result = noised
    for channel in range(3):
        ours, theirs = np.sort(result[:, 32:, channel].ravel()), np.sort(pixels[:, :32, channel].ravel())
        assert np.abs(ours - theirs).max() < 0.02


def test_a_black_picture_gives_black_noise():
    mask = np.zeros((16, 16, 3))
    mask[:, 8:] = 1
    assert not matched_noise(np.zeros((16, 16, 3)), mask, 1.0, 0.05).any()
