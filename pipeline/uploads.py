"""Decodes picture files of any format to upright 8-bit sRGB pictures, or gives one sentence on why not."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms
from PIL.ExifTags import IFD, Base

from pipeline.errors import InvalidRequest
from pipeline.geometry import Size
from pipeline.png import readable

FORMATS = {"PNG": (".png", ".apng"), "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "WEBP": (".webp",), "BMP": (".bmp", ".dib"),
           "GIF": (".gif",), "TIFF": (".tif", ".tiff"), "AVIF": (".avif",), "HEIC": (".heic", ".heif", ".hif")}
"""Accepted formats, with their extensions."""
EXTENSIONS = tuple(ending for endings in FORMATS.values() for ending in endings)
PILLOW_FORMATS = tuple(name for name in FORMATS if name != "HEIC")
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
AVIF_BRANDS = {b"avif", b"avis"}
MAX_PIXELS = 100_000_000
"""More than any camera's picture, less than would fill the memory."""

Turn = Image.Transpose
TURNS = {2: Turn.FLIP_LEFT_RIGHT, 3: Turn.ROTATE_180, 4: Turn.FLIP_TOP_BOTTOM, 5: Turn.TRANSPOSE,
         6: Turn.ROTATE_270, 7: Turn.TRANSVERSE, 8: Turn.ROTATE_90}
"""EXIF orientation → the transposition that makes the picture upright."""


@dataclass(frozen=True)
class Upload:
    """A decoded file."""

    image: Image.Image
    """RGB, or RGBA if the file has transparency."""
    notes: tuple[str, ...]
    """A sentence on each conversion."""
    exif: bytes | None = None
    """The file's EXIF, for results made from it; without facts about the file itself."""


def is_picture(file: Path) -> bool:
    """Whether a file's name has an extension in FORMATS. Names starting with a dot are metadata of other programs."""
    return file.suffix.lower() in EXTENSIONS and not file.name.startswith(".")


def open_picture(data: bytes | str | Path, field: str, *, over_api: bool = False) -> Upload:
    """Decode a file's bytes, or the file at a path. Raises InvalidRequest naming `field`.

    over_api: treat transparency and colour profiles as A1111's API does (the latter are ignored). The picture is turned
    upright; CMYK, 16-bit and colour-managed pictures become 8-bit sRGB; only an animation's first frame is used.
    """
    image, notes = load_file(data, field)
    if getattr(image, "is_animated", False) and image.format != "MPO":  # MPO: a camera's picture with a preview or a depth map
        notes.append("The file holds several pictures; the first was used.")
    with damage_told(image.format, field):
        return Upload(*normalised(image, notes, field, over_api=over_api), lasting_exif(image))


def load_file(data: bytes | str | Path, field: str) -> tuple[Image.Image, list[str]]:
    """(the picture in its own format, with the file's data in `info`; sentences on what was left out).

    Raises InvalidRequest naming `field`.
    """
    image, notes = opened(data, field)
    with damage_told(image.format, field):
        image.load()  # text chunks may follow the pixels
    if image.format == "HEIC":
        image.info = {name: value for name, value in image.info.items() if name in ("exif", "xmp", "icc_profile") and value}
    return image, notes


def open_file(data: bytes | str | Path, field: str) -> Image.Image:
    """A picture of which only the header is read. Raises InvalidRequest naming `field`."""
    return opened(data, field)[0]


def opened(data: bytes | str | Path, field: str) -> tuple[Image.Image, list[str]]:
    """open_file()'s picture, and sentences on what was left out of the file."""
    try:
        data = data if isinstance(data, bytes) else Path(data).read_bytes()
    except (OSError, ValueError) as error:
        raise InvalidRequest(field, f"{field}: the file cannot be opened; choose it again") from error
    if not data:
        raise InvalidRequest(field, f"{field}: the file is empty; a picture is needed")
    if is_heic(data):
        image, notes = open_heic(data, field), []
    else:
        data, notes = readable(data)
        try:
            image = Image.open(io.BytesIO(data), formats=PILLOW_FORMATS)
        except Image.DecompressionBombError:
            raise too_large(field, None) from None
        except Exception as error:  # Pillow raises many kinds of errors for files that are not pictures
            raise InvalidRequest(field, f"{field}: the file is not a picture that can be read; "
                                        f"valid: {', '.join(FORMATS)}") from error
    if image.width * image.height > MAX_PIXELS:
        raise too_large(field, image)
    return image, notes


def is_heic(data: bytes) -> bool:
    brands = {data[at:at + 4] for at in (8, *range(16, min(int.from_bytes(data[:4]), 256), 4))}
    return data[4:8] == b"ftyp" and bool(brands & HEIC_BRANDS) and not brands & AVIF_BRANDS


def open_heic(data: bytes, field: str) -> Image.Image:
    """A HEIC picture of which only the header is read."""
    from pillow_heif import HeifImageFile  # a large library for a rare format

    with damage_told("HEIC", field):
        image = HeifImageFile(io.BytesIO(data))
    image.format = "HEIC"
    return image


@contextmanager
def damage_told(format: str | None, field: str) -> Iterator[None]:
    """Turns decoders' errors into InvalidRequest."""
    try:
        yield
    except (InvalidRequest, MemoryError):
        raise
    except Exception as error:
        raise InvalidRequest(field, f"{field}: the {format} file is damaged or cut short; save or download it again") from error


def count_pixels(data: bytes | str | Path, field: str) -> int:
    """A picture's pixels according to its header, without decoding. Raises InvalidRequest naming `field`."""
    image = open_file(data, field)
    return image.width * image.height


def too_large(field: str, image: Image.Image | None) -> InvalidRequest:
    came = f"{image.width}x{image.height} pixels" if image is not None else "many more"
    return InvalidRequest(field, f"{field}: the picture is too large; at most {MAX_PIXELS // 1_000_000} million "
                                 f"pixels, got {came}")


def normalised(image: Image.Image, notes: list[str], field: str, *, over_api: bool) -> tuple[Image.Image, tuple[str, ...]]:
    """(a loaded picture as RGB or RGBA, the notes plus those on conversions)."""
    # A1111: its API uses pixel values as they are and ignores colour profiles
    profile = None if over_api else image.info.get("icc_profile")
    image, turned = upright(image)
    if turned:
        notes.append("The picture was turned upright according to its EXIF.")
    if image.mode == "F":
        raise InvalidRequest(field, f"{field}: the picture has floating-point pixels; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        notes.append("The picture has 16 bits per channel; it was converted to 8.")
        image = Image.fromarray((np.clip(np.asarray(image), 0, 65535) / 257 + 0.5).astype(np.uint8))
    transparent = counts_as_transparent(image) if over_api else has_transparency(image)
    if transparent or image.mode not in ("CMYK", "L"):
        image = image.convert("RGBA" if transparent else "RGB")
    image, converted = to_srgb(image, profile) if profile else (image, False)
    if converted:
        notes.append("The picture's colour profile was converted to sRGB.")
    elif image.mode == "CMYK":
        notes.append("The picture is CMYK without a profile; it was converted to RGB without one.")
    image = image.convert("RGBA" if transparent else "RGB")
    colour = image.info.get("transparency") if over_api else None
    image.info.clear()
    if isinstance(colour, (int, tuple)):
        # A1111: pixels of a picture's transparent colour are not put back with the unmasked part
        image.info["transparency"] = colour if isinstance(colour, tuple) else (colour, 0, 0)
    return image, tuple(notes)


def has_transparency(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def counts_as_transparent(image: Image.Image) -> bool:
    # A1111: its API ignores a grey picture's alpha and a single transparent colour, and uses the colours beneath
    return image.mode == "RGBA" or image.mode in ("RGB", "P") and isinstance(image.info.get("transparency"), bytes)


def upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """(the picture turned upright by its EXIF orientation, whether that changed it). Unreadable EXIF is dropped."""
    try:
        turn = TURNS.get(image.getexif().get(Base.Orientation))
    except Exception:  # Pillow raises many kinds of errors
        turn = None
    return (image, False) if turn is None else (image.transpose(turn), True)


def upright_size(image: Image.Image) -> Size:
    """The size after upright(), from the header alone."""
    try:
        turned = image.getexif().get(Base.Orientation) in (5, 6, 7, 8)
    except Exception:  # Pillow raises many kinds of errors
        turned = False
    return Size(image.height, image.width) if turned else Size(image.width, image.height)


def lasting_exif(image: Image.Image) -> bytes | None:
    """A picture's EXIF without facts about its file: orientation, size, preview and infotext."""
    if "exif" not in image.info:
        return None
    try:
        exif = image.getexif()
        camera = exif.get_ifd(IFD.Exif)
        for tags, outdated in ((exif, (Base.Orientation, Base.ImageWidth, Base.ImageLength)),
                               (camera, (Base.UserComment, Base.ExifImageWidth, Base.ExifImageHeight))):
            for tag in outdated:
                tags.pop(tag, None)
        return exif.tobytes() if len(exif) or camera else None
    except Exception:  # Pillow raises many kinds of errors
        return None


def to_srgb(image: Image.Image, profile: bytes) -> tuple[Image.Image, bool]:
    """(an RGB, RGBA, CMYK or L picture in sRGB, whether it had another profile).

    An unusable profile is dropped.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return image, False
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode), True
    except (ImageCms.PyCMSError, OSError):
        return image, False
