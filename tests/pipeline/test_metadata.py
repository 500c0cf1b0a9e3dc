"""What picture files say of how they were made: wherever it stands in a file, and however it is encoded."""

import io
import struct
import time
import zlib

import pillow_heif
import pytest
from PIL import Image

from pipeline.infotext import exif_bytes, parse, png_info
from pipeline.metadata import MAX_INFOTEXT, decode_comment, read_metadata
from pipeline.png import MAX_TEXT, SIGNATURE, TAKEN, readable
from pipeline.uploads import open_picture

TEXT = "a red house, 猫, 🏠\nNegative prompt: fog\nSteps: 7, Sampler: Euler a, Seed: 4242, Size: 320x256, Model: other"
PLAIN = TEXT.replace("猫, 🏠", "roof")


def saved(format, image=None, **options):
    file = io.BytesIO()
    (image or Image.new("RGB", (16, 16), (9, 8, 7))).save(file, format, **options)
    return file.getvalue()


def read(data):
    found = read_metadata(data, "image")
    return found.infotext, found.items


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_with(*chunks, behind=False):
    """A PNG with more chunks, before its pixels or behind them."""
    data = saved("PNG")
    at = len(data) - 12 if behind else len(SIGNATURE) + 25
    return data[:at] + b"".join(chunks) + data[at:]


def with_comment(comment, format="JPEG"):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    return saved(format, exif=exif.tobytes())


# every format

@pytest.mark.parametrize("text", [PLAIN, TEXT])
def test_png_text_is_read_back_beside_its_other_entries(text):
    data = saved("PNG", pnginfo=png_info(text, {"parameters": "old", "postprocessing": "é", "dpi": (72, 72), 3: "x"}))
    assert read(data) == (text, {"postprocessing": "é"})


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
@pytest.mark.parametrize("behind", [False, True])
def test_png_text_is_read_wherever_it_stands(kind, behind):
    packed = zlib.compress(PLAIN.encode())
    body = {b"tEXt": PLAIN.encode(), b"zTXt": b"\0" + packed, b"iTXt": b"\1\0\0\0" + packed}[kind]
    assert read(png_with(chunk(kind, b"parameters\0" + body), behind=behind)) == (PLAIN, {})


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF", "PNG", "TIFF"])
@pytest.mark.parametrize("text", [PLAIN, TEXT])
def test_exif_text_is_read_back(format, text):
    assert read(saved(format, exif=exif_bytes(text)))[0] == text


def test_heic_text_is_read_and_nothing_of_its_container():
    assert read(heic(exif=exif_bytes(TEXT))) == (TEXT, {})


def heic(size=(40, 24), **options):
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", size, (200, 100, 50))).save(file, **options)
    return file.getvalue()


def test_exif_text_wins_over_png_text():
    assert read(saved("PNG", pnginfo=png_info("png"), exif=exif_bytes("exif")))[0] == "exif"


def test_a_gif_comment_is_the_text():
    assert read(saved("GIF", comment=PLAIN.encode()))[0] == PLAIN


def test_imagemagicks_exif_as_png_text_is_read():
    hexadecimal = exif_bytes(TEXT).hex()
    profile = f"\nexif\n{len(hexadecimal) // 2:8}\n{hexadecimal}\n"
    assert read(png_with(chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile.encode()))))[0] == TEXT


@pytest.mark.parametrize("data", [saved("PNG"), saved("JPEG", exif=b"Exif\0\0garbage"), png_with(chunk(b"eXIf", b"garbage")),
                                  png_with(chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff")), png_with(chunk(b"eXIf", b""), behind=True),
                                  saved("WEBP", exif=b"II*\0\x08\0\0\0\xff\xff")])
def test_a_picture_without_metadata_or_with_damaged_exif_has_no_text(data):
    assert read(data) == (None, {})


# UserComment

@pytest.mark.parametrize("code, text, encoding", [
    (b"UNICODE\0", TEXT, "utf-16-be"), (b"UNICODE\0", TEXT, "utf-16-le"), (b"UNICODE\0", TEXT, "utf-8"),
    (b"UNICODE\0", "\ufeff" + TEXT, "utf-16-be"), (b"UNICODE\0", "\ufeff" + TEXT, "utf-16-le"),
    (b"UNICODE\0", "\ufeff" + TEXT, "utf-8"), (b"ASCII\0\0\0", TEXT, "utf-8"), (b"ASCII\0\0\0", PLAIN, "ascii"),
    (b"ASCII\0\0\0", PLAIN.replace("roof", "Dächer"), "latin-1"), (b"ASCII\0\0\0", TEXT, "utf-16-le"),
    (b"JIS\0\0\0\0\0", PLAIN.replace("roof", "猫"), "shift_jis"), (bytes(8), TEXT, "utf-8"), (b"", TEXT, "utf-8"),
    (b"", "\ufeff" + TEXT, "utf-16-le")])
@pytest.mark.parametrize("end", [b"", b"\0", b"\0\0\0\0"])
def test_a_user_comment_is_read_by_what_it_looks_like(code, text, encoding, end):
    assert decode_comment(code + text.encode(encoding) + end) == text.removeprefix("\ufeff")


@pytest.mark.parametrize("comment, text", [(b"no charset \xff", "no charset "), (b"", None), (b"UNICODE\0", None),
                                           (b"UNICODE\0\xff", "\ufffd"), (b"ASCII\0\0\0hi", "hi")])
def test_odd_user_comments_do_no_harm(comment, text):
    assert (read(with_comment(comment))[0] or None) in (text, None)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF"])
def test_a_user_comment_written_as_a_text_field_is_read(format):
    assert read(with_comment(("ASCII\0\0\0" + PLAIN), format))[0] == PLAIN


# too much, or damaged

LARGE = b"x" * (2 << 20)


@pytest.mark.parametrize("bad, sentence", [
    (chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LARGE)), "A text in the file was left out: it is larger than 1 MiB."),
    (chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(LARGE)), "A text in the file was left out: it is larger than 1 MiB."),
    (chunk(b"iCCP", b"x\0\0" + zlib.compress(LARGE)), "The picture's colour profile was left out: it is larger than 1 MiB."),
    (chunk(b"tEXt", b"Comment\0" + LARGE * 4), "Texts in the file were left out: at most 4 MiB of them, in 1000 parts, are read."),
    (chunk(b"eXIf", LARGE * 4), "Texts in the file were left out: at most 4 MiB of them, in 1000 parts, are read."),
    (chunk(b"iCCP", b"no end"), "A damaged part of the file (iCCP) was left out."),
    (chunk(b"zTXt", b"Comment\0\7"), "A damaged part of the file (zTXt) was left out."),
    (chunk(b"pHYs", b"\0"), "A damaged part of the file (pHYs) was left out."),
    (chunk(b"cHRM", b"\0"), "A damaged part of the file (cHRM) was left out."),
    (chunk(b"tEXt", b"Comment\0x")[:-4] + b"\0\0\0\0", "A damaged part of the file (tEXt) was left out.")])
@pytest.mark.parametrize("behind", [False, True])
def test_what_pillow_would_refuse_the_file_for_is_left_out(bad, sentence, behind):
    data = png_with(bad, behind=behind)
    upload = open_picture(data, "image")
    assert upload.image.getpixel((3, 3)) == (9, 8, 7) and upload.notes == (sentence,)
    found = read_metadata(data, "image")
    assert found.items == {} and found.notes == (sentence,)


def test_texts_beside_one_that_is_too_large_are_read():
    bad = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LARGE))
    found = read_metadata(png_with(bad, chunk(b"tEXt", b"parameters\0" + PLAIN.encode())), "image")
    assert found.infotext == PLAIN and len(found.notes) == 1


@pytest.mark.parametrize("name", sorted(TAKEN))
def test_a_text_that_has_the_name_of_something_else_is_not_taken_for_it(name):
    data = png_with(chunk(b"tEXt", name + b"\0text"))
    upload = open_picture(data, "image")
    assert upload.image.mode == "RGB" and "is not a valid name for a text" in upload.notes[0]
    assert open_picture(data, "image", over_api=True).image.tobytes() == open_picture(saved("PNG"), "image").image.tobytes()


def test_a_file_without_faults_is_not_copied():
    for data in (saved("PNG", pnginfo=png_info(TEXT)), saved("JPEG"), b"no picture", SIGNATURE, SIGNATURE + b"\0\0"):
        assert readable(data)[0] is data


def test_an_animation_of_many_frames_keeps_its_texts():
    frames = [Image.new("L", (8, 8), n % 256) for n in range(1200)]
    data = saved("PNG", frames[0], save_all=True, append_images=frames[1:])
    assert readable(data)[0] is data


def test_an_infotext_without_end_is_left_out():
    found = read_metadata(png_with(chunk(b"tEXt", b"parameters\0" + b"x" * (MAX_INFOTEXT + 1))), "image")
    assert found.infotext is None and "longer than" in found.notes[0]


MEGABYTES = 50 << 20


@pytest.mark.parametrize("texts", [
    lambda: [chunk(b"tEXt", b"parameters\0" + b"x, y: z " * (MEGABYTES // 8))],
    lambda: [chunk(b"tEXt", b"parameters\0" + PLAIN.encode() * 100)] * (MEGABYTES // 13_000),
    lambda: [chunk(b"tEXt", b"a\0")] * (MEGABYTES // 14),
    lambda: [chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20)))] * (MEGABYTES // 1040)])
def test_fifty_megabytes_of_text_take_little_time_and_memory(texts):
    data = png_with(*texts())
    start = time.process_time()
    found = read_metadata(data, "image")
    parse(found.infotext or "")
    assert time.process_time() - start < 10  # 2.5 s at most here; reading all of it takes minutes
    assert found.notes and sum(len(str(item)) for item in found.items.values()) <= MAX_TEXT
