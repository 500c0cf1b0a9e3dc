"""The seam of an inpainted picture over the API: one word, and the picture without it."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.infotext import png_info
from tests.api.conftest import base64_of, image_of

SEAM, IMG2IMG = "/sdapi/v1/seam", "/sdapi/v1/img2img"


@pytest.fixture
def given():
    """A grey picture with a lighter square, as if a model had drawn it."""
    mask = Image.new("L", (96, 64))
    ImageDraw.Draw(mask).rectangle((30, 20, 65, 43), fill=255)
    source = Image.new("RGB", mask.size, (120, 120, 120))
    image = Image.composite(Image.new("RGB", mask.size, (160, 160, 160)), source, mask)
    return {"image": base64_of(image), "source": base64_of(source), "mask": base64_of(mask)}


def test_a_seam_is_measured(shared, given):
    answer = shared.post(SEAM, json=given).json()
    assert answer["seam"]["word"] == "visible" and answer["seam"]["ratio"] > 3.2 and answer["seam"]["contrast"] < 1
    assert (answer["image"], answer["blended"], answer["outside"]) == (None, None, None)
    same = shared.post(SEAM, json=given | {"image": given["source"]}).json()["seam"]
    assert same["word"] == "none" and same["jump"] < 0.1
    even = shared.post(SEAM, json=given | {"mask": base64_of(Image.new("L", (96, 64), 255))}).json()["seam"]
    assert even == {"word": "none", "ratio": 0, "jump": 0, "contrast": 0, "edge": 0}


@pytest.mark.parametrize("how", ["poisson", "soft"])
def test_a_seam_is_blended_and_the_pixels_beside_the_mask_are_counted(shared, given, how):
    answer = shared.post(SEAM, json=given | {"blend": how}).json()
    before, after = (np.asarray(image_of(text)) for text in (given["image"], answer["image"]))
    beside = (before != after).any(axis=-1) & (np.asarray(image_of(given["mask"])) == 0)
    assert answer["outside"] == beside.sum() and (answer["outside"] == 0) == (how == "poisson")
    assert answer["blended"]["word"] != "visible" and answer["blended"]["ratio"] < answer["seam"]["ratio"] / 2


def test_what_img2img_answers_with_return_mask_is_what_it_takes(shared, picture):
    mask = Image.new("L", picture.size)
    ImageDraw.Draw(mask).rectangle([side // 3 for side in picture.size] + [side * 2 // 3 for side in picture.size], fill=255)
    images = shared.post(IMG2IMG, json={
        "init_images": [base64_of(picture)], "mask": base64_of(mask), "steps": 2, "seed": 1, "width": picture.width,
        "height": picture.height, "inpaint_full_res": False, "override_settings": {"return_mask": True}}).json()["images"]
    answer = shared.post(SEAM, json={"image": images[0], "source": base64_of(picture), "mask": images[1], "blend": "poisson"}).json()
    assert answer["seam"]["edge"] > 20 and answer["outside"] == 0
    before, after = (image_of(image).info for image in (images[0], answer["image"]))
    assert after == {"parameters": f"{before['parameters']}, Seam blend: Poisson"} and "palimpsest" in before


def test_a_picture_without_infotext_says_only_that_it_was_blended(shared, given):
    answer = shared.post(SEAM, json=given | {"blend": "poisson"}).json()
    assert image_of(answer["image"]).info == {"parameters": "Seam blend: Poisson"}
    texts = png_info(None, {"Author": "me"})
    sent = given | {"blend": "poisson", "image": base64_of(image_of(given["image"]), pnginfo=texts)}
    assert image_of(shared.post(SEAM, json=sent).json()["image"]).info["Author"] == "me"


@pytest.mark.parametrize("change, sentence", [
    ({"blend": "blur"}, "blend must be one of poisson, soft or empty, got 'blur'"),
    ({"mask": ""}, "mask is missing: a picture in base64"),
    ({"source": None}, "source is missing: a picture in base64"),
    ({"image": "dGV4dA=="}, "image: "),
    ({"mask": base64_of(Image.new("L", (64, 64)))}, "mask must have the size of image (96x64 pixels), got 64x64"),
    ({"source": base64_of(Image.new("L", (96, 65)))}, "source must have the size of image (96x64 pixels), got 96x65")])
def test_what_cannot_be_used_gets_one_sentence(shared, given, change, sentence):
    answer = shared.post(SEAM, json=given | change)
    assert answer.status_code == 422 and answer.json()["error"] == "InvalidRequest"
    assert answer.json()["detail"].startswith(sentence)
