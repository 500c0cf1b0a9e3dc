"""The tab Extras: enlarging one picture, several or a folder's, and passing them to the modes and back."""

import io
import os

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.conftest import ROOT
from tests.ui.conftest import opened, start
from tests.ui.steps import act, generate, has_picture, held, open_tab, put, put_in_editor, result, set_slider, settle
from tests.upscalers import tiny


@pytest.fixture(scope="module")
def extras_server(tmp_path_factory):
    """A server with a network in its models folder."""
    folder = tmp_path_factory.mktemp("extras")
    tiny.saved(tiny.compact(2), folder / "models" / "ESRGAN" / "double.safetensors")
    yield from start("--models-dir", str(folder / "models"), outputs=folder / "outputs")


@pytest.fixture
def extras_page(context, extras_server):
    for page in opened(context, extras_server):
        open_tab(page, "Extras")
        yield page


def choose(page, elem_id, name):
    field = page.locator(f"#{elem_id} input")
    field.click()
    field.fill(name)
    page.get_by_role("option", name=name, exact=True).click()


def picture_file(folder, name="small.png", size=(40, 32)):
    file = folder / name
    Image.effect_noise(size, 60).convert("RGB").save(file)
    return file


def saved(server):
    return sorted((server.outputs / "extras-images").rglob("*.png"), key=os.path.getmtime)


def test_one_picture_is_enlarged_by_a_network_and_sent_on(extras_page, extras_server, tmp_path):
    page = extras_page
    put_in_editor(page, picture_file(tmp_path), "extras-picture")
    choose(page, "extras-upscaler-1", "double")
    expect(page.locator("#extras-to-inpaint")).to_be_disabled()
    page.locator("#generate-extras").click()
    expect(page.locator("#extras-told")).to_contain_text("Postprocess upscale by: 4, Postprocess upscaler: double", timeout=120_000)
    expect(page.locator("#extras-results img").first).to_be_visible()
    with Image.open(saved(extras_server)[-1]) as image:
        assert image.size == (160, 128) and image.info["postprocessing"] == "Postprocess upscale by: 4, Postprocess upscaler: double"
    settle(page)
    page.locator("#extras-to-inpaint").click()
    expect(page.locator("#generate-inpaint")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("tab", name="Make", exact=True)).to_have_attribute("aria-selected", "true")
    has_picture(page, "inpaint-editor")
    settle(page)


def test_a_folder_is_enlarged_into_another(extras_page, tmp_path):
    page, source, target = extras_page, tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a.png", "b.png"):
        picture_file(source, name)
    page.locator("#extras-source").get_by_role("radio", name="From directory").check()
    page.locator("#extras-input-directory textarea, #extras-input-directory input").fill(str(source))
    page.locator("#extras-output-directory textarea, #extras-output-directory input").fill(str(target))
    page.locator("#generate-extras").click()
    expect(page.locator("#extras-results button.thumbnail-item")).to_have_count(2, timeout=120_000)
    assert [Image.open(target / name).size for name in ("a.png", "b.png")] == [(160, 128)] * 2


def test_what_is_missing_is_one_sentence_and_the_button_comes_back(extras_page):
    page = extras_page
    page.locator("#generate-extras").click()
    expect(page.locator("body")).to_contain_text("image: no picture is given; add one to enlarge", timeout=60_000)
    expect(page.locator("#generate-extras")).to_be_visible()
    expect(page.locator("#extras-faces")).to_contain_text("GFPGAN and CodeFormer are published only as pickles")


def test_a_result_is_sent_to_extras(extras_page):
    page = extras_page
    open_tab(page, "Make")
    put(page, "img2img-picture", ROOT / "assets" / "samples" / "meadow.png")
    for label, value in (("Sampling steps", 1), ("Width", 64), ("Height", 64)):
        set_slider(page, label, value)
    generate(page, "img2img")
    result(page)
    act(page, "use-in-extras")
    has_picture(page, "extras-picture")
    expect(page.get_by_role("tab", name="Extras", exact=True)).to_have_attribute("aria-selected", "true")


def test_png_info_sends_its_picture_to_extras(extras_page, tmp_path):
    page = extras_page
    open_tab(page, "Extras")
    page.locator("#extras-source").get_by_role("radio", name="Several").check()
    open_tab(page, "PNG info")
    expect(page.locator("#png-info-to-extras")).to_be_disabled()
    page.locator("#png-info-picture input[type=file]").first.set_input_files(str(picture_file(tmp_path, "sent.png", (56, 24))))
    page.locator("#png-info-to-extras").click()
    expect(page.get_by_role("tab", name="Extras", exact=True)).to_have_attribute("aria-selected", "true")
    expect(page.locator("#extras-source").get_by_role("radio", name="One picture")).to_be_checked()
    assert Image.open(io.BytesIO(held(page, "extras-picture"))).size == (56, 24)
