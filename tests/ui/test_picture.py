"""img2img's picture and PNG info's: the canvas without anything to paint."""

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.ui.steps import generate, has_picture, held, open_page, open_tab, put, result, set_slider, settle, shares_page, still

CANVAS = "window.palimpsest.canvases.of('img2img-picture')"


@pytest.fixture
def with_picture(page, picture_file):
    put(page, "img2img-picture", picture_file)
    return page


def seen(page):
    """What is seen of the picture and of the result: width by the result's, and the middle in shares of the picture."""
    return page.evaluate(f"""() => {{
        const {{ view, document: {{ picture }} }} = {CANVAS}, {{ frame }} = window.palimpsest.viewer;
        const middle = view.at(view.width / 2, view.height / 2);
        const [x, y] = [(frame.width / 2 - frame.x) / frame.scale / frame.size.width, (frame.height / 2 - frame.y) / frame.scale / frame.size.height];
        return {{ width: picture.width * view.scale / (frame.size.width * frame.scale), source: [middle.x / picture.width, middle.y / picture.height],
            result: [x, y], fitted: [view.fitted, frame.fitted],
            tops: [view.client({{ x: 0, y: 0 }}).y, frame.stage.getBoundingClientRect().top + frame.y / devicePixelRatio] }};
    }}""")


def together(page):
    shown = seen(page)
    return shown["width"] == pytest.approx(1) and shown["source"] == pytest.approx(shown["result"], abs=0.01)


@shares_page
def test_source_and_result_of_img2img_zoom_and_pan_together(with_picture):
    page = with_picture
    set_slider(page, "Sampling steps", 2)
    generate(page, "img2img")
    result(page)
    settle(page)
    at_first = seen(page)
    assert at_first["fitted"] == [True, True] and at_first["width"] == pytest.approx(1)
    assert at_first["tops"][0] == pytest.approx(at_first["tops"][1], abs=2)  # the canvas has a border
    page.locator("#img2img-picture .stage").hover(position={"x": 60, "y": 60})
    page.mouse.wheel(0, -600)
    page.wait_for_function(f"!{CANVAS}.view.fitted")
    assert together(page) and seen(page)["source"][0] < 0.5
    before = seen(page)["source"]
    page.mouse.down()
    page.mouse.move(*[side - 40 for side in mouse_at(page)], steps=4)
    page.mouse.up()
    assert together(page) and all(now > was for now, was in zip(seen(page)["source"], before))
    page.locator("#gallery .frame").press("0")
    assert seen(page)["fitted"] == [True, True]


def mouse_at(page):
    box = page.locator("#img2img-picture .stage").bounding_box()
    return box["x"] + 60, box["y"] + 60


def test_there_is_nothing_to_paint_with_and_no_key_for_it(with_picture):
    page = with_picture
    names = page.locator("#img2img-picture button:visible").evaluate_all("(all) => all.map((each) => each.ariaLabel || each.textContent)")
    assert names[:2] == ["Choose another picture", "Remove the picture"] and names[-1] == "Fit" and len(names) == 4
    page.locator("#img2img-picture .stage").focus()
    shown = page.locator("#img2img-picture .stage").screenshot()
    for key in "belpsrofcawngxhmivBE[]{}":
        page.locator("#img2img-picture .stage").press(key)
    page.locator("#img2img-picture .stage").press("Delete")
    assert page.locator("#img2img-picture .stage").screenshot() == shown


def test_the_picture_is_the_file_itself_and_there_again_after_a_reload(with_picture, server, picture_file):
    page = with_picture
    assert held(page) == picture_file.read_bytes()
    page.wait_for_timeout(800)  # it is kept once nothing has changed for a while
    open_page(page, server.url)
    assert held(page) == picture_file.read_bytes()
    page.get_by_label("Remove the picture").locator("visible=true").click()
    expect(page.locator("#img2img-picture")).to_contain_text("Drop a picture here")
    page.wait_for_timeout(800)
    open_page(page, server.url)
    expect(page.locator("#img2img-picture")).to_contain_text("Drop a picture here")


@shares_page
def test_a_file_that_is_dropped_beside_the_canvas_does_not_end_the_page(page, picture_file):
    address = page.url
    page.evaluate("""(bytes) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
        const at = document.querySelector("#result");
        for (const name of ["dragover", "drop"]) {
            const event = new DragEvent(name, { dataTransfer: transfer, bubbles: true, cancelable: true });
            at.dispatchEvent(event);
            window.left = !event.defaultPrevented;
        }
    }""", list(picture_file.read_bytes()))
    has_picture(page)
    assert held(page) == picture_file.read_bytes() and page.url == address and not page.evaluate("left")


@shares_page
def test_arrow_keys_and_a_drag_move_what_is_larger_than_its_place_and_a_fitted_picture_stays(with_picture):
    page = with_picture
    stage = page.locator("#img2img-picture .stage")
    box, before = stage.bounding_box(), seen_of(page)
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 100, steps=3)
    page.mouse.up()
    assert seen_of(page) == before
    page.mouse.dblclick(box["x"] + 100, box["y"] + 100)
    stage.press("+")
    for _ in range(12):
        stage.press("+")
    at = seen_of(page)
    stage.press("ArrowRight")
    assert seen_of(page)[0] > at[0]


def seen_of(page):
    return page.evaluate(f"""() => {{ const {{ view }} = {CANVAS}; const at = view.at(view.width / 2, view.height / 2); return [at.x, at.y]; }}""")


@shares_page
@pytest.mark.parametrize("size", [(24, 16), (900, 300)])
def test_png_info_shows_a_picture_of_any_size_in_its_place(page, tmp_path, size):
    Image.new("RGB", size, (200, 60, 20)).save(tmp_path / "picture.png")
    open_tab(page, "PNG info")
    put(page, "png-info-picture", tmp_path / "picture.png")
    still(page, "#png-info-picture")
    stage = page.locator("#png-info-picture .stage").bounding_box()
    left, top, width, height = page.evaluate("""() => {
        const { view, document: { picture } } = window.palimpsest.canvases.of("png-info-picture");
        const { x, y } = view.client({ x: 0, y: 0 });
        return [x, y, picture.width * view.scale / view.ratio, picture.height * view.scale / view.ratio];
    }""")
    assert left + width / 2 == pytest.approx(stage["x"] + stage["width"] / 2, abs=1)
    assert top + height / 2 == pytest.approx(stage["y"] + stage["height"] / 2, abs=1)
    assert width >= min(8 * size[0], stage["width"] - 30)
