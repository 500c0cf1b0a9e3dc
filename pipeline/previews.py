"""Previews of the picture while it is sampled."""

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from pipeline.arriving import Arriving
from pipeline.errors import InvalidRequest, ModelError
from pipeline.families.base import Family
from pipeline.families.latents import LatentFormat
from pipeline.geometry import Size
from pipeline.images import from_levels, image_grid, to_levels

if TYPE_CHECKING:
    from pipeline.families.tiny import TinyDecoder


class Preview:
    """A picture of a batch, on its way from the device."""

    def __init__(self, pictures: Iterable[Tensor]):
        """pictures: (3, H, W) in [-1, 1] each."""
        self._pictures = [Arriving(to_levels(pixels)) for pixels in pictures]

    @property
    def arrived(self) -> bool:
        return all(picture.arrived for picture in self._pictures)

    def image(self) -> Image.Image:
        """The picture, once it is there."""
        return image_grid([from_levels(picture.get()) for picture in self._pictures])


def latent_to_rgb(latent: Tensor, latent_format: LatentFormat) -> Image.Image:
    """A thumbnail of one latent (C, h, w) at model scale, h x w pixels."""
    return Preview([rgb_of(latent, latent_format)]).image()


def rgb_of(latent: Tensor, latent_format: LatentFormat) -> Tensor:
    """One latent (C, h, w) at model scale as (3, h, w) in [-1, 1]: a linear map of negligible cost."""
    factors, bias = (beside(latent, numbers) for numbers in (latent_format.rgb_factors, latent_format.rgb_bias))
    rgb = torch.einsum("chw,cr->rhw", latent.float(), factors) + bias[:, None, None]
    return rgb.nan_to_num().clamp(-1, 1)  # a broken model is reported at the end


def beside(x: Tensor, numbers: Sequence) -> Tensor:
    """Numbers as a tensor on x's device, without synchronizing."""
    return torch.tensor(numbers).to(x.device, non_blocking=True)


def preview(model: Family, denoised: Tensor, method: str) -> Preview:
    """The batch `denoised` (B, C, h, w) as one picture, by the method of Options.show_progress_type.

    If the file of TAESD or Approx NN is missing or unusable, the cheap approximation is shown instead; an unusable one gives a
    note.
    """
    if method == "Full":
        return Preview(model.decode(denoised))
    if (decoder := small_decoder(model, method)) is not None:
        try:
            return Preview(pixels.clamp(-1, 1) for pixels in decoder.decode(denoised))
        except ModelError as error:
            model.tiny, model.approx = (None if other is decoder else other for other in (model.tiny, model.approx))
            model.notes.append(f"Previews are approximate: {error}.")
    return Preview(rgb_of(latent, model.latent_format) for latent in denoised)


def small_decoder(model: Family, method: str) -> "TinyDecoder | None":
    """The model's decoder of that method; None for other methods, or if there is none."""
    return {"TAESD": model.tiny, "Approx NN": model.approx}.get(method)


def small_pixels(model: Family, latents: Tensor, method: str) -> Tensor:
    """(B, C, h, w) at model scale → (B, 3, H, W) in about [-1, 1] by Approx cheap, or by a small decoder.

    Raises InvalidRequest if its file is missing, ModelError if it cannot be used.
    """
    if method == "Approx cheap":
        return cheap_pixels(latents, model.latent_format)
    decoder = small_decoder(model, method)
    if decoder is None:
        name = f"{model.latent_format.tiny}_decoder" if method == "TAESD" else model.latent_format.approx
        there_is = "" if model.info.own_latents or name in ("", "_decoder") else f": it needs {name}.safetensors in models/VAE-approx"
        raise InvalidRequest("sd_vae_decode_method", f"sd_vae_decode_method: there is no {method} for {model.info.name}{there_is}")
    return decoder.decode(latents)


def cheap_pixels(latents: Tensor, latent_format: LatentFormat) -> Tensor:
    """(B, C, h, w) at model scale → roughly (B, 3, h, w) in [-1, 1]."""
    factors = beside(latents, latent_format.cheap_rgb_factors or latent_format.rgb_factors)
    return torch.einsum("bchw,cr->brhw", latents.float(), factors)


THUMBNAIL = 128
"""Side in pixels up to which a preview counts as a thumbnail."""


def pack(image: Image.Image) -> bytes:
    """A preview as a file of a few KiB: a PNG thumbnail, enlarged when shown, or a JPEG of a larger picture."""
    stream = io.BytesIO()
    if max(image.size) <= THUMBNAIL:
        image.save(stream, "PNG", compress_level=1)
    else:
        image.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def unpack(data: bytes) -> Image.Image:
    """The picture that pack() was given, up to JPEG losses."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def to_jpeg(image: Image.Image, size: Size) -> bytes:
    """`image` enlarged to fit into `size`, as JPEG, which encodes and loads much faster than PNG."""
    scale = min(size.width / image.width, size.height / image.height)
    if scale > 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=85)
    return stream.getvalue()
