"""The page with a model that is not shaped like Stable Diffusion."""

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.families import tiny_flow
from tests.ui.conftest import start
from tests.ui.steps import generate, make, open_page, open_tab, put, result, set_slider, settle


def put_flow_models(models, made):
    """A tiny Z-Image in files of its own, with two text encoders, two VAEs, and a text encoder that is none; and a whole FLUX.1 dev."""
    (models / "Stable-diffusion").mkdir(parents=True)
    (models / "Stable-diffusion" / "flux.safetensors").hardlink_to(tiny_flow.flux1(made / "flux").file)
    files = tiny_flow.z_image(made)
    for place, file in (("Stable-diffusion/z-image", files.transformer), ("text_encoder/qwen", files.text_encoder),
                        ("text_encoder/qwen-2", files.text_encoder), ("text_encoder/no-encoder", files.vae), ("VAE/ae", files.vae), ("VAE/ae-2", files.vae)):
        (models / place).parent.mkdir(parents=True, exist_ok=True)
        (models / f"{place}.safetensors").hardlink_to(file)


@pytest.fixture(scope="module")
def toy_page(context, tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    put_flow_models(folder / "models", tmp_path_factory.mktemp("z-image"))
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


def strip(page):
    """The numbers of the pictures in the strip of references, with the colour of each one's middle."""
    return page.evaluate("""() => [...document.querySelectorAll('.references .tile')].map((tile) => [tile.textContent,
        [...tile.querySelector('canvas').getContext('2d').getImageData(44, 44, 1, 1).data.slice(0, 3)].join()])""")


def test_reference_pictures_are_added_ordered_kept_over_a_reload_and_used(toy_page, tmp_path):
    page = toy_page
    open_tab(page, "img2img")
    files = {name: tmp_path / f"{name}.png" for name in ("red", "lime", "blue")}
    for name, file in files.items():
        Image.new("RGB", (64, 80), name).save(file)
    red, lime, blue = "255,0,0", "0,255,0", "0,0,255"
    page.locator(".references input[type=file]").set_input_files([str(files["red"]), str(files["lime"])])
    expect(page.locator(".references .tile")).to_have_count(2)
    page.evaluate("""async (bytes) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], "blue.png", { type: "image/png" }));
        document.querySelector(".references").dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true }));
    }""", list(files["blue"].read_bytes()))
    expect(page.locator(".references .tile")).to_have_count(3)
    assert strip(page) == [["2", red], ["3", lime], ["4", blue]]
    for window, least in (((1366, 768), (440, 400)), ((390, 844), (358, 358))):
        page.set_viewport_size(dict(zip(("width", "height"), window)))
        canvas = page.locator("#img2img-picture").bounding_box()
        assert (canvas["width"], canvas["height"]) >= least and canvas["height"] >= least[1]
        assert page.locator(".references").bounding_box()["y"] + 40 < window[1]
    page.set_viewport_size({"width": 1366, "height": 900})
    page.get_by_label("Reference: picture 4").click()
    page.keyboard.press("Alt+ArrowLeft")
    page.get_by_label("Reference: picture 2").click()
    page.get_by_label("Remove the reference picture").click()
    assert strip(page) == [["2", blue], ["3", lime]]
    page.locator("#result-more").click()
    page.locator("#use-as-reference").click()
    expect(page.locator(".references .tile")).to_have_count(3)
    page.reload()
    expect(page.locator(".references .tile")).to_have_count(3)
    assert strip(page)[:2] == [["2", blue], ["3", lime]]
    settle(page)
    open_tab(page, "img2img")
    before = page.locator("#gallery img.picture").get_attribute("src")
    generate(page, "img2img")
    expect(page.locator("#gallery img.picture")).not_to_have_attribute("src", before)
    assert "Reference images: 3" in result(page).info["parameters"]
    page.get_by_label("Reference: picture 2").click()
    page.keyboard.press("Delete")
    page.keyboard.press("Delete")
    page.keyboard.press("Delete")
    expect(page.locator(".references .tile")).to_have_count(0)
    open_tab(page, "History")
    page.locator("#history img").first.click()
    page.locator("#history-restore").click()
    expect(page.locator(".references .tile")).to_have_count(3)
    assert strip(page)[:2] == [["2", blue], ["3", lime]]


def choose(page, menu, option):
    page.locator(f"#{menu} input").click()
    page.get_by_role("option", name=option, exact=True).click()
    page.keyboard.press("Escape")
    settle(page)


def checkpoint(page, name):
    page.locator("#checkpoint input").click()
    page.locator("[role=option]", has_text=name).click()
    settle(page)


def test_vae_and_text_encoders_are_chosen_at_the_top_and_remembered_for_each_model(toy_page, picture_file):
    page, encoders = toy_page, toy_page.locator("#text-encoders")
    page.reload()
    page.locator("#generate-img2img").wait_for()
    settle(page)
    expect(encoders).to_have_count(0)
    checkpoint(page, "z-image")
    expect(encoders).to_be_visible()
    choose(page, "text-encoders", "qwen-2.safetensors")
    choose(page, "vae", "ae-2.safetensors")
    expect(page.locator("#title .model")).to_contain_text("GB on cpu")
    box, header = encoders.bounding_box(), page.locator("#header").bounding_box()
    assert box["y"] >= header["y"] and box["y"] + box["height"] <= header["y"] + header["height"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    put(page, "img2img-picture", picture_file)
    page.get_by_label("Sampling method", exact=True).click()
    page.get_by_role("option", name="Euler", exact=True).click()
    set_slider(page, "Sampling steps", 2)
    assert "Module 1: ae-2, Module 2: qwen-2" in make(page, "img2img").info["parameters"]
    checkpoint(page, "toy-model")
    expect(encoders).to_have_count(0)
    expect(page.locator("#vae input")).to_have_value("Automatic")
    checkpoint(page, "z-image")
    expect(encoders.locator(".token")).to_have_text("qwen-2.safetensors")
    expect(page.locator("#vae input")).to_have_value("ae-2.safetensors")
    page.reload()
    page.locator("#generate-img2img").wait_for()
    settle(page)
    expect(encoders.locator(".token")).to_have_text("qwen-2.safetensors")
    choose(page, "text-encoders", "no-encoder.safetensors")
    expect(page.locator(".toast-body").last).to_contain_text('"no-encoder.safetensors" is not a Qwen3 text encoder')


def test_a_model_s_defaults_are_offered_and_its_kind_is_said_and_remembered(toy_page):
    page, offer, kind = toy_page, toy_page.locator("#use-defaults"), toy_page.locator("#model-kind")
    steps = page.get_by_label("number input for Sampling steps")
    open_tab(page, "img2img")
    set_slider(page, "Sampling steps", 3)
    checkpoint(page, "toy-model")
    expect(offer).to_have_count(0)
    checkpoint(page, "z-image")
    expect(offer).to_be_visible()
    expect(kind).to_have_count(0)
    set_slider(page, "CFG Scale", 7)
    expect(steps).to_have_value("3")  # nothing is forced
    for label, value in (("Width", 128), ("Height", 256)):
        set_slider(page, label, value)
    offer.click()
    expect(steps).to_have_value("9")
    shown = {label: page.get_by_label(f"number input for {label}").input_value() for label in ("CFG Scale", "Width", "Height")}
    assert shown == {"CFG Scale": "1", "Width": "728", "Height": "1448"}
    assert [page.get_by_label(label, exact=True).input_value() for label in ("Sampling method", "Schedule type")] == ["Euler", "Simple"]
    negative = page.locator(".prompt:has(#negative-prompt) > .tokens")
    expect(negative).to_have_text("not used at CFG Scale 1")
    set_slider(page, "CFG Scale", 2)
    expect(negative).not_to_contain_text("not used")
    checkpoint(page, "flux")
    expect(kind).to_be_visible()
    expect(page.get_by_label("number input for Distilled CFG Scale")).to_be_visible()
    expect(page.locator(".references")).to_be_hidden()
    choose(page, "model-kind", "Edits by instruction")
    expect(page.locator(".references")).to_be_visible()
    offer.click()
    expect(page.get_by_label("number input for Distilled CFG Scale")).to_have_value("2.5")
    checkpoint(page, "z-image")
    expect(kind).to_have_count(0)
    checkpoint(page, "flux")
    expect(kind.locator("input")).to_have_value("Edits by instruction")
    expect(page.locator(".references")).to_be_visible()
