"""Enlarging finished pictures, as A1111's Extras: by one upscaler, or by two of which one is blended over the other."""

from dataclasses import dataclass

from PIL import Image

from pipeline.errors import InvalidRequest
from pipeline.geometry import Size
from pipeline.infotext import parameters_line
from pipeline.options import Options, number
from pipeline.upscalers.names import Upscalers, Watch, go_on
from pipeline.upscaling import MAX_SIDE, Upscaler, cover, upscale

MAX_SCALE = 16
NO_FACES = ("{} must be 0, as face restoration is not supported: GFPGAN and CodeFormer are published only as pickles, which can run code, "
            "and no safetensors of them exist; got {}")


@dataclass(frozen=True)
class Extras:
    """What is asked for, under A1111's names. Raises InvalidRequest for values out of range."""

    resize_mode: int = 0
    """0: enlarge by upscaling_resize; 1: to upscaling_resize_w x upscaling_resize_h."""
    upscaling_resize: float = 2.0
    upscaling_resize_w: int = 512
    upscaling_resize_h: int = 512
    upscaling_crop: bool = True
    """In mode 1, crop the excess."""
    upscaler_1: str = "None"
    """"None": the picture stays as it is."""
    upscaler_2: str = "None"
    extras_upscaler_2_visibility: float = 0.0
    """The opacity of the second over the first."""
    gfpgan_visibility: float = 0.0
    codeformer_visibility: float = 0.0

    def __post_init__(self) -> None:
        for name in ("gfpgan_visibility", "codeformer_visibility"):
            if getattr(self, name) > 0:
                raise InvalidRequest(name, NO_FACES.format(name, getattr(self, name)))
        number("resize_mode", self.resize_mode, int, 0, 1)
        number("extras_upscaler_2_visibility", self.extras_upscaler_2_visibility, float, 0, 1)
        if self.resize_mode == 0:
            number("upscaling_resize", self.upscaling_resize, float, 0.01, MAX_SCALE)
        for name in ("upscaling_resize_w", "upscaling_resize_h") if self.resize_mode else ():
            number(name, getattr(self, name), int, 1, MAX_SIDE)

    @property
    def blends(self) -> bool:
        return self.upscaler_2 != "None" and self.extras_upscaler_2_visibility > 0

    def check(self, upscalers: Upscalers) -> None:
        """Raise InvalidRequest for an upscaler that there is not, or ModelError for one that cannot be read."""
        for name in ("upscaler_1", "upscaler_2"):
            upscalers.find(getattr(self, name), name, Options())

    def scale_of(self, size: Size) -> float:
        """The factor for a picture of that size, before cropping."""
        return self.upscaling_resize if self.resize_mode == 0 else max(
            self.upscaling_resize_w / size.width, self.upscaling_resize_h / size.height)

    def pixels_in_use(self, size: Size) -> int:
        """Pixels of a picture of that size and of its enlarged copies."""
        scale = self.scale_of(size)
        if self.upscaler_1 == "None" or max(size) * scale > MAX_SIDE:
            return size.width * size.height
        return size.width * size.height + int(size.width * scale) * int(size.height * scale) * (2 if self.blends else 1)

    @property
    def infotext(self) -> str:
        """What was done, in A1111's words."""
        if self.upscaler_1 == "None":
            return ""
        size = f"{self.upscaling_resize_w}x{self.upscaling_resize_h}"
        done: dict[str, object] = {"upscale to": size} if self.resize_mode else {"upscale by": self.upscaling_resize}
        if self.resize_mode == 1 and self.upscaling_crop:
            done["crop to"] = size
        done["upscaler"] = self.upscaler_1
        if self.blends:
            done["upscaler 2"] = self.upscaler_2
        return parameters_line({f"Postprocess {name}": value for name, value in done.items()})


def enlarge(image: Image.Image, extras: Extras, upscalers: Upscalers, options: Options, watch: Watch = go_on) -> Image.Image:
    """The picture as asked for. Raises InvalidRequest, ModelError.

    watch: as for upscalers; once it says False, the rest is left to Lanczos.
    """
    first, second = (upscalers.find(getattr(extras, name), name, options, watch) for name in ("upscaler_1", "upscaler_2"))
    if first is None:
        return image
    scale = extras.scale_of(Size(*image.size))
    if max(image.size) * scale > MAX_SIDE:
        raise InvalidRequest("upscaling_resize",
                             f"upscaling_resize: the picture would have more than {MAX_SIDE} pixels on a side")

    def by(upscaler: Upscaler) -> Image.Image:
        if extras.resize_mode == 0:
            return upscale(image, scale, upscaler)
        return cover(image, Size(extras.upscaling_resize_w, extras.upscaling_resize_h), upscaler, crop=extras.upscaling_crop)

    enlarged = by(first)
    return Image.blend(enlarged, by(second).convert(enlarged.mode), extras.extras_upscaler_2_visibility) if extras.blends else enlarged
