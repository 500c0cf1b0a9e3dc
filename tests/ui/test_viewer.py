"""The viewer: results beside the source, compared with it, and this visit's in a filmstrip."""

import io
import re
import urllib.request

import gradio as gr
import pytest
from gradio.route_utils import delete_files_created_by_app
from PIL import Image
from playwright.sync_api import expect

from tests.ui.steps import (
    act,
    count_shifts,
    generate,
    has_picture,
    held,
    open_tab,
    pixels,
    prepare_a_long_job,
    put,
    put_in_editor,
    result,
    set_slider,
    settle,
    tiles,
)
from ui.viewer import Comparison, Shown, Viewer
from ui.visit import MOST, Result, Visit, thumbnail


# --- what is remembered

def results(*names):
    return [Result(f"/cache/{name}", f"Seed {name}", f"/outputs/{name}", "job") for name in names]


def test_the_newest_results_come_first_and_a_file_is_there_once():
    visit = Visit()
    visit.add(results("a", "b"))
    visit.add(results("c", "a"))
    assert [result.path for result in visit] == ["/outputs/c", "/outputs/a", "/outputs/b"]
    visit.remove("/outputs/a")
    assert [result.path for result in visit] == ["/outputs/c", "/outputs/b"]


def test_only_so_many_are_remembered():
    visit = Visit()
    visit.add(results("old"))
    visit.add(results(*map(str, range(MOST))))
    assert len(visit) == MOST and visit[0].path == "/outputs/0" and "/outputs/old" not in {result.path for result in visit}


@pytest.mark.parametrize("name, kind", [("00003-grid.png", "grid"), ("00003-17-mask.png", "mask"), ("00003-17-mask-composite.png", "mask"),
                                        ("00003-17-interrupted.png", "interrupted"), ("00003-17.png", ""), ("my-grid.png", "")])
def test_a_files_name_says_what_it_is(name, kind):
    assert Result("file", "", f"/outputs/{name}").kind == kind


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_a_thumbnail_is_small_and_of_the_pictures_proportions(mode, tmp_path):
    Image.new(mode, (900, 300)).save(tmp_path / "large.png")
    small = thumbnail(str(tmp_path / "large.png"))
    assert Image.open(small).size == (160, 53)


def test_a_picture_that_cannot_be_read_has_no_thumbnail(tmp_path):
    (tmp_path / "damaged.png").write_bytes(b"no picture")
    assert thumbnail(str(tmp_path / "damaged.png")) is None and len(list(tmp_path.iterdir())) == 1


def test_whatever_the_browser_may_fetch_is_deleted_with_gradios_other_copies(tmp_path):
    files = [tmp_path / name for name in ("result.png", "thumbnail.jpg", "before.png")]
    for file in files:
        file.touch()
    with gr.Blocks() as page:
        viewer = Viewer(label="Result", elem_id="gallery")
    visit = Visit()
    visit.add([Result(str(files[0]), "", "/outputs/result.png", thumbnail=str(files[1]))])
    viewer.postprocess(Shown(visit, comparison=Comparison(str(files[0]), str(files[2]))))
    delete_files_created_by_app(page, age=None)
    assert not any(file.exists() for file in files)


# --- in the browser

only_looks = pytest.mark.usefixtures("kept_page")


@pytest.fixture
def made(request, picture_file, mask_file):
    """The page with a result of Inpaint upload. Tests that only look at it share one: `only_looks`."""
    shared = "kept_page" in request.fixturenames
    page = request.getfixturevalue("kept_page" if shared else "page")
    if not shared or not tiles(page).count():
        open_tab(page, "Inpaint upload")
        put(page, "upload-picture", picture_file)
        put(page, "upload-mask", mask_file)
        for label, value in (("Sampling steps", 2), ("Width", 160), ("Height", 160), ("Denoising strength", 1)):
            set_slider(page, label, value)
        make(page, "inpaint_upload")
    yield page
    if shared:
        page.locator("#gallery .frame").press("0")


def make(page, mode):
    """Generate, and wait until the new result is shown."""
    before = shown(page) if tiles(page).count() else None
    generate(page, mode)
    if before:
        expect(page.locator("#gallery img.picture")).not_to_have_attribute("src", before)
    result(page)
    settle(page)


def shown(page):
    return page.locator("#gallery img.picture").get_attribute("src")


def view(page):
    """The frame's view: scale in device pixels, where the picture begins, and whether it is fitted."""
    return page.evaluate("(({ scale, x, y, fitted }) => ({ scale, x, y, fitted }))(window.palimpsest.viewer.frame)")


def wheel(page, by):
    """Turn the wheel where the pointer is, and wait until that is seen."""
    before = view(page)
    page.mouse.wheel(0, by)
    page.wait_for_function("before => window.palimpsest.viewer.frame.scale !== before", arg=before["scale"])


def fetched(address):
    return Image.open(io.BytesIO(urllib.request.urlopen(address).read()))


def test_nothing_is_offered_before_there_is_a_result_and_then_six_icons_and_a_menu(page, picture_file):
    expect(page.locator("#gallery")).to_contain_text("What you make is shown here.")
    buttons = page.locator("#result-actions button")
    for button in (*buttons.all(), *page.locator("#result-menu button").all(), page.locator("#interrupt"), page.locator("#sound")):
        expect(button).to_be_hidden()
    put(page, "img2img-picture", picture_file)
    set_slider(page, "Sampling steps", 1)
    make(page, "img2img")
    names = [button.inner_text() for button in buttons.all() if button.is_visible()]
    assert len(names) == 7 and names[-1] == "More" and all(names)
    expect(page.locator("#result-menu")).to_be_hidden()
    page.locator("#result-more").click()
    expect(page.locator("#use-in-inpaint")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#result-menu")).to_be_hidden()


def test_earlier_results_stay_in_the_filmstrip_and_the_keyboard_goes_through_them(made, server):
    first, text = shown(made), made.locator("#infotext textarea").input_value()
    set_slider(made, "Sampling steps", 1)
    make(made, "inpaint_upload")
    second = shown(made)
    expect(tiles(made)).to_have_count(2)
    expect(tiles(made).first).to_have_attribute("aria-selected", "true")
    tiles(made).first.press("ArrowRight")
    expect(made.locator("#gallery img.picture")).to_have_attribute("src", first)
    expect(made.locator("#infotext textarea")).to_have_value(text)
    expect(tiles(made).nth(1)).to_be_focused()
    made.keyboard.press("Home")
    expect(made.locator("#gallery img.picture")).to_have_attribute("src", second)
    made.keyboard.press("End")
    expect(made.locator("#gallery img.picture")).to_have_attribute("src", first)
    settle(made)
    act(made, "reuse-seed")
    expect(made.locator("#seed input")).to_have_value(re.search(r"Seed: (\d+)", text)[1])
    made.reload()
    expect(tiles(made)).to_have_count(2)
    expect(made.locator("#gallery img.picture")).to_have_attribute("src", second)
    settle(made)
    made.once("dialog", lambda dialog: dialog.accept())
    made.locator("#delete-result").click()
    expect(tiles(made)).to_have_count(1)
    expect(made.locator("#gallery img.picture")).to_have_attribute("src", first)


def test_thumbnails_are_small_and_a_dragged_one_is_the_result_itself(made):
    small = tiles(made).first.locator("img").get_attribute("src")
    assert fetched(small).size == (160, 160) and small != shown(made) and "thumbnail" in small
    open_tab(made, "img2img")
    tiles(made).first.drag_to(made.locator("#img2img-picture"))
    has_picture(made)
    assert (pixels(Image.open(io.BytesIO(held(made)))) == pixels(fetched(shown(made)))).all()


@only_looks
def test_a_result_is_compared_with_its_source_and_what_changed_outside_the_mask_is_counted(made, picture_file):
    made.locator("#compare").click()
    expect(made.locator("#gallery .said")).to_have_text("0 pixels changed outside the mask")
    before = made.locator("#gallery img.before")
    expect(before).to_be_visible()
    assert (pixels(fetched(before.get_attribute("src"))) == pixels(Image.open(picture_file))).all()
    frame, handle = made.locator("#gallery .sheet").bounding_box(), made.locator("#gallery .handle")
    assert handle.bounding_box()["x"] + 20 == pytest.approx(frame["x"] + frame["width"] / 2, abs=1)
    made.mouse.move(frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2)
    made.mouse.down()
    made.mouse.move(frame["x"] + frame["width"] / 4, frame["y"] + 20, steps=3)
    made.mouse.up()
    expect(handle).to_have_attribute("aria-valuenow", "25")
    assert before.evaluate("image => image.style.clipPath") == "inset(0px 75% 0px 0px)"
    made.get_by_role("button", name="Difference").click()
    lit = made.locator("#gallery canvas.difference").evaluate("""canvas => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const lit = [];
        for (let i = 0; i < data.length; i += 4) if (data[i] || data[i + 1] || data[i + 2]) lit.push([i / 4 % canvas.width, Math.floor(i / 4 / canvas.width)]);
        return lit;
    }""")
    changed = abs(pixels(result(made)) - pixels(Image.open(picture_file))).max(axis=-1) > 0
    assert len(lit) == changed.sum() and all(changed[y, x] for x, y in lit) and changed[70:90, 70:90].mean() > 0.8
    made.locator("#compare").click()
    expect(made.locator("#gallery canvas.difference")).to_be_hidden()


@only_looks
def test_the_source_is_seen_while_its_key_is_held(made):
    made.locator("#gallery .frame").focus()
    made.keyboard.down("Backquote")
    expect(made.locator("#gallery img.before")).to_be_visible()
    assert made.locator("#gallery img.before").evaluate("image => image.style.clipPath") == "none"
    made.keyboard.up("Backquote")
    expect(made.locator("#gallery img.before")).to_be_hidden()
    expect(made.locator("#gallery .said")).to_be_hidden()


@only_looks
def test_a_result_zooms_to_single_pixels_and_a_drag_moves_it(made):
    assert view(made)["fitted"]
    box = made.locator("#gallery .frame").bounding_box()
    made.mouse.dblclick(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    picture = made.locator("#gallery img.picture").bounding_box()
    assert view(made)["scale"] == 1 and (picture["width"], picture["height"]) == (160, 160)
    made.locator("#gallery .frame").press("0")
    fitted = view(made)
    assert fitted["fitted"] and fitted["scale"] > 1
    made.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    wheel(made, -1200)
    near = view(made)
    assert near["scale"] > 2 * fitted["scale"] and not near["fitted"]
    made.mouse.down()
    made.mouse.move(box["x"] + box["width"] / 2 + 60, box["y"] + box["height"] / 2 - 30, steps=4)
    made.mouse.up()
    moved = view(made)
    assert (moved["x"] - near["x"], moved["y"] - near["y"]) == (60, -30) and moved["scale"] == near["scale"]


def test_source_and_result_zoom_and_pan_together(page, picture_file):
    open_tab(page, "Inpaint")
    put_in_editor(page, picture_file)
    page.evaluate("""() => window.palimpsest.canvases.of("inpaint-editor").invert()""")  # all of it is masked
    for label, value in (("Sampling steps", 1), ("Width", 160), ("Height", 160)):
        set_slider(page, label, value)
    make(page, "inpaint")
    linked = """() => {
        const [{ view, document: { picture } }, { frame }] = [window.palimpsest.canvases.of("inpaint-editor"), window.palimpsest.viewer];
        const middle = view.at(view.width / 2, view.height / 2);
        return [[picture.width * view.scale, middle.x / picture.width, middle.y / picture.height, view.fitted],
            [frame.size.width * frame.scale, (frame.width / 2 - frame.x) / frame.scale / frame.size.width,
                (frame.height / 2 - frame.y) / frame.scale / frame.size.height, frame.fitted]];
    }"""
    for element in ("#gallery .frame", "#inpaint-editor .stage"):
        page.locator(element).scroll_into_view_if_needed()
        box = page.locator(element).bounding_box()
        page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 3)
        wheel(page, -500)
        source, picture = page.evaluate(linked)
        assert source[:3] == pytest.approx(picture[:3], abs=0.02) and not source[3] and not picture[3], element
    page.locator("#gallery .frame").press("0")
    source, picture = page.evaluate(linked)
    assert source[3] and picture[3]


def test_a_source_of_other_proportions_is_left_alone(page, picture_file):
    open_tab(page, "Inpaint")
    put_in_editor(page, picture_file)
    page.evaluate("""() => window.palimpsest.canvases.of("inpaint-editor").invert()""")
    for label, value in (("Sampling steps", 1), ("Width", 192), ("Height", 96)):
        set_slider(page, label, value)
    make(page, "inpaint")
    before = page.evaluate("window.palimpsest.canvases.of('inpaint-editor').view.scale")
    page.locator("#gallery .frame").press("+")
    assert not view(page)["fitted"] and page.evaluate("window.palimpsest.canvases.of('inpaint-editor').view.scale") == before


def test_nothing_moves_from_generate_to_the_result(page, picture_file):
    put(page, "img2img-picture", picture_file)
    set_slider(page, "Sampling steps", 40)
    page.evaluate("scrollTo(0, 0)")
    settle(page)
    frame = page.locator("#gallery .frame").bounding_box()
    count_shifts(page)
    page.locator("#prompt textarea").press("Control+Enter")
    # in which the preview is as large as it can be; looked up at once, or it may be gone
    box = page.wait_for_function("""() => {
        const { x, y, width, height } = document.querySelector("#stage img")?.getBoundingClientRect() ?? {};
        return width && { x, y, width, height };
    }""").json_value()
    side = min(box["width"], box["height"])
    result(page)
    settle(page)
    assert page.evaluate("window.shifts") < 0.02
    picture = page.locator("#gallery img.picture").bounding_box()
    assert page.locator("#gallery .frame").bounding_box() == frame
    expected = (box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2, side)
    assert (picture["x"], picture["y"], picture["height"]) == pytest.approx(expected, abs=2)


def test_interrupt_is_there_while_a_job_runs_and_an_earlier_result_can_be_looked_at_meanwhile(made):
    first = shown(made)
    expect(made.locator("#interrupt")).to_be_hidden()
    prepare_a_long_job(made)
    generate(made, "inpaint_upload")
    made.locator("#stage img").first.wait_for()
    for button in ("interrupt", "skip", "stop-after"):
        expect(made.locator(f"#{button}")).to_be_visible()
    expect(made.locator("#generate-inpaint_upload:not([disabled])")).to_be_hidden()
    expect(made.locator("#gallery img.picture")).to_be_hidden()
    tiles(made).first.click()
    expect(made.locator("#gallery img.picture")).to_be_visible()
    expect(made.locator("#stage .preview")).to_be_hidden()
    expect(made.locator("#stage .line")).to_contain_text("step")
    made.get_by_role("button", name="The picture that is being made").click()
    expect(made.locator("#stage .preview")).to_be_visible()
    made.locator("#interrupt").click()
    expect(made.locator("#gallery img.picture")).not_to_have_attribute("src", first)
    expect(made.locator("#interrupt")).to_be_hidden()
    expect(made.locator("#generate-inpaint_upload")).to_be_enabled()
    expect(tiles(made).first).to_have_attribute("data-kind", "interrupted")


def test_a_favourite_is_one_in_history_and_after_a_reload(made):
    favour = made.locator("#favour-result")
    expect(favour).to_have_attribute("aria-pressed", "false")
    favour.click()
    expect(favour).to_have_attribute("aria-pressed", "true")
    expect(tiles(made).first).to_have_class(re.compile("favourite"))
    made.reload()
    expect(favour).to_have_attribute("aria-pressed", "true")
    settle(made)
    favour.click()
    expect(favour).to_have_attribute("aria-pressed", "false")


def test_a_result_becomes_the_source_of_the_mode_that_is_open(made):
    open_tab(made, "img2img")
    made.locator("#use-as-source").click()
    has_picture(made)
    expect(made.get_by_role("tab", name="img2img", exact=True)).to_have_attribute("aria-selected", "true")
    assert (pixels(Image.open(io.BytesIO(held(made)))) == pixels(fetched(shown(made)))).all()


@only_looks
def test_a_result_is_downloaded_and_copied_as_it_is(made):
    with made.expect_download() as download:
        made.locator("#download-result").click()
    data = download.value.path().read_bytes()
    assert data == urllib.request.urlopen(shown(made)).read() and re.fullmatch(r"\d+-\d+\.png", download.value.suggested_filename)
    made.context.grant_permissions(["clipboard-read", "clipboard-write"])
    made.locator("#copy-result").click()
    expect(made.locator("#gallery .note")).to_have_text("Copied.")
    assert made.evaluate("navigator.clipboard.read().then(([item]) => item.types)") == ["image/png"]


@only_looks
def test_the_line_above_the_picture_opens_its_infotext(made):
    expect(made.locator("#result-title .facts")).to_have_text(re.compile(r"160 × 160 · Seed \d+"))
    expect(made.locator("#infotext")).to_be_hidden()
    made.locator("#result-title .facts").click()
    expect(made.locator("#infotext")).to_be_visible()
