"""The page with a model that is not shaped like Stable Diffusion."""

import pytest
from playwright.sync_api import expect

from tests.ui.conftest import start
from tests.ui.steps import generate, open_page, open_tab, put, result, set_slider


@pytest.fixture(scope="module")
def toy_page(context, tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    server = start("--models-dir", str(folder / "models"), outputs=folder / "outputs", program=("-m", "tests.families.toy", str(folder)))
    page = context.new_page()
    open_page(page, next(server).url)
    yield page
    page.close()
    server.close()


def test_it_makes_pictures_with_and_without_a_mask(toy_page, picture_file, mask_file):
    page = toy_page
    put(page, "img2img-picture", picture_file)
    page.locator("#prompt textarea").fill("a red house")
    page.locator("#negative-prompt textarea").fill("blue")
    for label, value in (("Sampling steps", 3), ("Width", 128), ("Height", 128)):
        set_slider(page, label, value)
    generate(page, "img2img")
    assert "Model: toy-model" in result(page).info["parameters"]
    expect(page.get_by_text("toy-model does not use negative prompts, so it was ignored.")).to_be_visible()
    open_tab(page, "Inpaint upload")
    put(page, "upload-picture", picture_file)
    put(page, "upload-mask", mask_file)
    before = page.locator("#gallery img.picture").get_attribute("src")
    generate(page, "inpaint_upload")
    expect(page.locator("#gallery img.picture")).not_to_have_attribute("src", before)
    assert "Mask blur: 4" in result(page).info["parameters"]
