"""Enlarging, and reading what is written in picture files."""

import base64
import io
import json
import struct
import threading
import time
import zlib

import httpx
import pytest
from PIL import Image, PngImagePlugin

from pipeline.infotext import png_info
from tests.api.conftest import base64_of, image_of

ONE, MANY, INFO = "/sdapi/v1/extra-single-image", "/sdapi/v1/extra-batch-images", "/sdapi/v1/png-info"


@pytest.mark.parametrize("fields, size", [
    ({}, (64, 64)), ({"upscaler_1": "Lanczos"}, (128, 128)), ({"upscaler_1": "Nearest", "upscaling_resize": 3}, (192, 192)),
    ({"upscaler_1": "Lanczos", "resize_mode": 1, "upscaling_resize_w": 96, "upscaling_resize_h": 64}, (96, 64)),
    ({"upscaler_1": "Lanczos", "resize_mode": 1, "upscaling_resize_w": 96, "upscaling_resize_h": 64, "upscaling_crop": False},
     (96, 96)),
    ({"upscaler_1": "Lanczos", "upscaler_2": "Nearest", "extras_upscaler_2_visibility": 0.5}, (128, 128)),
    ({"upscaler_2": "Lanczos", "extras_upscaler_2_visibility": 1}, (64, 64))])
def test_one_picture_is_enlarged(shared, picture, fields, size):
    answer = shared.post(ONE, json={"image": base64_of(picture)} | fields)
    assert answer.status_code == 200, answer.text
    assert image_of(answer.json()["image"]).size == size and answer.json()["html_info"].startswith("<p>")


def test_the_second_upscaler_is_blended_over_the_first(shared, picture):
    def made(**fields):
        return image_of(shared.post(ONE, json={"image": base64_of(picture)} | fields).json()["image"])

    blend = made(upscaler_1="Nearest", upscaler_2="Lanczos", extras_upscaler_2_visibility=0.25)
    assert blend.tobytes() == Image.blend(made(upscaler_1="Nearest"), made(upscaler_1="Lanczos"), 0.25).tobytes()


def test_several_pictures_are_enlarged_in_their_order(shared):
    pictures = [Image.new("RGB", (8 * n, 16)) for n in (1, 2, 3)]
    listed = [{"data": base64_of(picture), "name": "x"} for picture in pictures]
    answer = shared.post(MANY, json={"upscaler_1": "Nearest", "imageList": listed})
    assert [image_of(image).size for image in answer.json()["images"]] == [(16, 32), (32, 32), (48, 32)]
    unshown = shared.post(MANY, json={"imageList": listed, "show_extras_results": False})
    assert len(unshown.json()["images"]) == 3  # as in A1111, where this is for folders


def test_an_enlarged_picture_keeps_its_infotext_and_tells_how_it_was_enlarged(shared, picture):
    fields = {"upscaler_1": "Lanczos", "resize_mode": 1, "upscaling_resize_w": 96, "upscaling_resize_h": 64}
    said = "Postprocess upscale to: 96x64, Postprocess crop to: 96x64, Postprocess upscaler: Lanczos"
    sent = base64_of(picture, pnginfo=png_info("a cat\nSteps: 3, Seed: 7, Size: 8x8", {"Author": "me"}))
    answer = shared.post(ONE, json=fields | {"image": sent}).json()
    assert image_of(answer["image"]).info == {
        "parameters": "a cat\nSteps: 3, Seed: 7, Size: 8x8", "Author": "me", "postprocessing": said}
    assert answer["html_info"] == f"<p>{said}</p>"
    plain = shared.post(ONE, json=fields | {"image": base64_of(picture)}).json()
    assert image_of(plain["image"]).info == {"postprocessing": said}


@pytest.mark.parametrize("fields, sentence", [
    ({"upscaler_1": "R-ESRGAN 4x+"}, 'upscaler_1: no upscaler called "R-ESRGAN 4x+"'),
    ({"gfpgan_visibility": 1}, "gfpgan_visibility must be 0"),
    ({"codeformer_visibility": 0.5}, "codeformer_visibility must be 0"), ({"image": "x"}, "image"),
    ({"image": ""}, "image: the file is empty"),
    ({"upscaler_1": "Lanczos", "resize_mode": 1, "upscaling_resize_w": 16384, "upscaling_resize_h": 16384, "image": "wide"},
     "16384 pixels")])
def test_what_cannot_be_done_is_one_sentence(shared, picture, fields, sentence):
    if fields.get("image") == "wide":
        fields = fields | {"image": base64_of(Image.new("RGB", (64, 8)))}
    answer = shared.post(ONE, json={"image": base64_of(picture)} | fields)
    assert answer.status_code == 422 and sentence in answer.json()["detail"]


@pytest.mark.parametrize("fields", [{"upscaling_resize": 0}, {"upscaling_resize": 1000}, {"resize_mode": 2},
                                    {"gfpgan_visibility": 2}])
def test_numbers_out_of_range_are_refused(shared, fields):
    assert shared.post(ONE, json={"image": "x"} | fields).status_code == 422


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_png_info_of_a_picture_without_any(shared, picture, form):
    answer = shared.post(INFO, json={"image": base64_of(picture, form)}).json()
    assert answer["info"] == "" and answer["parameters"]["Prompt"] == ""


def test_png_info_reads_infotext_and_what_else_there_is(shared, picture):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", "a cat\nNegative prompt: dogs\nSteps: 3, Sampler: Euler, Seed: 7, Size: 64x32")
    chunks.add_text("Author", "me")
    answer = shared.post(INFO, json={"image": base64_of(picture, pnginfo=chunks)}).json()
    assert answer["info"].startswith("a cat") and answer["items"] == {"Author": "me"}
    assert answer["parameters"]["Prompt"] == "a cat" and answer["parameters"]["Size-2"] == "32"


def test_metadata_that_no_json_can_hold_is_told_as_text(shared):
    stream = io.BytesIO()
    Image.new("P", (8, 8)).save(stream, "GIF", transparency=0, comment=b"\xff\xfe hello")
    answer = shared.post(INFO, json={"image": base64.b64encode(stream.getvalue()).decode()})
    assert answer.status_code == 200 and "hello" in answer.json()["info"]


@pytest.mark.parametrize("image", ["", "x", "data:,", "aGVsbG8=", "http://127.0.0.1/x.png", "file:///etc/passwd", None])
def test_png_info_of_no_picture_is_refused(shared, image):
    assert shared.post(INFO, json={"image": image}).status_code == 422


def test_there_is_no_interrogator(shared, picture):
    answer = shared.post("/sdapi/v1/interrogate", json={"image": base64_of(picture), "model": "clip"})
    assert answer.status_code == 404 and answer.json()["detail"] == "Model not found"


TEXT = "a red house, 猫\nNegative prompt: fog\nSteps: 7, Sampler: Euler a, Seed: 4242, Size: 320x256"


def sent(data: bytes) -> str:
    return base64.b64encode(data).decode()


def saved(image, form, **how):
    return sent(base64.b64decode(base64_of(image, form, **how)))


def with_chunk(kind, body, behind=False):
    data = base64.b64decode(base64_of(Image.new("RGB", (16, 16), (9, 8, 7))))
    at = len(data) - 12 if behind else 33
    piece = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return sent(data[:at] + piece + data[at:])


@pytest.mark.parametrize("image", [
    saved(Image.new("P", (8, 8)), "GIF", transparency=0), saved(Image.new("P", (8, 8)), "PNG", transparency=0),
    saved(Image.new("L", (8, 8)), "PNG", transparency=7), saved(Image.new("RGB", (8, 8)), "PNG", transparency=(1, 2, 3)),
    saved(Image.new("P", (8, 8)), "PNG", transparency=b"\0\x80\xff"), saved(Image.new("1", (8, 8)), "PNG", transparency=0),
    saved(Image.new("RGB", (8, 8)), "TIFF", dpi=(300, 300)), saved(Image.new("RGB", (8, 8)), "WEBP", xmp=b"<x/>"),
    saved(Image.new("RGB", (8, 8)), "JPEG", comment=b"\xff"), with_chunk(b"eXIf", b"garbage"), with_chunk(b"eXIf", b""),
    with_chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"), with_chunk(b"tEXt", b"transparency\0x"), with_chunk(b"tEXt", b"icc_profile\0x"),
    with_chunk(b"tEXt", b"exif\0x"), with_chunk(b"iTXt", "dpi\0\0\0\0\0猫".encode()), with_chunk(b"pHYs", b""),
    with_chunk(b"tEXt", b"comment\0x"), with_chunk(b"eXIf", b"II*\0\x08\0\0\0\1\0\x69\x87\4\0\1\0\0\0\x1a\0\0\0", behind=True)])
@pytest.mark.parametrize("form", ["png", "jpg", "webp"])
def test_whatever_a_file_says_beside_its_pixels_they_are_enlarged(client, backend, image, form):
    backend.settings.change({"samples_format": form})
    answer = client.post(ONE, json={"image": image, "upscaler_1": "Nearest"})
    assert answer.status_code == 200, answer.text
    assert image_of(answer.json()["image"]).width in (16, 32)
    told = client.post(INFO, json={"image": image})
    assert told.status_code == 200 and isinstance(told.json()["items"], dict)


@pytest.mark.parametrize("kind, body", [(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2 << 20))),
                                        (b"iCCP", b"x\0\0" + zlib.compress(bytes(2 << 20)))])
def test_what_is_too_large_in_a_file_is_left_out_with_a_comment(client, body, kind):
    image = with_chunk(kind, body)
    assert "larger than 1 MiB" in client.post(INFO, json={"image": image}).json()["comments"][0]
    assert client.post(ONE, json={"image": image}).status_code == 200
    fields = {"init_images": [image], "width": 16, "height": 16, "steps": 1, "sampler_name": "Euler"}
    info = json.loads(client.post("/sdapi/v1/img2img", json=fields).json()["info"])
    assert "larger than 1 MiB" in " ".join(info["comments"])


def test_png_info_reads_text_behind_the_pixels_and_other_programs_text(shared):
    behind = shared.post(INFO, json={"image": with_chunk(b"iTXt", b"parameters\0\0\0\0\0" + TEXT.encode(), behind=True)}).json()
    assert behind["info"] == TEXT and behind["parameters"]["Seed"] == "4242"
    workflow = '{"3": {"class_type": "KSampler", "inputs": {"seed": 42, "steps": 7, "cfg": 5, "sampler_name": "euler", "positive": "x"}}}'
    comfyui = shared.post(INFO, json={"image": with_chunk(b"tEXt", b"prompt\0" + workflow.encode())}).json()
    assert comfyui["parameters"]["Seed"] == "42" and comfyui["items"] == {"prompt": workflow}
    halves = shared.post(INFO, json={"image": with_chunk(b"tEXt", b'parameters\0{"base_model": "x", "prompt": "\\ud800", "steps": 3}')})
    assert halves.status_code == 200 and halves.json()["info"] == "\ufffd\nSteps: 3, Size: 16x16, Model: x"


def test_nobody_waits_while_fifty_megabytes_of_text_are_read(server):
    image = with_chunk(b"tEXt", b"parameters\0" + b"a" * (50 << 20))
    slowest, done = 0.0, threading.Event()

    def send():
        with httpx.Client(timeout=120) as client:
            answer = client.post(server + INFO, json={"image": image})
        assert answer.status_code == 200 and len(answer.content) < 10_000
        done.set()

    thread = threading.Thread(target=send)
    thread.start()
    with httpx.Client(timeout=120) as client:
        while not done.is_set():
            start = time.monotonic()
            client.get(f"{server}/sdapi/v1/memory")
            slowest = max(slowest, time.monotonic() - start)
            assert thread.is_alive() or done.is_set()
    thread.join()
    assert slowest < 2  # 0.3 s here, for the JSON of 67 MB; 3 s where all of the text is read as infotext
