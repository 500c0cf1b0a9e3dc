import io
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import ModelError
from pipeline.families.latents import LatentFormat
from pipeline.geometry import Size
from pipeline.previews import latent_to_rgb, preview, to_jpeg

FACTORS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0))


@dataclass
class Model:
    """A family that decodes to its latent's first three channels, eight times enlarged."""

    latent_format: LatentFormat = LatentFormat(rgb_factors=FACTORS)
    tiny: object = None
    approx: object = None
    notes: list = field(default_factory=list)

    def decode(self, latent):
        return latent[:, :3].repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)


def latents(*values, height=2, width=3):
    return torch.stack([torch.tensor(row, dtype=torch.float32)[:, None, None].expand(4, height, width) for row in values])


RED, BLUE = (1, -1, -1, 0), (-1, -1, 1, 0)


def opened(jpeg):
    return Image.open(io.BytesIO(jpeg), formats=["JPEG"])


def test_a_thumbnail_has_a_pixel_a_latent_cell():
    thumbnail = latent_to_rgb(latents(RED)[0], LatentFormat(rgb_factors=FACTORS))
    assert (thumbnail.mode, thumbnail.size) == ("RGB", (3, 2))


def test_a_thumbnail_is_the_family_s_linear_map():
    factors = ((0.1, 0.2, 0.3), (0.0, 0.5, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, -0.25))
    thumbnail = latent_to_rgb(latents((2, 1, 9, 4))[0], LatentFormat(rgb_factors=factors, rgb_bias=(0.1, 0.0, 0.0)))
    expected = (np.array([0.3, 0.9, -0.4]) + 1) / 2 * 255
    assert thumbnail.getpixel((1, 1)) == pytest.approx(expected, abs=1)


def test_wild_latents_stay_in_range():
    thumbnail = latent_to_rgb(latents((100, -100, 0, 0))[0], LatentFormat(rgb_factors=FACTORS))
    assert thumbnail.getpixel((0, 0)) == (255, 0, 127)


def test_other_channel_counts_have_thumbnails_too():
    latent_format = LatentFormat(channels=16, rgb_factors=((0.0, 0.0, 0.0),) * 16)
    assert latent_to_rgb(torch.zeros(16, 2, 3), latent_format).getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("method, cell", [("Approx cheap", 1), ("Full", 8)])
def test_a_batch_is_one_grid(method, cell):
    sheet = preview(Model(), latents(RED, BLUE), method).image()
    assert sheet.size == (2 * 3 * cell, 2 * cell)
    assert sheet.getpixel((0, 0)) == (255, 0, 0)
    assert sheet.getpixel((3 * cell, 0)) == (0, 0, 255)


@pytest.mark.parametrize("method, size", [("Approx cheap", (3, 2)), ("Full", (24, 16))])
def test_a_single_picture_fills_its_preview(method, size):
    assert preview(Model(), latents(RED), method).image().size == size


class Tiny:
    """Decodes to twice the size; or cannot be read."""

    def __init__(self, error=None):
        self.error = error

    def decode(self, latent):
        if self.error:
            raise self.error
        return latent[:, :3].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) * 3


@pytest.mark.parametrize("tiny, size", [(Tiny(), (6, 4)), (None, (3, 2))])
def test_the_small_decoder_is_used_where_it_is_there(tiny, size):
    shown = preview(Model(tiny=tiny), latents(RED), "TAESD").image()
    assert shown.size == size and shown.getpixel((0, 0)) == (255, 0, 0)


def test_a_small_decoder_that_cannot_be_read_is_told_once_and_costs_no_picture():
    model = Model(tiny=Tiny(ModelError('model "taesd" cannot be loaded: it is cut short')))
    for _ in range(2):
        assert preview(model, latents(RED), "TAESD").image().size == (3, 2)
    assert model.notes == ['Previews are approximate: model "taesd" cannot be loaded: it is cut short.']


@pytest.mark.parametrize("approx, size", [(Tiny(), (6, 4)), (None, (3, 2)), (Tiny(ModelError("it is cut short")), (3, 2))])
def test_approx_nn_has_its_own_decoder(approx, size):
    model = Model(approx=approx, tiny=(tiny := Tiny()))
    assert preview(model, latents(RED), "Approx NN").image().size == size and model.tiny is tiny


@pytest.mark.parametrize("source, box, shown", [
    ((8, 8), (64, 64), (64, 64)),
    ((8, 4), (64, 64), (64, 32)),
    ((4, 8), (64, 64), (32, 64)),
    ((3, 7), (100, 50), (21, 50)),
    ((80, 40), (64, 64), (80, 40)),
])
def test_a_jpeg_is_enlarged_to_fit_its_box_and_never_shrunk(source, box, shown):
    assert opened(to_jpeg(Image.new("RGB", source), Size(*box))).size == shown


def test_a_jpeg_looks_like_its_picture():
    assert opened(to_jpeg(Image.new("RGB", (8, 8), (200, 100, 50)), Size(16, 16))).getpixel((8, 8)) == pytest.approx(
        (200, 100, 50), abs=6)


def test_a_preview_is_light_enough_for_every_step():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    assert len(to_jpeg(noise, Size(512, 512))) < 100_000
