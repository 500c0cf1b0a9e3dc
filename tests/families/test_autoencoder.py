"""Encoding and decoding where the precision or the size is too much for it, and with another autoencoder."""

from dataclasses import replace

import pytest
import torch

from pipeline import families
from pipeline.processing import StableDiffusionProcessingImg2Img, process_images
from tests.families.conftest import FLOAT32

LATENT = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def overflowing(checkpoint):
    """A model in float16 whose autoencoder overflows there, but not in float32."""
    place = replace(FLOAT32, vae_dtype=torch.float16)
    family = families.load(checkpoint("sd1")[1], place)
    with torch.no_grad():
        for part in ("encoder", "decoder"):
            getattr(family.modules["vae"], part).conv_in.weight.mul_(0).add_(6e4)
    return family


@torch.inference_mode()
@pytest.mark.parametrize("act", [
    lambda family: family.decode(LATENT.abs()),
    lambda family: family.encode_image(torch.ones(1, 3, 64, 64)),
])
def test_what_overflows_is_done_again_in_float32_with_a_note(act, overflowing):
    assert torch.isfinite(act(overflowing)).all()
    assert overflowing.notes == ["The autoencoder overflowed in float16, so it was run in float32."]
    act(overflowing)
    assert len(overflowing.notes) == 1


@torch.inference_mode()
def test_a_broken_latent_is_not_the_autoencoders_fault(overflowing):
    assert overflowing.decode(LATENT * torch.nan).isnan().any()
    assert overflowing.notes == []


def test_the_note_is_told_with_the_picture(overflowing, picture):
    result = process_images(StableDiffusionProcessingImg2Img(sd_model=overflowing, init_images=[picture], width=64, height=64,
                                                             steps=1, sampler_name="Euler"))
    assert "The autoencoder overflowed in float16, so it was run in float32." in result.comments
    assert overflowing.notes == []


@torch.inference_mode()
def test_only_large_pictures_are_cut_into_tiles(checkpoint, load):
    family = families.load(checkpoint("sd1")[1], FLOAT32)
    pixels = torch.rand(1, 3, 96, 160) * 2 - 1
    latent, decoded = family.encode_image(pixels), family.decode(LATENT.repeat(1, 1, 1, 2))
    family.autoencoder.cut_into_tiles(64, above=96 * 160)
    assert torch.equal(family.encode_image(pixels), latent)
    family.autoencoder.cut_into_tiles(64, above=64 * 64)
    tiled, tiled_decoded = family.encode_image(pixels), family.decode(LATENT.repeat(1, 1, 1, 2))
    assert (tiled.shape, tiled_decoded.shape) == (latent.shape, decoded.shape)
    assert not torch.equal(tiled, latent) and not torch.equal(tiled_decoded, decoded)


# --- another one, in a model that is loaded

@torch.inference_mode()
def test_a_loaded_model_takes_another_vae_and_its_own_again(checkpoint, load):
    path, other = checkpoint("sd1")[1], checkpoint("sdxl")[1]
    family, own = families.load(path, FLOAT32), load(path).decode(LATENT)
    unet, cond = family.modules["unet"], family.text_encoders
    families.change_vae(family, path, replace(family.info, vae="other"), families.Components(other))
    assert torch.equal(family.decode(LATENT), families.load(path, FLOAT32, components=families.Components(other)).decode(LATENT))
    assert not torch.equal(family.decode(LATENT), own) and family.info.vae == "other"
    families.change_vae(family, path, replace(family.info, vae=None), families.Components())
    assert torch.equal(family.decode(LATENT), own) and family.info.vae is None
    assert family.modules["unet"] is unet and family.text_encoders is cond


def test_what_is_no_vae_leaves_the_loaded_one(checkpoint, tmp_path):
    family = families.load(checkpoint("sd1")[1], FLOAT32)
    vae, damaged = family.modules["vae"], tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"nothing")
    with pytest.raises(families.ModelError, match='"damaged.safetensors" cannot be read'):
        families.change_vae(family, checkpoint("sd1")[1], replace(family.info, vae="damaged"), families.Components(damaged))
    assert family.modules["vae"] is vae and family.info.vae is None
