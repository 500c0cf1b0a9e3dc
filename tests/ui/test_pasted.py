"""Settings that come from elsewhere: pasted into the prompt, or of pictures of other programs."""

import re

import pytest
from PIL import Image
from playwright.sync_api import expect

from pipeline.infotext import png_info
from tests.ui.steps import generate, has_picture, open_accordion, open_page, open_tab, put, refused, result, set_slider, settle, shares_page, take_away, toast

SEED = 1234567890123456789
DATA = f"a red house\nNegative prompt: fog\nSteps: 3, Sampler: Euler a, Schedule type: Karras, CFG scale: 45, Seed: {SEED}, Size: 2056x64"
PASTE = """(text) => {
    const field = document.querySelector("#prompt textarea");
    const clipboard = new DataTransfer();
    clipboard.setData("text/plain", text);
    field.focus();
    if (field.dispatchEvent(new ClipboardEvent("paste", {clipboardData: clipboard, bubbles: true, cancelable: true}))) {
        field.value = text;
        field.dispatchEvent(new Event("input", {bubbles: true}));
    }
}"""


def picture_with(text, file):
    Image.new("RGB", (64, 64), "green").save(file, pnginfo=png_info(text))
    return file


def send_to_img2img(page, file):
    open_tab(page, "PNG info")
    page.locator("#png-info-picture input[type=file]").first.set_input_files(str(file))
    expect(page.locator("#png-info-to-img2img")).to_be_enabled()
    expect(page.locator("#png-info-text textarea")).not_to_have_value("")
    page.locator("#png-info-to-img2img").click()
    has_picture(page)


def number_of(page, label):
    return page.get_by_label(f"number input for {label}", exact=True)


@shares_page
def test_pasted_generation_data_is_read_into_the_settings_where_that_is_wanted(page, picture_file):
    offer, prompt = page.locator("#offer"), page.locator("#prompt textarea")
    expect(offer).to_be_hidden()
    page.evaluate(PASTE, "a house, steps: two")
    expect(offer).to_be_hidden()
    page.evaluate(PASTE, DATA)
    expect(offer).to_be_visible()
    page.locator("#offer-keep").click()
    expect(offer).to_be_hidden()
    expect(prompt).to_have_value(DATA)
    page.evaluate(PASTE, DATA)
    page.locator("#offer-read").click()
    expect(prompt).to_have_value("a red house")
    expect(offer).to_be_hidden()
    expect(page.locator("#negative-prompt textarea, #negative-prompt input").first).to_have_value("fog")
    expect(page.locator("#seed input, #seed textarea").first).to_have_value(str(SEED))
    for label, value in (("Sampling steps", "3"), ("CFG Scale", "45"), ("Width", "2056"), ("Height", "64")):
        expect(number_of(page, label)).to_have_value(value)
    number_of(page, "Width").click()
    page.keyboard.press("Tab")
    expect(number_of(page, "Width")).to_have_value("2056")  # leaving the field changes nothing
    put(page, "img2img-picture", picture_file)
    generate(page, "img2img")
    made = result(page)
    assert made.size == (2056, 64) and f"CFG scale: 45.0, Seed: {SEED}, Size: 2056x64" in made.info["parameters"]


@shares_page
def test_the_arrow_reads_the_prompt_or_the_result_and_says_where_there_is_nothing(page, picture_file):
    arrow = page.locator("#read-data")
    expect(arrow).to_have_attribute("title", re.compile("Read generation data"))
    arrow.click()
    expect(toast(page)).to_contain_text("Paste the generation data of a picture")
    page.locator("#prompt textarea").fill("a <b>plain</b> prompt")
    arrow.click()
    expect(page.get_by_text("The prompt contains no generation data")).to_be_visible()
    put(page, "img2img-picture", picture_file)
    set_slider(page, "Sampling steps", 2)
    generate(page, "img2img")
    seed = re.search(r"Seed: (\d+)", result(page).info["parameters"])[1]
    page.locator("#prompt textarea").fill("")
    settle(page)
    arrow.click()
    expect(page.locator("#prompt textarea")).to_have_value("a <b>plain</b> prompt")
    expect(page.locator("#seed input, #seed textarea").first).to_have_value(seed)


@shares_page
@pytest.mark.parametrize("said, told", [
    ("Model hash: 0123456789, Model: other, VAE hash: 0123456789, VAE: vae-ft-mse-840000-ema-pruned.safetensors, Clip skip: 2",
     "The VAE vae-ft-mse-840000-ema-pruned.safetensors was not found"),
    ("Scheduler: DPMSolver, App: SD.Next, Model: <img src=x onerror=window.hit=1>, VAE: default", "The VAE default was not found")])
def test_a_picture_made_with_what_is_not_here_can_be_used_at_once(page, tmp_path, said, told):
    send_to_img2img(page, picture_with(f"a red house\nSteps: 2, Sampler: Euler a, CFG scale: 5, Seed: 4, Size: 64x64, {said}",
                                       tmp_path / "other.png"))
    expect(page.get_by_text(told)).to_be_visible()
    expect(page.locator("#vae input")).to_have_value("Automatic")
    if "<img" in said:
        expect(page.get_by_text("<img src=x onerror=window.hit=1>").last).to_be_visible()
    generate(page, "img2img")
    assert "Steps: 2, Sampler: Euler a" in result(page).info["parameters"]
    assert page.evaluate("window.hit") is None


@shares_page
def test_a_value_out_of_range_is_refused_by_its_fields_name_and_stays(page, picture_file):
    put(page, "img2img-picture", picture_file)
    set_slider(page, "Sampling steps", 5000)
    generate(page, "img2img")
    expect(toast(page)).to_contain_text("steps must be a whole number between 1 and 1000, got 5000")
    expect(number_of(page, "Sampling steps")).to_have_value("5000")
    set_slider(page, "Sampling steps", 1)
    page.locator("#seed input, #seed textarea").first.fill("12x")
    generate(page, "img2img")
    expect(page.get_by_text("Seed must be a whole number between")).to_be_visible()
    take_away(page, "img2img-picture")


@shares_page
def test_the_size_of_a_photo_keeps_its_proportions(page, tmp_path):
    Image.new("RGB", (4032, 3024)).save(tmp_path / "photo.jpg")
    put(page, "img2img-picture", tmp_path / "photo.jpg")
    page.locator("#take-size").click()
    expect(number_of(page, "Width")).to_have_value("2048")
    expect(number_of(page, "Height")).to_have_value("1536")


@shares_page
@pytest.mark.parametrize("element, told", [
    ("use-as-source", "There is no result yet"), ("reuse-seed", "There is no result yet"), ("use-in-inpaint", "There is no result yet"),
    ("download-all", "There is no result yet"), ("delete-result", "There is no result yet")])
def test_what_needs_a_result_says_so(page, element, told):
    def accept(dialog):
        dialog.accept()

    page.on("dialog", accept)
    expect(page.locator(f"#{element}")).to_be_hidden()
    page.locator(f"#{element}").dispatch_event("click")  # as a page might that is older than what it shows
    expect(toast(page)).to_contain_text(told)
    page.remove_listener("dialog", accept)


@shares_page
def test_png_info_says_what_is_wrong_with_a_file(page, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing else")
    open_tab(page, "PNG info")
    assert refused(page, "png-info-picture", tmp_path / "broken.png").startswith("image: ")


@shares_page
def test_the_picker_says_that_a_file_is_gone(page, server):
    file = server.outputs.parent / "models" / "Lora" / "ink.safetensors"
    open_accordion(page, "LoRA and embeddings")
    hidden = file.rename(file.with_suffix(".hidden"))
    try:
        other = page.context.browser.new_page()
        open_page(other, server.url)
        open_accordion(other, "LoRA and embeddings")
        expect(other.locator("#picker-loras")).to_be_visible()
        other.locator("#picker-refresh").click()
        expect(other.locator("#picker-loras")).to_be_hidden()
        page.locator("#picker-loras").get_by_text("ink", exact=True).click()
        expect(toast(page)).to_contain_text("This file no longer exists")
        other.close()
    finally:
        hidden.rename(file)
        page.locator("#picker-refresh").click()
        expect(page.locator("#picker-loras").get_by_text("ink", exact=True)).to_be_visible()
