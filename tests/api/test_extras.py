"""Enlarging, and reading what is written in picture files."""

import base64
import io

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
