"""What the picture looks like so far."""

import io

import torch
from PIL import Image
from torch import Tensor

from pipeline.errors import ModelError
from pipeline.families.base import Family, LatentFormat
from pipeline.geometry import Size
from pipeline.images import image_grid, to_image


def latent_to_rgb(latent: Tensor, latent_format: LatentFormat) -> Image.Image:
    """A thumbnail of one latent (C, h, w) at model scale, h x w pixels: a linear map, too cheap to be noticed."""
    factors = torch.tensor(latent_format.rgb_factors, device=latent.device)
    bias = torch.tensor(latent_format.rgb_bias, device=latent.device)
    rgb = torch.einsum("chw,cr->rhw", latent.float(), factors) + bias[:, None, None]
    return to_image(rgb.nan_to_num().clamp(-1, 1))  # a broken model is told at the end


def preview(model: Family, denoised: Tensor, method: str) -> Image.Image:
    """The batch `denoised` (B, C, h, w) as one picture, by the method of Options.show_progress_type.

    TAESD is the quick approximation where its file is not there, or cannot be used, which is told then.
    """
    if method == "Full":
        return image_grid([to_image(pixels) for pixels in model.decode(denoised)])
    if method == "TAESD" and model.tiny is not None:
        try:
            return image_grid([to_image(pixels.clamp(-1, 1)) for pixels in model.tiny.decode(denoised)])
        except ModelError as error:
            model.tiny = None
            model.notes.append(f"Previews are approximate: {error}.")
    return image_grid([latent_to_rgb(latent, model.latent_format) for latent in denoised])


CHEAP_FACTORS = {
    **dict.fromkeys(("sd1", "sd2"), ((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473))),
    **dict.fromkeys(("sdxl", "sdxl-refiner"), ((0.3448, 0.4168, 0.4395), (-0.1953, -0.0290, 0.0250), (0.1074, 0.0886, -0.0163),
                                               (-0.3730, -0.2499, -0.2088))),
}
"""By family: latent channels to RGB in [-1, 1], as A1111 approximates them."""


def cheap_pixels(latents: Tensor, model: Family) -> Tensor:
    """(B, C, h, w) at model scale → roughly (B, 3, h, w) in [-1, 1]."""
    factors = torch.tensor(CHEAP_FACTORS.get(model.name, model.latent_format.rgb_factors), device=latents.device)
    return torch.einsum("bchw,cr->brhw", latents.float(), factors)


def to_jpeg(image: Image.Image, size: Size) -> bytes:
    """`image` enlarged to fit into `size`, as JPEG: a browser takes it in a fraction of the time of a PNG."""
    scale = min(size.width / image.width, size.height / image.height)
    if scale > 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=85)
    return stream.getvalue()
