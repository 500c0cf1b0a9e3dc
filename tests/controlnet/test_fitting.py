"""Control maps at the size of the result."""

import numpy as np

from pipeline.controlnet.fitting import border_colour, fitted, scaled, thinned
from pipeline.geometry import Size


def noise(height, width, channels=3):
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def test_crop_keeps_the_middle_and_fill_keeps_everything():
    picture = np.zeros((10, 40, 3), np.uint8)
    picture[:, 15:25] = 100
    picture[:, :5] = 50
    cropped = fitted(picture, Size(10, 10), "Crop and Resize")
    assert cropped.shape == (10, 10, 3) and (cropped == 100).all()
    filled = fitted(picture, Size(40, 40), "Resize and Fill")
    assert (filled[15:25] == picture).all() and (filled[:15] == 0).all() and (filled[25:] == 0).all()
    assert fitted(picture, Size(8, 16), "Just Resize").shape == (16, 8, 3)


def test_fill_takes_the_median_of_the_border_and_paints_beyond_a_mask():
    picture = np.full((5, 5, 4), 30, np.uint8)
    picture[2, 2] = 200
    picture[0, 0, :3] = 255
    assert border_colour(picture).tolist() == [30, 30, 30, 255]


def test_a_map_of_few_colours_gets_no_new_ones():
    picture = np.zeros((9, 9, 3), np.uint8)
    picture[3:6], picture[6:] = (200, 10, 10), (10, 200, 10)
    result = scaled(picture, Size(20, 20))
    assert {tuple(colour) for colour in result.reshape(-1, 3)} == {(0, 0, 0), (200, 10, 10), (10, 200, 10)}
    assert len(np.unique(scaled(noise(9, 40), Size(20, 20)))) > 20


def test_black_and_white_stays_black_and_white_in_both_directions():
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[8:24, 8:24] = 255
    for side in (16, 48):
        result = scaled(picture, Size(side, side))
        assert set(np.unique(result)) == {0, 255} and abs((result > 0).mean() - 0.25) < 0.03


def test_an_edge_of_one_pixel_stays_one_pixel_wide():
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[4:28, 16] = 255
    result = scaled(picture, Size(96, 96))[..., 0]
    assert set(np.unique(result)) == {0, 255}
    assert ((result[20:76] > 0).sum(axis=1) == 1).all()


def test_thinning_leaves_the_middle_of_a_bar():
    bar = np.zeros((11, 30), np.uint8)
    bar[3:8, 3:27] = 255
    thin = thinned(bar)
    assert (thin[5, 8:22] == 255).all() and ((thin[:, 8:22] > 0).sum(axis=0) == 1).all()


def test_a_mask_is_resized_with_its_picture_and_stays_hard():
    picture = noise(10, 10, 4)
    picture[..., 3] = 0
    picture[:, 5:, 3] = 255
    result = fitted(picture, Size(20, 20), "Just Resize")
    assert result.shape == (20, 20, 4) and (result[:, 10:, 3] == 255).all() and (result[:, :10, 3] == 0).all()
