import io
import struct
import zlib

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from pipeline.errors import InvalidRequest
from pipeline.originals import Originals, digest
from pipeline.uploads import EXTENSIONS, MAX_PIXELS, is_picture, open_picture

CYAN = (255, 0, 0, 0)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
TURNED = "The picture was turned upright according to its EXIF."
SEVERAL = "The file holds several pictures; the first was used."
PROFILE = "The picture's colour profile was converted to sRGB."
PLAIN_CMYK = "The picture is CMYK without a profile; it was converted to RGB without one."
SIXTEEN = "The picture has 16 bits per channel; it was converted to 8."


def noise(width=16, height=16):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encode(image, format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def opened(data):
    return open_picture(data, "init_images")


def first_pixel(data):
    return opened(data).image.getpixel((0, 0))


def refusal(data):
    with pytest.raises(InvalidRequest) as error:
        open_picture(data, "mask")
    assert error.value.field == "mask"
    return str(error.value)


def orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of_size(width, height):
    """A tiny 1-bit PNG that says it is this large."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(bytes(1 + (width + 7) // 8) * 100)) + chunk(b"IEND", b""))


def swapped_profile():
    """An RGB profile by which red is green and green is red."""
    swapped = SRGB.replace(b"rXYZ", b"....").replace(b"gXYZ", b"rXYZ").replace(b"....", b"gXYZ")
    return swapped.replace("sRGB".encode("utf-16-be"), "Swap".encode("utf-16-be"))


def black_ink_profile():
    """A CMYK profile by which every ink is black."""
    straight = bytes(range(256))
    paper, ink = bytes([255, 128, 128]), bytes([0, 128, 128])
    table = (b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *np.eye(3, dtype=int).ravel() * 65536)
             + straight * 4 + paper + ink * 15 + straight * 3)
    size = 144 + len(table)
    header = struct.pack(">I4sI4s4s4s12s4s28x3I48x", size, b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ", b"", b"acsp",
                         63190, 65536, 54061)
    return header + struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table


# every format

@pytest.mark.parametrize("format, options", [
    ("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True}),
])
def test_lossless_formats_keep_every_pixel(format, options):
    upload = opened(encode(noise(), format, **options))
    assert upload.image.mode == "RGB"
    assert upload.image.tobytes() == noise().tobytes()
    assert upload.notes == ()


@pytest.mark.parametrize("format", ["JPEG", "AVIF"])
def test_lossy_formats_open(format):
    upload = opened(encode(Image.new("RGB", (16, 16), (200, 100, 50)), format, quality=95))
    assert upload.image.getpixel((8, 8)) == pytest.approx((200, 100, 50), abs=6)
    assert upload.notes == ()


def heic(image, **options):
    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, quality=95, **options)
    return stream.getvalue()


def test_heic_opens_upright_and_in_srgb():
    left_red = Image.new("RGB", (64, 48), (200, 20, 20))
    left_red.paste((20, 20, 200), (32, 0, 64, 48))
    plain, turned = opened(heic(left_red)), opened(heic(left_red, exif=orientation(6)))
    assert (plain.image.mode, plain.image.size, plain.notes, plain.image.info) == ("RGB", (64, 48), (), {})
    assert plain.image.getpixel((5, 24)) == pytest.approx((200, 20, 20), abs=12)
    assert turned.image.size == (48, 64) and turned.image.getpixel((24, 5)) == pytest.approx((200, 20, 20), abs=12)
    swapped = opened(heic(left_red, icc_profile=swapped_profile()))
    assert swapped.notes == (PROFILE,) and swapped.image.getpixel((5, 24)) == pytest.approx((20, 200, 20), abs=12)


def test_heic_keeps_its_transparency():
    assert opened(heic(Image.new("RGBA", (16, 16), (200, 100, 50, 0)))).image.getpixel((3, 3))[3] == 0


@pytest.mark.parametrize("data", [heic(noise())[:300], b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), b"\0\0\0\x18ftypheic"])
def test_a_damaged_heic_is_refused_by_its_name(data):
    assert refusal(data) == "mask: the HEIC file is damaged or cut short; save or download it again"


def test_pictures_are_known_by_their_names(tmp_path):
    for name in ("a.png", "A.PNG", "a.jfif", "a.jpe", "a.avif", "a.bmp", "a.gif", "a.heic", "a.HIF", "a.tiff", "a.webp"):
        assert is_picture(tmp_path / name) and (tmp_path / name).suffix.lower() in EXTENSIONS
    for name in ("._a.png", ".png", "a.txt", "a", "a.png.txt", ".DS_Store"):
        assert not is_picture(tmp_path / name)


def test_a_file_opens_by_its_path(tmp_path):
    path = tmp_path / "wrong ending.jpg"
    path.write_bytes(encode(noise()))
    assert opened(path).image.tobytes() == opened(str(path)).image.tobytes() == noise().tobytes()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (7, 9)])
def test_odd_sizes_open(size):
    assert opened(encode(noise(*size))).image.size == size


def test_nothing_of_the_file_stays_with_the_picture():
    data = encode(noise(), dpi=(72, 72), icc_profile=SRGB, exif=orientation(6))
    image = opened(data).image
    assert image.info == {}
    assert dict(image.getexif()) == {}


# what cannot be read

def test_an_empty_file_is_refused():
    assert refusal(b"") == "mask: the file is empty; a picture is needed"


@pytest.mark.parametrize("data", [b"only text, whatever the file is called", encode(noise())[:20]])
def test_what_is_no_picture_is_refused_with_the_valid_formats(data):
    assert refusal(data) == ("mask: the file is not a picture that can be read; "
                             "valid: PNG, JPEG, WEBP, BMP, GIF, TIFF, AVIF, HEIC")


@pytest.mark.parametrize("format", ["EPS", "PPM", "PDF", "TGA"])
def test_formats_beside_the_list_are_refused(format):
    assert "not a picture that can be read" in refusal(encode(noise(), format))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "BMP"])
def test_a_truncated_file_is_refused(format):
    data = encode(noise(64, 64), format)
    assert refusal(data[:-len(data) // 4]) == f"mask: the {format} file is damaged or cut short; save or download it again"


def test_a_missing_file_is_refused(tmp_path):
    assert refusal(tmp_path / "gone.png") == "mask: the file cannot be opened; choose it again"


@pytest.mark.parametrize("path", ["", "a\0b.png"])
def test_a_path_that_is_no_file_is_refused(path):
    assert refusal(path) == "mask: the file cannot be opened; choose it again"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_above_100_million_pixels_is_refused_before_it_is_decoded():
    assert MAX_PIXELS == 100_000_000
    assert refusal(png_of_size(10100, 10000)) == (
        "mask: the picture is too large; at most 100 million pixels, got 10100x10000 pixels")


def test_a_decompression_bomb_is_refused():
    data = png_of_size(30000, 30000)
    assert len(data) < 2000
    assert refusal(data) == "mask: the picture is too large; at most 100 million pixels, got many more"


# animations

@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_pictures_the_first_is_taken(format):
    frames = [Image.new("RGB", (8, 8), shade) for shade in ("white", "black", "white")]
    upload = opened(encode(frames[0], format, save_all=True, append_images=frames[1:]))
    assert upload.image.getpixel((4, 4))[:3] == (255, 255, 255)
    assert upload.notes == (SEVERAL,)


def test_a_still_gif_has_no_note():
    assert opened(encode(noise(), "GIF")).notes == ()


def test_the_preview_in_a_camera_s_picture_is_not_spoken_of():
    data = encode(Image.new("RGB", (8, 8), "white"), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    upload = opened(data)
    assert upload.image.getpixel((4, 4)) == (255, 255, 255)
    assert upload.notes == ()


# modes

@pytest.mark.parametrize("image, expected", [
    (Image.new("L", (2, 2), 77), (77, 77, 77)),
    (Image.new("1", (2, 2), 1), (255, 255, 255)),
    (Image.new("LA", (2, 2), (77, 88)), (77, 77, 77, 88)),
    (Image.new("RGBA", (2, 2), (1, 2, 3, 4)), (1, 2, 3, 4)),
    (Image.new("RGBA", (2, 2), (1, 2, 3, 0)), (1, 2, 3, 0)),
])
def test_modes_become_rgb_or_rgba(image, expected):
    assert first_pixel(encode(image)) == expected


def palette(**options):
    image = Image.new("P", (2, 1))
    image.putpalette([250, 0, 0, 0, 250, 0])
    image.putpixel((1, 0), 1)
    opened_image = opened(encode(image, **options)).image
    return [opened_image.getpixel((x, 0)) for x in (0, 1)]


def test_a_palette_becomes_rgb():
    assert palette() == [(250, 0, 0), (0, 250, 0)]


def test_a_transparent_palette_entry_becomes_rgba():
    assert palette(transparency=0) == [(250, 0, 0, 0), (0, 250, 0, 255)]


def test_half_transparent_palette_entries_keep_their_alpha():
    assert palette(transparency=bytes([255, 7])) == [(250, 0, 0, 255), (0, 250, 0, 7)]


@pytest.mark.parametrize("image, key", [(Image.new("L", (2, 2), 5), 5), (Image.new("RGB", (2, 2), (1, 2, 3)), (1, 2, 3))])
def test_a_transparent_colour_becomes_alpha(image, key):
    assert first_pixel(encode(image, transparency=key))[3] == 0


def test_16_bits_are_scaled_and_not_clipped():
    levels = Image.fromarray(np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16))
    upload = opened(encode(levels))
    assert np.asarray(upload.image)[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert upload.notes == (SIXTEEN,)


def test_a_float_picture_is_refused():
    data = encode(Image.new("F", (2, 2), float("nan")), "TIFF")
    assert refusal(data) == "mask: the picture has floating-point pixels; save it with 8 or 16 bits"


# EXIF

SHADES = {"r": (255, 0, 0), "g": (0, 255, 0), "b": (0, 0, 255), "y": (255, 255, 0)}
CORNERS = {1: "rgby", 2: "gryb", 3: "ybgr", 4: "byrg", 5: "rbgy", 6: "bryg", 7: "ygbr", 8: "gyrb"}
"""By orientation: the upright picture's top left, top right, bottom left, bottom right; the file's own are "rgby"."""


def four_corners():
    image = Image.new("RGB", (4, 2))
    for box, shade in zip(((0, 0, 2, 1), (2, 0, 4, 1), (0, 1, 2, 2), (2, 1, 4, 2)), "rgby"):
        image.paste(SHADES[shade], box)
    return image


@pytest.mark.parametrize("format, options", [("PNG", {}), ("WEBP", {"lossless": True})])
@pytest.mark.parametrize("value", range(1, 9))
def test_a_picture_is_turned_upright(value, format, options):
    upload = opened(encode(four_corners(), format, exif=orientation(value), **options))
    image, name = upload.image, {shade: letter for letter, shade in SHADES.items()}
    right, bottom = image.width - 1, image.height - 1
    corners = "".join(name[image.getpixel(at)] for at in ((0, 0), (right, 0), (0, bottom), (right, bottom)))
    assert corners == CORNERS[value]
    assert image.size == ((4, 2) if value <= 4 else (2, 4))
    assert upload.notes == (() if value == 1 else (TURNED,))


def test_a_jpeg_is_turned_upright():
    assert opened(encode(noise(16, 8), "JPEG", exif=orientation(6))).image.size == (8, 16)


@pytest.mark.parametrize("value", [0, 9, 255])
def test_an_orientation_that_does_not_exist_turns_nothing(value):
    upload = opened(encode(noise(), exif=orientation(value)))
    assert upload.image.tobytes() == noise().tobytes()
    assert upload.notes == ()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
@pytest.mark.parametrize("format, options", [("PNG", {}), ("WEBP", {"lossless": True})])
@pytest.mark.parametrize("exif", [
    b"x", b"Exif\0\0junk", b"Exif\0\0MM\0*\0\0\0\x08\0\x05", b"Exif\0\0II*\0\xff\xff\xff\xff", orientation(6)[:-7],
])
def test_broken_exif_is_ignored(exif, format, options):
    assert opened(encode(noise(), format, exif=exif, **options)).image.tobytes() == noise().tobytes()


# colour profiles

@pytest.mark.parametrize("image", [noise(), noise().convert("RGBA"), noise().convert("L")])
def test_the_srgb_profile_changes_no_pixel(image):
    upload = opened(encode(image, icc_profile=SRGB))
    assert upload.image.tobytes() == image.convert(upload.image.mode).tobytes()
    assert upload.notes == ()


@pytest.mark.parametrize("image, expected", [
    (Image.new("RGB", (4, 4), (255, 0, 0)), (0, 255, 0)),
    (Image.new("RGBA", (4, 4), (255, 0, 0, 77)), (0, 255, 0, 77)),
    (Image.new("RGB", (4, 4), (255, 0, 0)).quantize(2), (0, 255, 0)),
])
def test_another_profile_is_converted_to_srgb(image, expected):
    upload = opened(encode(image, icc_profile=swapped_profile()))
    assert upload.image.getpixel((0, 0)) == pytest.approx(expected, abs=1)
    assert upload.notes == (PROFILE,)


@pytest.mark.parametrize("profile", [b"nonsense", SRGB[:200], swapped_profile()[:-40], b"\xff" * 600])
def test_a_broken_profile_is_ignored(profile):
    upload = opened(encode(noise(), icc_profile=profile))
    assert upload.image.tobytes() == noise().tobytes()
    assert upload.notes == ()


def test_a_profile_for_other_channels_is_ignored():
    assert opened(encode(noise(), icc_profile=black_ink_profile())).image.tobytes() == noise().tobytes()


def test_cmyk_without_a_profile_is_converted_plainly():
    upload = opened(encode(Image.new("CMYK", (8, 8), CYAN), "JPEG", quality=100))
    assert upload.image.getpixel((0, 0)) == pytest.approx((0, 255, 255), abs=2)
    assert upload.notes == (PLAIN_CMYK,)


def test_cmyk_is_converted_by_its_profile():
    upload = opened(encode(Image.new("CMYK", (8, 8), CYAN), "JPEG", quality=100, icc_profile=black_ink_profile()))
    assert upload.image.getpixel((0, 0)) == pytest.approx((0, 0, 0), abs=2)
    assert upload.notes == (PROFILE,)


def test_cmyk_with_a_broken_profile_is_converted_plainly():
    upload = opened(encode(Image.new("CMYK", (8, 8), CYAN), "JPEG", quality=100, icc_profile=b"nonsense"))
    assert upload.image.getpixel((0, 0)) == pytest.approx((0, 255, 255), abs=2)
    assert upload.notes == (PLAIN_CMYK,)


@pytest.mark.parametrize("image, key, pixel", [
    (Image.new("LA", (2, 2), (90, 0)), {}, (90, 90, 90)),
    (Image.new("P", (2, 2), 1), {"transparency": 1}, (0, 0, 0)),
    (Image.new("P", (2, 2), 1), {"transparency": bytes([255, 7])}, (0, 0, 0, 7)),
    (Image.new("RGBA", (2, 2), (1, 2, 3, 4)), {}, (1, 2, 3, 4)),
])
def test_over_the_api_only_some_transparency_is_seen(image, key, pixel):
    if image.mode == "P":
        image.putpalette([250, 0, 0, 0, 0, 0])
    assert open_picture(encode(image, **key), "init_images", over_api=True).image.getpixel((0, 0)) == pixel


def test_over_the_api_a_colour_profile_is_not_looked_at():
    data = encode(Image.new("RGB", (2, 2), (200, 10, 0)), icc_profile=swapped_profile())
    assert open_picture(data, "init_images", over_api=True).image.getpixel((0, 0)) == (200, 10, 0) != first_pixel(data)


@pytest.mark.parametrize("image, key, colour", [
    (Image.new("RGB", (2, 2), (1, 2, 3)), (1, 2, 3), (1, 2, 3)),
    (Image.new("L", (2, 2), 9), 9, (9, 9, 9)),
    (Image.new("L", (2, 2), 9), 0, (0, 0, 0)),
    (Image.new("P", (2, 2), 1), 1, (7, 8, 9)),
    (Image.new("P", (2, 2), 1), 0, (250, 0, 0)),
])
def test_over_the_api_a_pictures_one_transparent_colour_is_kept_beside_its_pixels(image, key, colour):
    if image.mode == "P":
        image.putpalette([250, 0, 0, 7, 8, 9])
    data = encode(image, transparency=key)
    seen = open_picture(data, "init_images", over_api=True).image
    assert (seen.mode, seen.info) == ("RGB", {"transparency": colour})
    assert "transparency" not in open_picture(data, "image").image.info
    assert digest(seen) != digest(Image.frombytes("RGB", seen.size, seen.tobytes()))


def test_an_original_keeps_its_one_transparent_colour(tmp_path):
    image = Image.new("RGB", (2, 2), (1, 2, 3))
    image.info["transparency"] = (1, 2, 3)
    originals = Originals(tmp_path)
    kept = originals.open(originals.keep(image))
    assert kept.info == image.info and digest(kept) == digest(image)
