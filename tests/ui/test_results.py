"""What can be done with a result: compared, sent on, asked for again, copied as a command, deleted."""

import base64
import json
import re
import urllib.request
import zipfile

import pytest
from playwright.sync_api import expect

from tests.ui.steps import (
    act,
    close_toasts,
    generate,
    has_picture,
    held,
    make,
    open_accordion,
    open_tab,
    pixels,
    put,
    put_back,
    result,
    set_slider,
    settle,
    shares_page,
    still,
    tiles,
)


@pytest.fixture
def made(page, picture_file, mask_file):
    """The page with a result of Inpaint upload, whose seed was random."""
    make_one(page, picture_file, mask_file)
    return page


@pytest.fixture
def looked_at(kept_page, picture_file, mask_file):
    """The file's page with such a result, the one that is there if there is any: for tests that leave it as it is."""
    if not tiles(kept_page).count() or files_of(kept_page) != getattr(kept_page, "looked_at", None):
        put_back(kept_page)
        make_one(kept_page, picture_file, mask_file)
        kept_page.looked_at = files_of(kept_page)
    close_toasts(kept_page)
    return kept_page


def files_of(page):
    return tiles(page).evaluate_all("(all) => all.map((each) => each.dataset.file)")


def make_one(page, picture_file, mask_file):
    open_tab(page, "Inpaint upload")
    put(page, "upload-picture", picture_file)
    put(page, "upload-mask", mask_file)
    page.locator("#prompt textarea").fill("a red house")
    for label, value in (("Sampling steps", 3), ("Width", 160), ("Height", 160)):
        set_slider(page, label, value)
    generate(page, "inpaint_upload")
    result(page)
    settle(page)  # Gradio tells the page a second time what it showed last


def saved(server) -> set:
    return {path for path in server.outputs.glob("img2img-images/*/*.png") if path.stat().st_size}


def test_before_and_after_are_shown_one_behind_the_other(looked_at):
    act(looked_at, "compare")
    expect(looked_at.locator("#gallery img.before")).to_be_visible()
    expect(looked_at.locator("#compare")).to_have_attribute("aria-pressed", "true")
    act(looked_at, "compare")
    expect(looked_at.locator("#gallery img.picture")).to_be_visible()
    expect(looked_at.locator("#gallery img.before")).to_be_hidden()


def test_the_seed_of_a_result_is_reused(looked_at):
    seed = re.search(r"Seed: (\d+)", result(looked_at).info["parameters"])[1]
    act(looked_at, "reuse-seed")
    expect(looked_at.locator("#seed input")).to_have_value(seed)


def test_the_copied_command_gives_the_same_bytes(looked_at, server):
    looked_at.context.grant_permissions(["clipboard-read", "clipboard-write"])
    act(looked_at, "copy-curl")
    expect(looked_at.get_by_text("Copied")).to_be_visible()
    looked_at.wait_for_function("async () => (await navigator.clipboard.readText()).includes('init_images')")
    command = looked_at.evaluate("navigator.clipboard.readText()")
    address, body = re.search(r"@- (\S+) <<'PALIMPSEST'\n(.*)\nPALIMPSEST\n", command, re.DOTALL).groups()
    request = urllib.request.Request(address, body.encode(), {"Content-Type": "application/json"})
    answer = json.load(urllib.request.urlopen(request, timeout=120))
    shown = urllib.request.urlopen(looked_at.locator("#gallery img.picture").get_attribute("src")).read()
    assert base64.b64decode(answer["images"][0]) == shown


@shares_page
def test_a_fast_result_is_made_again_exactly_and_the_difference_is_told(made):
    exact = pixels(result(made))
    act(made, "run-exactly")
    expect(made.get_by_text("This picture is already exact")).to_be_visible()
    act(made, "reuse-seed")
    open_accordion(made, "Fast, with different pixels")
    set_slider(made, "Guidance to", 0.5)
    before = made.locator("#gallery img.picture").get_attribute("src")
    generate(made, "inpaint_upload")
    expect(made.locator("#gallery img.picture")).not_to_have_attribute("src", before)
    assert "Guidance stop: 0.5" in result(made).info["parameters"] and (pixels(result(made)) != exact).any()
    settle(made)
    act(made, "run-exactly")
    expect(made.get_by_text(re.compile(r"Left: fast, right: exact · .* times as fast · .*\(PSNR [\d.]+ dB\)"))).to_be_visible()
    expect(made.locator("#gallery img.before")).to_be_visible()
    made.locator("#compare").click()
    assert (pixels(result(made)) == exact).all()


@shares_page
def test_a_result_goes_to_another_mode_with_its_mask(made):
    made.locator("#result-more").click()
    made.get_by_label("with mask").check()
    act(made, "use-in-inpaint")
    has_picture(made, "inpaint-editor")
    still(made, "#inpaint-editor")
    before = made.locator("#gallery img.picture").get_attribute("src")
    first = pixels(result(made))
    set_slider(made, "Denoising strength", 1)
    generate(made, "inpaint")
    expect(made.locator("#gallery img.picture")).not_to_have_attribute("src", before)
    changed = abs(pixels(result(made)) - first).max(axis=-1) > 0
    assert changed[70:90, 70:90].mean() > 0.8 and not changed[:40].any() and not changed[120:].any()


@shares_page
def test_a_result_is_deleted_only_when_that_is_confirmed(made, server):
    before = saved(server)
    made.once("dialog", lambda dialog: dialog.dismiss())
    made.locator("#delete-result").click()
    settle(made)
    assert saved(server) == before
    made.once("dialog", lambda dialog: dialog.accept())
    made.locator("#delete-result").click()
    expect(made.locator("#gallery img")).to_have_count(0)
    assert len(before - saved(server)) == 1


@shares_page
def test_all_results_come_as_one_zip_of_the_very_files(page, picture_file, server):
    before = saved(server)
    put(page, "img2img-picture", picture_file)
    for label, value in (("Sampling steps", 2), ("Batch count", 2)):
        set_slider(page, label, value)
    generate(page, "img2img")
    result(page)
    with page.expect_download() as download:
        act(page, "download-all")
    with zipfile.ZipFile(download.value.path()) as archive:
        files = {archive.read(name) for name in archive.namelist()}
    assert len(files) == 3 and {path.read_bytes() for path in saved(server) - before} <= files  # a grid and two pictures


@shares_page
def test_stop_after_this_one_finishes_the_picture_and_ends_the_job(page, picture_file):
    put(page, "img2img-picture", picture_file)
    set_slider(page, "Batch count", 100)
    generate(page, "img2img")
    page.locator("#stage img").first.wait_for()
    page.locator("#stop-after").click()
    result(page)
    made = tiles(page).count()
    assert 1 <= made < 100
    assert "Interrupted" not in page.locator("#infotext textarea").input_value()


@shares_page
def test_a_picture_is_pasted_and_a_result_is_dragged_to_the_input(made):
    open_tab(made, "img2img")
    made.evaluate("""async () => {
        const picture = await (await fetch(document.querySelector("#gallery img.picture").src)).blob();
        const clipboard = new DataTransfer();
        clipboard.items.add(new File([picture], "pasted.png", {type: "image/png"}));
        document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData: clipboard, bubbles: true}));
    }""")
    has_picture(made)
    pasted = held(made)
    set_slider(made, "Sampling steps", 2)
    make(made, "img2img")
    made.locator("#gallery img.picture").drag_to(made.locator("#img2img-picture"))
    made.wait_for_function("""(size) => window.palimpsest.canvases.of('img2img-picture').transport.picture.blob.size !== size""", arg=len(pasted))
    shown = urllib.request.urlopen(made.locator("#gallery img.picture").get_attribute("src")).read()
    assert held(made) == shown != pasted


@shares_page
def test_the_keys_are_listed(page):
    page.locator("body").press("?")
    expect(page.locator("#keys dialog")).to_be_visible()
    expect(page.locator("#keys dialog")).to_contain_text("Generate")
    page.keyboard.press("Escape")
    expect(page.locator("#keys dialog")).to_be_hidden()
    page.get_by_role("button", name="Keys").click()
    expect(page.locator("#keys dialog")).to_be_visible()


def test_a_setting_that_is_changed_leaves_tabs_and_pictures_alone(made):
    open_tab(made, "img2img")
    set_slider(made, "Sampling steps", 9)
    settle(made)
    expect(made.get_by_role("tab", name="img2img", exact=True)).to_have_attribute("aria-selected", "true")
    expect(made.locator("#img2img-picture")).to_contain_text("Drop a picture here")
