"""What a person does on the page, step by step."""

import io
import urllib.request

import numpy as np
from PIL import Image
from playwright.sync_api import expect


def open_tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()


def open_accordion(page, title):
    page.get_by_role("button", name=title).click()
    page.wait_for_timeout(1000)  # its widgets are there before they take their values


def put(page, element, file):
    page.locator(f"#{element} input[type=file]").first.set_input_files(str(file))
    page.locator(f"#{element} img").first.wait_for()


def put_in_editor(page, file, editor="inpaint-editor"):
    page.locator(f"#{editor} canvas").first.wait_for()
    page.wait_for_timeout(1000)  # the canvas is there before it takes a picture
    page.locator(f"#{editor} input[type=file]").first.set_input_files(str(file))
    expect(page.locator(f"#{editor}")).not_to_contain_text("Drop a picture here")


def set_slider(page, label, value):
    page.get_by_label(f"number input for {label}", exact=True).fill(str(value))
    page.get_by_label(f"number input for {label}", exact=True).press("Enter")


def generate(page, mode):
    page.locator(f"#generate-{mode}").click()


def result(page, timeout=120_000) -> Image.Image:
    """The picture in the result viewer, as its bytes came over the wire."""
    shown = page.locator("#gallery img").first
    shown.wait_for(timeout=timeout)
    data = urllib.request.urlopen(shown.get_attribute("src")).read()
    return Image.open(io.BytesIO(data))


def pixels(image):
    return np.asarray(image.convert("RGB")).astype(int)


def toast(page):
    return page.locator(".toast-body").last


def paint(page, points, editor="inpaint-editor"):
    """A brush stroke through points given as shares of the picture's width and height."""
    canvas = page.locator(f"#{editor} canvas").first
    page.wait_for_timeout(1500)  # the editor moves the picture into place after it has loaded
    box = canvas.bounding_box()
    side = min(box["width"], box["height"])
    left, top = box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2
    page.mouse.move(left + points[0][0] * side, top + points[0][1] * side)
    page.mouse.down()
    for x, y in points[1:]:
        page.mouse.move(left + x * side, top + y * side, steps=8)
    page.mouse.up()
    page.wait_for_timeout(500)
