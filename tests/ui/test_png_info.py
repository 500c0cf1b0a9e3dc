"""The tab PNG info: a picture's receipt, and the button that makes it again."""

import base64
import json
import urllib.request

from PIL import Image
from playwright.sync_api import expect

from pipeline.infotext import png_info
from tests.conftest import ROOT
from tests.ui.steps import open_tab


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
    page.get_by_label("Remove Image").click()
    drop(page, tmp_path / "edited.png")
    expect(verify).to_be_enabled()
    verify.click()
    expect(receipt).to_have_value("Cannot be verified: its pixels were changed after it was made.")


def test_a_picture_without_a_receipt_says_so(page, tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "plain.png")
    open_tab(page, "PNG info")
    drop(page, tmp_path / "plain.png")
    expect(page.locator("#png-info-receipt textarea")).to_have_value("It carries none.")
    expect(page.locator("#png-info-verify")).to_be_disabled()
