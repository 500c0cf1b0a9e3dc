"""Soft inpainting: blending by degrees, and what is put back."""

import numpy as np
import pytest
import torch

from pipeline import scripts
from pipeline.infotext import parse
from pipeline.scripts.soft_inpainting import SoftInpainting, blend, halfway, opacity, weight, weighted_percentiles

ON = {"soft inpainting": {"args": [True]}}
OFF = {"soft inpainting": {"args": [False]}}


def inpaint(make, mask, always_on=ON, **fields):
    settings = {"mask": mask, "inpainting_fill": 1, "inpaint_full_res": False, "alwayson_scripts": always_on} | fields
    return scripts.run(make(**settings))


def test_the_filter_gives_the_published_numbers():
    """Measured from A1111 with the input (5y + x)^1.5."""
    values = (np.arange(25).reshape(5, 5) ** 1.5).astype(np.float32)
    brightest = weighted_percentiles(values, 0.9, 1.0)
    assert brightest[0] == pytest.approx([19.0372, 24.6522, 29.2187, 32.7106, 32.3914], abs=1e-4)
    assert brightest[4] == pytest.approx([95.8620, 102.8069, 109.9119, 114.9177, 117.5755], abs=1e-4)
    middle = weighted_percentiles(brightest, 0.25, 0.75)
    assert middle[2] == pytest.approx([74.2040, 78.2294, 83.3470, 87.1178, 88.8904], abs=1e-4)


def test_weights_fall_to_nothing():
    weights = [1, .634486, .400125, .153509, .091733, .010441, 0]
    assert [weight(squared) for squared in (0, 1, 2, 4, 5, 8, 9)] == pytest.approx(weights, abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_at_its_ends_the_blend_is_either_latent(share):
    init, current = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)).chunk(2)
    wanted = current if share else init
    assert blend(init, current, torch.full((4, 8, 8), share), 4).allclose(wanted, atol=1e-3)


def test_the_longer_latent_counts_more_where_contrast_is_boosted():
    init, current = torch.full((1, 4, 1, 1), 1.0), torch.full((1, 4, 1, 1), 3.0)
    lengths = [blend(init, current, torch.full((4, 1, 1), 0.5), contrast).norm().item() for contrast in (1, 4, 16)]
    assert lengths[0] == pytest.approx(4, abs=1e-3) and lengths == sorted(lengths)


def test_the_result_is_shown_where_much_has_changed():
    half = halfway(np.ones((9, 9), np.float32), SoftInpainting())
    distance = np.zeros((9, 9), np.float32)
    distance[:, 5:] = 50
    shown = opacity(distance, half, 2)
    assert shown[4, 0] == pytest.approx(0) and shown[4, 8] > 0.99


def test_where_no_difference_is_wanted_everything_is_shown_or_nothing():
    shown = opacity(np.array([[0.0, 9.0]], np.float32).repeat(4, 0).repeat(4, 1), np.zeros((4, 8)), 2)
    assert np.isfinite(shown).all()


def test_only_with_a_mask_and_switched_on_it_acts(request_for, mask):
    plain = inpaint(request_for, mask, {})
    assert inpaint(request_for, mask, OFF).images[0].tobytes() == plain.images[0].tobytes()
    assert inpaint(request_for, mask).images[0].tobytes() != plain.images[0].tobytes()
    without = inpaint(request_for, None)
    assert "Soft inpainting enabled" not in parse(without.info)
    assert without.images[0].tobytes() == inpaint(request_for, None, {}).images[0].tobytes()


def test_the_infotext_tells_the_settings_before_those_of_the_mask(request_for, mask):
    text = inpaint(request_for, mask, {"Soft Inpainting": {"args": [True, 2, 0.8, 8, 0.5, 1.0, 4]}}).info
    assert ("Soft inpainting enabled: True, Soft inpainting schedule bias: 2, Soft inpainting preservation strength: 0.8, "
            "Soft inpainting transition contrast boost: 8, Soft inpainting mask influence: 0.5, "
            "Soft inpainting difference threshold: 1.0, Soft inpainting difference contrast: 4, Mask blur: 4") in text


@pytest.mark.parametrize("fields", [
    {}, {"inpaint_full_res": True, "inpaint_full_res_padding": 4}, {"resize_mode": 3}, {"batch_size": 2},
])
def test_what_the_mask_leaves_alone_stays_nearly_as_it_was(request_for, mask, picture, fields):
    result = inpaint(request_for, mask, **fields)
    corner = np.asarray(result.images[-1].crop((0, 0, 8, 8))).astype(int)
    assert np.abs(corner - np.asarray(picture.crop((0, 0, 8, 8)))).mean() < 8


def test_the_mask_that_is_given_is_the_one_that_was_used(request_for, mask):
    _, shown = inpaint(request_for, mask, override_settings={"return_mask": True, "return_grid": False}).images
    values = np.unique(np.asarray(shown))
    assert len(values) > 2


def test_it_acts_in_the_runs_of_a_script_too(request_for, mask):
    args = {"script_name": "Loopback", "script_args": [2, 0.4, "Linear", "None"]}
    result = inpaint(request_for, mask, **args)
    assert all("Soft inpainting enabled" in image.info["parameters"] for image in result.images)
    assert result.images[1].tobytes() == inpaint(request_for, mask).images[0].tobytes()
