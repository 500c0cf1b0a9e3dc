"""From the autoencoder's latents to those that a network sees, and back."""

import pytest
import torch

from pipeline.families.latents import LatentFormat

OWN = torch.arange(2 * 4 * 4 * 6.0).reshape(2, 4, 4, 6)
FORMATS = {
    "scaled": LatentFormat(scale=0.5),
    "shifted": LatentFormat(scale=0.36, shift=0.12),
    "per channel": LatentFormat(mean=(1.0, 2.0, 3.0, 4.0), deviation=(2.0, 1.0, 4.0, 0.5)),
    "patches": LatentFormat(channels=16, downscale=16, patch=2, mean=tuple(range(16)), deviation=(2.0,) * 16),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_way_back_leads_to_where_it_began(name):
    torch.testing.assert_close(FORMATS[name].out_of(FORMATS[name].into(OWN)), OWN)


def test_the_shift_is_taken_off_before_the_scale():
    assert FORMATS["shifted"].into(torch.full((1, 4, 1, 1), 1.12)).unique().item() == pytest.approx(0.36)


def test_each_channel_has_its_own_mean_and_deviation():
    assert FORMATS["per channel"].into(torch.full((1, 4, 1, 1), 5.0)).flatten().tolist() == [2.0, 3.0, 0.5, 2.0]


def test_a_patch_is_one_cell_with_more_channels():
    packed = LatentFormat(scale=1.0, channels=16, downscale=16, patch=2).into(OWN)
    assert packed.shape == (2, 16, 2, 3) and packed[0, :4, 0, 0].tolist() == [OWN[0, 0, y, x].item() for y, x in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert FORMATS["patches"].autoencoder_downscale == 8
