"""The page as a person uses it: a real Chromium against a real server with the demo model."""

import hashlib
import json
import urllib.request

import numpy as np
import pytest
from PIL import Image, ImageFilter, PngImagePlugin
from playwright.sync_api import expect

from tests.conftest import ROOT
from tests.ui.steps import (
    LONG,
    act,
    generate,
    has_picture,
    open_accordion,
    open_page,
    open_tab,
    paint,
    pixels,
    prepare_a_long_job,
    put,
    put_in_editor,
    refused,
    result,
    set_slider,
    settle,
    shares_page,
    still,
    toast,
)

SAMPLES = ROOT / "assets" / "samples"

WATCH_PREVIEWS = """() => {
    window.previews = new Set();
    new MutationObserver(() => {
        const image = document.querySelector('#stage img');
        if (image) window.previews.add(image.src);
    }).observe(document.body, {subtree: true, childList: true, attributes: true, attributeFilter: ['src']});
}"""


@shares_page
def test_a_sample_becomes_an_edited_picture_in_two_clicks(page, server):
    page.evaluate(WATCH_PREVIEWS)
    set_slider(page, "Sampling steps", 150)  # or it is made before there is anything to watch
    page.locator("#samples-img2img .thumbnail-item").first.click()
    expect(page.locator("#prompt textarea")).not_to_have_value("")
    for side in ("Width", "Height"):
        set_slider(page, side, 256)
    generate(page, "img2img")
    image = result(page)
    assert len(page.evaluate("[...window.previews]")) >= 3
    expect(page.locator("#infotext textarea")).to_have_value(image.info["parameters"])
    saved = [file.read_bytes() for file in server.outputs.rglob("*.png")]
    shown = urllib.request.urlopen(page.locator("#gallery img.picture").get_attribute("src")).read()
    assert hashlib.sha256(shown).digest() in [hashlib.sha256(data).digest() for data in saved]


def test_no_event_has_the_page_look_for_where_to_show_its_progress(server):
    config = json.load(urllib.request.urlopen(f"{server.url}/config"))
    assert {str(event["show_progress_on"]) for event in config["dependencies"] if event["outputs"]} == {"[]"}


@shares_page
def test_a_lora_and_its_trigger_words_are_clicked_into_the_prompt(page):
    prompt = page.locator("#prompt textarea")
    prompt.fill("a house")
    page.get_by_role("button", name="LoRA and embeddings").click()
    page.locator("#picker-loras").get_by_text("ink", exact=True).click()
    expect(prompt).to_have_value("a house <lora:ink:1>")
    page.locator("#picker-words").get_by_text("ink sketch", exact=True).click()
    expect(prompt).to_have_value("a house <lora:ink:1>, ink sketch")
    expect(page.locator("#picker-words")).to_contain_text("<b>bold</b>")
    page.locator("#picker-filter textarea, #picker-filter input").fill("zzz")
    expect(page.locator("#picker-loras")).to_be_hidden()


@shares_page
def test_on_a_phone_refresh_stands_beside_the_menus_and_nothing_runs_off_the_page(page):
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function("""() => {
        const [menu, refresh] = ['#checkpoint', '#refresh-models'].map((id) => document.querySelector(id).getBoundingClientRect());
        return refresh.left > menu.right && refresh.right <= 390 && refresh.top <= menu.top + 2
            && document.documentElement.scrollWidth <= 390;
    }""")


@shares_page
def test_painting_a_mask_changes_what_was_painted_and_nothing_else(page, picture_file):
    open_tab(page, "Inpaint")
    put_in_editor(page, picture_file)
    paint(page, [(0.45, 0.5), (0.55, 0.5)])
    set_slider(page, "Width", 160)
    set_slider(page, "Height", 160)
    set_slider(page, "Denoising strength", 1)
    page.locator("#prompt textarea").fill("a red house")
    generate(page, "inpaint")
    after, before = pixels(result(page)), pixels(Image.open(picture_file))
    changed = np.abs(after - before).max(axis=-1) > 0
    rows, columns = np.where(changed)
    assert changed[75:85, 75:85].mean() > 0.8
    # from (72, 80) to (88, 80) with a brush of radius 24; the blur of 4 reaches 10 pixels beyond it, and 2 to spare
    assert 44 <= rows.min() and rows.max() <= 116 and 36 <= columns.min() and columns.max() <= 124


@shares_page
def test_an_uploaded_mask_is_obeyed_to_the_pixel(page, picture_file, mask_file):
    open_tab(page, "Inpaint upload")
    put(page, "upload-picture", picture_file)
    put(page, "upload-mask", mask_file)
    set_slider(page, "Width", 160)
    set_slider(page, "Height", 160)
    set_slider(page, "Mask blur", 0)
    page.get_by_label("latent noise").check()
    set_slider(page, "Denoising strength", 1)
    generate(page, "inpaint_upload")
    changed = np.abs(pixels(result(page)) - pixels(Image.open(picture_file))).max(axis=-1) > 0
    assert changed[60:100, 60:100].mean() > 0.9
    changed[60:100, 60:100] = False
    assert not changed.any()


@shares_page
def test_only_masked_keeps_the_pictures_own_size(page, picture_file, mask_file):
    open_tab(page, "Inpaint upload")
    put(page, "upload-picture", picture_file)
    put(page, "upload-mask", mask_file)
    page.get_by_label("Only masked", exact=True).check()
    generate(page, "inpaint_upload")
    assert result(page).size == (160, 160)


@shares_page
def test_interrupt_keeps_the_partial_picture(page, picture_file, server):
    put(page, "img2img-picture", picture_file)
    prepare_a_long_job(page)
    generate(page, "img2img")
    page.locator("#stage img").wait_for()
    page.locator("#interrupt").click()
    assert result(page).size == LONG
    expect(toast(page)).to_contain_text("Interrupted")
    assert list(server.outputs.rglob("*-interrupted.png"))


@shares_page
def test_a_second_person_is_queued_and_sees_their_place(page, browser, picture_file, server):
    other = browser.new_context().new_page()
    open_page(other, server.url)
    put(other, "img2img-picture", picture_file)
    put(page, "img2img-picture", picture_file)
    prepare_a_long_job(page)
    generate(page, "img2img")
    page.locator("#stage img").wait_for()
    generate(other, "img2img")
    expect(other.locator("#stage .line")).to_have_text("In queue, place 1", timeout=60_000)
    page.locator("#interrupt").click()
    assert result(other).size == (128, 128)
    other.context.close()


@shares_page
def test_a_result_can_be_used_as_the_next_picture(page):
    page.locator("#samples-img2img .thumbnail-item").first.click()
    has_picture(page)
    generate(page, "img2img")
    first = result(page)
    before = page.locator("#gallery img.picture").get_attribute("src")
    act(page, "use-in-inpaint")
    expect(page.get_by_role("tab", name="Inpaint", exact=True)).to_have_attribute("aria-selected", "true")
    has_picture(page, "inpaint-editor")
    paint(page, [(0.45, 0.5), (0.55, 0.5)])
    set_slider(page, "Denoising strength", 0.9)
    generate(page, "inpaint")
    expect(page.locator("#gallery img.picture")).not_to_have_attribute("src", before)
    second = pixels(result(page))
    # the brush of radius 24 and the blur's 10 pixels around the middle row, 64
    assert (second[:28] == pixels(first)[:28]).all() and (second != pixels(first)).any()


@shares_page
@pytest.mark.parametrize("tab, mode", [("Inpaint", "inpaint"), ("Inpaint upload", "inpaint_upload")])
def test_a_sample_with_a_mask_changes_what_its_mask_covers(page, tab, mode):
    sample = next(row for row in json.loads((SAMPLES / "samples.json").read_text("utf-8")) if row["tab"] == mode)
    picture, mask = (Image.open(SAMPLES / sample[name]).resize((128, 128), Image.Resampling.LANCZOS)
                     for name in ("picture", "mask"))
    open_tab(page, tab)
    page.locator(f"#{mode.replace('_', '-')}-editor .empty").wait_for()
    page.locator(f"#samples-{mode} .thumbnail-item").first.click()
    expect(page.locator("#prompt textarea")).to_have_value(sample["prompt"])
    settle(page)
    still(page, f"#{mode.replace('_', '-')}-editor")
    generate(page, mode)
    changed = np.abs(pixels(result(page)) - pixels(picture)).max(axis=-1) > 0
    masked, reach = np.asarray(mask.convert("L")) > 128, 12  # pixels that the blur of 4 reaches, and one of the edge
    near = np.asarray(Image.fromarray(masked).convert("L").filter(ImageFilter.MaxFilter(2 * reach + 1))) > 0
    assert changed[masked].mean() > 0.9 and not changed[~near].any()


@shares_page
@pytest.mark.parametrize("tab, mode", [("img2img", "img2img"), ("Inpaint", "inpaint"), ("Inpaint upload", "inpaint_upload")])
def test_without_a_picture_one_sentence_says_so(page, tab, mode):
    open_tab(page, tab)
    generate(page, mode)
    expect(toast(page)).to_contain_text("init_images: no picture is given")


@shares_page
def test_without_paint_one_sentence_says_so_and_the_picture_stays(page, picture_file):
    open_tab(page, "Inpaint")
    put_in_editor(page, picture_file)
    still(page, "#inpaint-editor")
    generate(page, "inpaint")
    expect(toast(page)).to_contain_text("paint over what should change")
    expect(page.locator("#inpaint-editor .stage")).to_be_visible()


@shares_page
def test_without_an_uploaded_mask_one_sentence_says_so(page, picture_file):
    open_tab(page, "Inpaint upload")
    put(page, "upload-picture", picture_file)
    generate(page, "inpaint_upload")
    expect(toast(page)).to_contain_text("mask: missing")


@shares_page
def test_a_damaged_file_gives_one_sentence_and_the_page_goes_on(page, picture_file, tmp_path):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(picture_file.read_bytes()[:-200])
    assert "damaged or cut short" in refused(page, "img2img-picture", damaged)
    put(page, "img2img-picture", picture_file)
    generate(page, "img2img")
    assert result(page).size == (128, 128)


@shares_page
def test_what_somebody_types_is_shown_as_text_never_run(page, picture_file):
    put(page, "img2img-picture", picture_file)
    set_slider(page, "Sampling steps", 1)
    page.locator("#prompt textarea").fill("<lora:<img src=x onerror=window.hit=1>")
    generate(page, "img2img")
    expect(toast(page)).to_contain_text("<img src=x onerror=window.hit=1")
    assert page.evaluate("window.hit") is None


def test_a_reload_loses_nothing(page, picture_file):
    open_tab(page, "Inpaint upload")
    put(page, "upload-picture", picture_file)
    put(page, "upload-mask", picture_file)
    page.locator("#prompt textarea").fill("a boat")
    prepare_a_long_job(page)
    generate(page, "inpaint_upload")
    page.locator("#stage img").first.wait_for()
    page.reload()
    expect(page.locator("#stage .line")).to_contain_text("/")  # its running job again
    page.locator("#interrupt").click()
    assert result(page).size == LONG
    expect(page.locator("#prompt textarea")).to_have_value("a boat")
    expect(page.get_by_label("number input for Sampling steps", exact=True)).to_have_value("150")
    expect(page.get_by_role("tab", name="Inpaint upload", exact=True)).to_have_attribute("aria-selected", "true")
    expect(page.locator("#upload-picture output")).to_have_text("160×160")
    expect(page.locator("#upload-mask output")).to_have_text("unchanged")
    page.reload()
    assert result(page).size == LONG  # and its last pictures


@shares_page
def test_a_job_comes_back_from_history_with_picture_mask_and_settings(page, browser, picture_file, mask_file, server):
    open_tab(page, "Inpaint upload")
    put(page, "upload-picture", picture_file)
    put(page, "upload-mask", mask_file)
    page.locator("#prompt textarea").fill("a lighthouse far away")
    set_slider(page, "Sampling steps", 2)
    page.get_by_label("Crop and resize").check()
    generate(page, "inpaint_upload")
    first = result(page)
    seed = first.info["parameters"].split("Seed: ")[1].split(",")[0]
    fresh = browser.new_context(viewport={"width": 1366, "height": 900}).new_page()
    fresh.set_default_timeout(60_000)
    open_page(fresh, server.url)
    open_tab(fresh, "History")
    fresh.locator("#history-words textarea, #history-words input").first.fill("lighthouse")
    fresh.locator("#history-words textarea, #history-words input").first.press("Enter")
    expect(fresh.locator("#history .thumbnail-item")).to_have_count(1)
    fresh.locator("#history .thumbnail-item").click()
    fresh.locator("#history-restore").click()
    expect(fresh.locator("#prompt textarea")).to_have_value("a lighthouse far away")
    expect(fresh.locator("#seed input")).to_have_value(seed)
    expect(fresh.get_by_label("Crop and resize")).to_be_checked()
    expect(fresh.locator("#upload-mask output")).to_have_text("unchanged")
    generate(fresh, "inpaint_upload")
    assert np.array_equal(pixels(result(fresh)), pixels(first))
    fresh.context.close()


def test_history_deletes_a_picture_only_when_that_is_confirmed(page, picture_file, server):
    put(page, "img2img-picture", picture_file)
    set_slider(page, "Sampling steps", 1)
    generate(page, "img2img")
    result(page)
    newest = max(server.outputs.glob("img2img-images/*/*.png"), key=lambda file: file.stat().st_mtime)
    open_tab(page, "History")
    page.locator("#history .thumbnail-item").first.click()
    for answer, there in (("dismiss", True), ("accept", False)):
        page.once("dialog", lambda dialog, answer=answer: getattr(dialog, answer)())
        page.locator("#history-delete").click()
        settle(page)
        assert newest.exists() == there
    expect(page.locator("#history-details")).to_be_hidden()


def test_a_dropped_picture_brings_its_settings(page, tmp_path):
    image = Image.new("RGB", (128, 128), "green")
    text = ("an old castle\nNegative prompt: rain\nSteps: 7, Sampler: Euler a, CFG scale: 3.5, Seed: 42, Size: 192x128, "
            "Clip skip: 2, Denoising strength: 0.4, Version: v1.10.1")
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", text)
    image.save(tmp_path / "old.png", pnginfo=info)
    open_tab(page, "PNG info")
    page.locator("#png-info-picture input[type=file]").first.set_input_files(str(tmp_path / "old.png"))
    expect(page.locator("#png-info-text textarea")).to_have_value(text)
    page.locator("#png-info-to-inpaint").click()
    expect(page.locator("#prompt textarea")).to_have_value("an old castle")
    expect(page.locator("#negative-prompt textarea")).to_have_value("rain")
    for label, value in (("Sampling steps", "7"), ("CFG Scale", "3.5"), ("Width", "192"), ("Denoising strength", "0.4")):
        expect(page.get_by_label(f"number input for {label}", exact=True)).to_have_value(value)
    expect(page.locator("#override-settings")).to_contain_text("Clip skip: 2")
    has_picture(page, "inpaint-editor")
    set_slider(page, "Sampling steps", 9)
    expect(page.get_by_label("number input for Sampling steps", exact=True)).to_have_value("9")  # what was set can be changed


def test_a_picture_without_infotext_says_so(page, picture_file):
    open_tab(page, "PNG info")
    page.locator("#png-info-picture input[type=file]").first.set_input_files(str(picture_file))
    expect(page.locator("#png-info-text textarea")).to_have_value("This picture has no generation data.")


def test_the_keyboard_starts_stops_and_weighs(page, picture_file):
    put(page, "img2img-picture", picture_file)
    prompt = page.locator("#prompt textarea")
    prompt.fill("a red boat")
    for key, text in (("ArrowUp", "a red (boat:1.1)"), ("ArrowUp", "a red (boat:1.2)"), ("ArrowDown", "a red (boat:1.1)"),
                      ("ArrowDown", "a red boat"), ("ArrowDown", "a red (boat:0.9)")):
        prompt.press(f"Control+{key}")
        expect(prompt).to_have_value(text)
    set_slider(page, "Sampling steps", 150)
    prompt.press("Control+Enter")
    page.locator("#stage img").first.wait_for()
    page.wait_for_function("/^\\d+% · Palimpsest$/.test(document.title)")
    page.keyboard.press("Escape")
    assert "Steps: 150" in result(page).info["parameters"]
    page.wait_for_function("document.title === 'Palimpsest'")


def open_settings(page):
    """Open the tab once the page has set its widgets."""
    open_tab(page, "Settings")
    expect(page.locator("#settings-save")).to_be_enabled()


def test_settings_are_saved_and_wrong_ones_are_not(page, server):
    open_settings(page)
    open_accordion(page, "Prompts")
    skip = page.locator("#option-CLIP_stop_at_last_layers input")
    expect(page.locator("#option-CLIP_stop_at_last_layers")).to_contain_text("Clip skip")
    expect(page.locator("#option-CLIP_stop_at_last_layers")).to_have_attribute("title", "CLIP_stop_at_last_layers")
    skip.fill("2")
    page.locator("#settings-save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    assert json.loads((server.outputs.parent / "config.json").read_text()) == {"CLIP_stop_at_last_layers": 2}
    page.locator("#option-img2img_background_color textarea, #option-img2img_background_color input").first.fill("no colour")
    page.locator("#settings-save").click()
    expect(page.get_by_text("img2img_background_color must be a colour")).to_be_visible()
    page.reload()
    open_settings(page)
    open_accordion(page, "Prompts")
    expect(skip).to_have_value("2")
    skip.fill("1")
    page.locator("#settings-save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
