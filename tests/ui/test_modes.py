"""Modes that are painted in colour, and what all modes share: scripts, styles, sizes, counters."""

import numpy as np
from PIL import Image
from playwright.sync_api import expect

from tests.ui.steps import generate, make, open_tab, paint, pixels, put, put_in_editor, result, set_slider, shares_page


def number(page, label):
    return page.get_by_label(f"number input for {label}", exact=True)


def choose(page, element, text):
    page.locator(f"#{element} input").first.click()
    page.get_by_role("option", name=text, exact=True).click()


@shares_page
def test_a_sketch_starts_from_what_is_painted(page, picture_file, server):
    open_tab(page, "Sketch")
    put_in_editor(page, picture_file, "sketch-editor")
    paint(page, [(0.4, 0.5), (0.6, 0.5)], "sketch-editor")
    set_slider(page, "Sampling steps", 1)
    make(page, "sketch")
    sources = sorted(server.outputs.glob("originals/*/*.png"), key=lambda file: file.stat().st_mtime)
    source, picture = pixels(Image.open(sources[-1])), pixels(Image.open(picture_file))
    assert not source[76:84, 72:88].any()  # the palette begins with black
    assert (source[:60] == picture[:60]).all() and (source[100:] == picture[100:]).all()


@shares_page
def test_an_inpaint_sketch_changes_what_is_painted_and_nothing_else(page, picture_file):
    open_tab(page, "Inpaint sketch")
    put_in_editor(page, picture_file, "inpaint-sketch-editor")
    paint(page, [(0.45, 0.5), (0.55, 0.5)], "inpaint-sketch-editor")
    expect(number(page, "Mask transparency")).to_be_visible()
    for label, value in (("Width", 160), ("Height", 160), ("Denoising strength", 0.3), ("Sampling steps", 4)):
        set_slider(page, label, value)
    after, before = pixels(make(page, "inpaint_sketch")), pixels(Image.open(picture_file))
    changed = np.abs(after - before).max(axis=-1) > 0
    rows, columns = np.where(changed)
    # a brush of radius 16 and the blurs' 20 pixels around the stroke from (72, 80) to (88, 80)
    assert changed[76:84, 76:84].all() and 40 <= rows.min() and rows.max() <= 120 and 32 <= columns.min() and columns.max() <= 128
    open_tab(page, "img2img")
    expect(number(page, "Mask transparency")).to_be_hidden()


def test_a_script_is_chosen_and_run_with_its_settings(page, picture_file):
    put(page, "img2img-picture", picture_file)
    set_slider(page, "Sampling steps", 2)
    page.get_by_label("Script", exact=True).click()
    page.get_by_role("option", name="Loopback", exact=True).click()
    set_slider(page, "Loops", 2)
    generate(page, "img2img")
    assert "Denoising curve: Linear" in result(page).info["parameters"]
    expect(page.locator("#gallery .tile[data-file]")).to_have_count(3)  # a grid and two loops


@shares_page
def test_a_style_is_saved_chosen_applied_and_deleted(page):
    page.locator("#edit-styles").click()
    page.locator("#style-name input").fill("oil")
    page.locator("#style-prompt textarea").fill("{prompt}, oil on canvas")
    page.locator("#style-save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    page.locator("#prompt textarea").fill("a boat")
    choose(page, "styles", "oil")
    page.locator("#apply-styles").click()
    expect(page.locator("#prompt textarea")).to_have_value("a boat, oil on canvas")
    expect(page.locator("#styles .token")).to_have_count(0)
    page.locator("#style-delete").click()
    expect(page.locator("#style-prompt textarea")).to_have_value("")


@shares_page
def test_sizes_are_swapped_shaped_and_taken_from_the_picture(page, tmp_path):
    Image.new("RGB", (200, 120)).save(tmp_path / "wide.png")
    set_slider(page, "Width", 256)
    set_slider(page, "Height", 512)
    page.locator("#swap-size").click()
    expect(number(page, "Width")).to_have_value("512")
    expect(number(page, "Height")).to_have_value("256")
    page.get_by_role("button", name="1:1", exact=True).click()
    expect(number(page, "Width")).to_have_value("360")
    open_tab(page, "Inpaint")
    put_in_editor(page, tmp_path / "wide.png")
    page.locator("#take-size").click()
    expect(number(page, "Width")).to_have_value("200")
    expect(number(page, "Height")).to_have_value("120")


@shares_page
def test_tokens_are_counted_as_they_are_typed(page):
    page.locator("#prompt textarea").fill("")
    page.locator("#prompt textarea").press_sequentially("a red boat")
    expect(page.locator(".tokens").first).to_have_text("3/75")
    page.locator("#prompt textarea").fill("boat " * 80)
    expect(page.locator(".tokens").first).to_have_text("80/150")
