"""The tab PNG info: a picture's receipt, and the button that makes it again."""

import base64
import io
import json
import re
import struct
import urllib.request
import zlib
from contextlib import contextmanager, suppress

import pillow_heif
import pytest
from PIL import Image
from playwright.sync_api import expect

import ui.png_info
from pipeline.errors import TooMany
from pipeline.infotext import png_info
from pipeline.limits import Client
from tests.conftest import ROOT
from tests.ui.steps import generate, has_picture, held, open_tab, paint, put, put_in_editor, refused, result, set_slider, settle, shares_page
from ui.png_info import verdict_on


def saved_by(server):
    """The file of a picture that the server's API has made and saved."""
    sample = base64.b64encode((ROOT / "assets" / "samples" / "meadow.png").read_bytes()).decode()
    body = {"init_images": [sample], "width": 64, "height": 64, "steps": 3, "seed": -1, "save_images": True}
    before = set(server.outputs.rglob("*.png"))
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/sdapi/v1/img2img", json.dumps(body).encode(),
                                                  {"Content-Type": "application/json"})).read()
    return next(file for file in set(server.outputs.rglob("*.png")) - before if "originals" not in file.parts)


def drop(page, file):
    page.locator("#png-info-picture input[type=file]").first.set_input_files(str(file))


@shares_page
def test_verify_makes_a_picture_again_and_leaves_no_trace(page, server, tmp_path):
    file = saved_by(server)
    open_tab(page, "PNG info")
    receipt, verify = page.locator("#png-info-receipt textarea"), page.locator("#png-info-verify")
    expect(verify).to_be_disabled()
    drop(page, file)
    expect(verify).to_be_enabled()
    assert receipt.input_value().startswith("Made by Palimpsest ") and receipt.input_value().endswith(", in float32.")
    files = set(server.outputs.rglob("*.png"))
    verify.click()
    expect(receipt).to_have_value("Identical: made again, it has the same pixels.")
    assert set(server.outputs.rglob("*.png")) == files
    with Image.open(file) as image:
        image.putpixel((5, 5), (255, 0, 0))
        image.save(tmp_path / "edited.png", pnginfo=png_info(None, image.info))
    page.get_by_label("Remove the picture").locator("visible=true").click()
    expect(verify).to_be_disabled()
    drop(page, tmp_path / "edited.png")
    expect(verify).to_be_enabled()
    settle(page)  # what is said of the file is there
    verify.click()
    expect(receipt).to_have_value("Cannot be verified: its pixels were changed after it was made.")


@shares_page
def test_a_picture_without_a_receipt_says_so(page, tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "plain.png")
    open_tab(page, "PNG info")
    drop(page, tmp_path / "plain.png")
    expect(page.locator("#png-info-receipt textarea")).to_have_value("This picture has no receipt.")
    expect(page.locator("#png-info-verify")).to_be_disabled()


@pytest.mark.parametrize("read", [lambda info, engine, file: ui.png_info.read(info, engine, (file, None)),
                                  lambda info, engine, file: list(verdict_on(engine, None, True, Client(), (file, None)))])
def test_a_picture_is_read_when_there_is_room_for_its_pixels(engine, tmp_path, monkeypatch, read):
    """Whoever reads one asks the shelf before, by the size that the file says."""
    asked = []

    @contextmanager
    def reading(pixels, field):
        asked.append(pixels)
        raise TooMany("no room")
        yield

    monkeypatch.setattr(engine.shelf, "reading", reading)
    Image.new("1", (3000, 2000)).save(tmp_path / "large.png")
    with suppress(TooMany):
        assert read(None, engine, str(tmp_path / "large.png")) == ["Cannot be verified: no room."]
    assert asked == [6_000_000]


TEXT = "a red house\nNegative prompt: fog\nSteps: 7, Sampler: Euler a, Schedule type: Karras, CFG scale: 5.5, Seed: 4242, Size: 320x256"
WORKFLOW = json.dumps({"3": {"class_type": "KSampler", "inputs": {
    "seed": 4242, "steps": 7, "cfg": 5.5, "sampler_name": "euler_ancestral", "scheduler": "karras", "positive": ["6", 0],
    "negative": ["7", 0], "latent_image": ["5", 0]}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 320, "height": 256}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red house"}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "fog"}}})


def png_with(kind, body, *, behind=False):
    """A PNG with one more chunk, before its pixels or behind them."""
    stream = io.BytesIO()
    Image.new("RGB", (64, 48), (9, 120, 7)).save(stream, "PNG")
    data, at = stream.getvalue(), -12 if behind else 33
    return data[:at] + struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) + data[at:]


def bring_to_img2img(page):
    """What the widgets are once PNG info has sent its picture there."""
    page.locator("#png-info-to-img2img").click()
    expect(page.locator("#prompt textarea")).to_have_value("a red house")
    expect(page.locator("#negative-prompt textarea")).to_have_value("fog")
    return {label: page.get_by_label(f"number input for {label}", exact=True).input_value()
            for label in ("Sampling steps", "CFG Scale", "Width", "Height")}


@shares_page
@pytest.mark.parametrize("data, other", [
    (png_with(b"tEXt", b"parameters\0" + TEXT.encode(), behind=True), None),
    (png_with(b"tEXt", b"prompt\0" + WORKFLOW.encode()), r"Read from ComfyUI's data[\s\S]*KSampler")])
def test_settings_are_found_wherever_they_stand_and_whoever_wrote_them(page, tmp_path, data, other):
    (tmp_path / "picture.png").write_bytes(data)
    open_tab(page, "PNG info")
    drop(page, tmp_path / "picture.png")
    expect(page.locator("#png-info-text textarea")).to_have_value(TEXT)
    if other:
        expect(page.locator("#png-info-other textarea")).to_have_value(re.compile(other))
    else:
        expect(page.locator("#png-info-other")).to_be_hidden()
    assert bring_to_img2img(page) == {"Sampling steps": "7", "CFG Scale": "5.5", "Width": "320", "Height": "256"}


@shares_page
@pytest.mark.parametrize("data, other", [
    (png_with(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2 << 20))), "A text in the file was left out: it is larger than 1 MiB."),
    (png_with(b"eXIf", b"MM\0*\xff\xff\xff\xff"), None)])
def test_a_file_with_a_part_that_cannot_be_read_is_read_without_it(page, tmp_path, data, other):
    (tmp_path / "picture.png").write_bytes(data)
    open_tab(page, "PNG info")
    drop(page, tmp_path / "picture.png")
    expect(page.locator("#png-info-text textarea")).to_have_value("This picture has no generation data.")
    if other:
        expect(page.locator("#png-info-other textarea")).to_have_value(other)


@shares_page
def test_a_picture_that_says_nothing_is_brought_without_settings(page, tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "plain.png")
    page.locator("#prompt textarea").fill("my own words")
    set_slider(page, "Sampling steps", 33)
    open_tab(page, "PNG info")
    drop(page, tmp_path / "plain.png")
    expect(page.locator("#png-info-text textarea")).to_have_value("This picture has no generation data.")
    page.locator("#png-info-to-img2img").click()
    has_picture(page)
    assert page.locator("#prompt textarea").input_value() == "my own words"
    assert page.get_by_label("number input for Sampling steps", exact=True).input_value() == "33"


@shares_page
@pytest.mark.parametrize("name", ["photo.heic", "photo.avif", "photo.jfif", "photo.tiff"])
def test_a_picture_of_any_format_is_used(page, tmp_path, name):
    photo = Image.new("RGB", (64, 48), (200, 60, 20))
    if name == "photo.heic":
        pillow_heif.from_pillow(photo).save(tmp_path / name)
    else:
        photo.save(tmp_path / name, {"photo.jfif": "JPEG"}.get(name))
    put(page, "img2img-picture", tmp_path / name)
    for label, value in (("Sampling steps", 2), ("Width", 64), ("Height", 64)):
        set_slider(page, label, value)
    page.locator("#generate-img2img").click()
    assert result(page).size == (64, 64)


@shares_page
@pytest.mark.parametrize("ending", ["heic", "tiff"])
def test_what_browsers_cannot_show_is_painted_on_as_png(page, tmp_path, ending):
    photo = Image.new("RGB", (96, 64), (200, 60, 20))
    if ending == "heic":
        pillow_heif.from_pillow(photo).save(tmp_path / "photo.heic")
    else:
        photo.save(tmp_path / "photo.tiff")
    put(page, "img2img-picture", tmp_path / f"photo.{ending}")
    assert page.evaluate("window.palimpsest.canvases.of('img2img-picture').document.picture.width") == 96
    assert held(page) == (tmp_path / f"photo.{ending}").read_bytes()
    open_tab(page, "Inpaint")
    put_in_editor(page, tmp_path / f"photo.{ending}")
    paint(page, [(0.4, 0.5), (0.6, 0.5)])
    for label, value in (("Sampling steps", 2), ("Width", 64), ("Height", 64)):
        set_slider(page, label, value)
    generate(page, "inpaint")
    assert result(page).getpixel((2, 2)) == pytest.approx((200, 60, 20), abs=8)


@shares_page
def test_a_damaged_heic_is_refused_by_its_name_before_it_is_painted_on(page, tmp_path):
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))
    open_tab(page, "Inpaint")
    page.locator("#inpaint-editor .empty").wait_for()
    assert refused(page, "inpaint-editor", tmp_path / "photo.heic") == "image: the HEIC file is damaged or cut short; save or download it again"
