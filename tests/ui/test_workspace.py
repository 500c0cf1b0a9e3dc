"""One screen: what the page's parts measure, and that they stay where they are."""

import gradio as gr
import pytest
from PIL import Image
from playwright.sync_api import expect

from pipeline.journal import Journal
from tests.ui.steps import count_shifts, generate, open_page, open_tab, prepare_a_long_job, put, put_in_editor, result, set_slider, settle, shares_page, still, tiles
from ui.history import NOTHING_YET, build_history, found
from ui.tabs import TAB_LABELS

DESKTOPS = {(1366, 768): (440, 400), (1920, 1080): (640, 640)}
"""Sizes of the window, with the least of the canvas."""
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}


@pytest.fixture
def phone(browser, server):
    yield from opened_phone(browser, server)


@pytest.fixture(scope="module")
def kept_phone(browser, server):
    """Opened once for those that leave it as it was."""
    yield from opened_phone(browser, server)


def opened_phone(browser, server):
    with browser.new_context(**PHONE) as context:
        context.set_default_timeout(60_000)
        page = context.new_page()
        open_page(page, server.url)
        yield page


def box(page, element):
    return page.locator(element).bounding_box()


def cut_off(page, elements):
    """Those of the elements that are not wholly in the window."""
    page.evaluate("scrollTo(0, 0)")
    window = page.viewport_size
    return [element for element in elements if not (found := box(page, element)) or found["x"] < 0 or found["y"] < 0
            or found["x"] + found["width"] > window["width"] or found["y"] + found["height"] > window["height"]]


@shares_page
@pytest.mark.parametrize("window", DESKTOPS, ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_desktop_shows_all_that_makes_a_picture_and_does_not_scroll(page, window):
    page.set_viewport_size(dict(zip(("width", "height"), window)))
    for mode, label in TAB_LABELS.items():
        open_tab(page, label)
        assert not cut_off(page, ["#prompt", f"#generate-{mode.value}", "#denoising-strength", "#gallery"]), label
        assert page.evaluate("document.documentElement.scrollHeight <= innerHeight"), label
    open_tab(page, "Inpaint")
    canvas, (width, height) = box(page, "#inpaint-editor"), DESKTOPS[window]
    assert not cut_off(page, ["#inpaint-editor"]) and canvas["width"] >= width and canvas["height"] >= height
    assert canvas["x"] + canvas["width"] <= box(page, "#gallery")["x"]
    page.set_viewport_size({"width": 1366, "height": 900})


def test_a_phone_shows_all_that_makes_a_picture(kept_phone):
    phone = kept_phone
    for mode, label in TAB_LABELS.items():
        open_tab(phone, label)
        assert not cut_off(phone, ["#prompt", f"#generate-{mode.value}", "#denoising-strength"]), label
    open_tab(phone, "Inpaint")
    canvas = box(phone, "#inpaint-editor")
    assert not cut_off(phone, ["#inpaint-editor"]) and canvas["width"] >= 358 and canvas["height"] >= 358
    widths = phone.evaluate("['.canvas', '.options'].map((part) => document.querySelector(`#inpaint-editor ${part}`).getBoundingClientRect().right)")
    assert widths[1] <= widths[0]
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth && document.documentElement.scrollHeight < 1.5 * innerHeight")


def test_all_modes_can_be_swiped_to_on_a_phone(kept_phone):
    tabs = kept_phone.locator("#modes [role=tab]")
    expect(tabs).to_have_count(6)
    assert all(found["height"] >= 40 for found in (tab.bounding_box() for tab in tabs.all()))


def test_a_finished_job_turns_the_stage_of_a_phone_to_its_result(phone):
    phone.locator("#samples-img2img img").first.click()
    settle(phone)
    set_slider_on_a_phone(phone, "Sampling steps", 2)
    generate(phone, "img2img")
    result(phone)
    expect(phone.locator("#gallery")).to_be_visible()
    expect(phone.locator("#img2img-picture")).to_be_hidden()
    assert not cut_off(phone, ["#gallery"])
    assert apart(box(phone, ".viewer .zoom"), box(phone, ".viewer .picture")), "buttons lie on the picture"
    phone.locator("#stage-switch [data-stage=source]").click()
    expect(phone.locator("#img2img-picture")).to_be_visible()


def apart(one, other):
    """Whether two boxes have no point in common."""
    return any(first[side] + first[length] <= second[side] for side, length in (("x", "width"), ("y", "height"))
               for first, second in ((one, other), (other, one)))


def set_slider_on_a_phone(page, label, value):
    page.locator("#fold-settings").click()
    set_slider(page, label, value)
    page.locator("#fold-settings").click()
    expect(page.locator("#settings")).to_be_hidden()


@pytest.mark.parametrize("kind, most", [("page", 0.02), ("phone", 0.05)])
def test_nothing_moves_from_generate_to_the_result(request, kind, most):
    page = request.getfixturevalue(kind)
    open_tab(page, "Inpaint")
    page.locator("#samples-inpaint img").first.click()
    settle(page)
    (set_slider_on_a_phone if kind == "phone" else set_slider)(page, "Sampling steps", 4)
    settle(page)
    count_shifts(page)
    generate(page, "inpaint")
    result(page)
    settle(page)
    assert page.evaluate("window.shifts") < most


def test_the_settings_fold_away_and_stay_so(page):
    page.locator("#fold-settings").click()
    expect(page.locator("#settings")).to_be_hidden()
    assert not cut_off(page, ["#denoising-strength", "#generate-img2img"])
    page.reload()
    page.locator("#generate-img2img").wait_for()
    expect(page.locator("#settings")).to_be_hidden()
    page.locator("#fold-settings").click()
    expect(page.locator("#settings")).to_be_visible()


@shares_page
def test_samples_lie_on_the_empty_canvas_only(page):
    samples = page.locator("#samples-img2img")
    expect(samples).to_be_visible()
    samples.locator("img").first.click()
    expect(samples).to_be_hidden()


def touch(page, start, end, steps=6):
    """Drag a finger, as a touch screen does, over points of the window."""
    session = page.context.new_cdp_session(page)
    session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [dict(zip("xy", start))]})
    for step in range(1, steps + 1):
        at = {axis: a + (b - a) * step / steps for axis, a, b in zip("xy", start, end)}
        session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [at]})
    page.wait_for_timeout(200)  # it rests before it lifts, or Chromium takes it for a fling, which the next tap only ends
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    session.detach()


def test_a_phone_extends_the_picture_by_touch(phone, picture_file):
    canvas = "window.palimpsest.canvases.of('inpaint-editor')"
    editor = phone.locator("#inpaint-editor")
    edge = "([x, y]) => { const { left, top } = %s.tools.extend.margins, at = %s.view.client({ x, y }); return [at.x, at.y]; }" % (canvas, canvas)
    open_tab(phone, "Inpaint")
    put_in_editor(phone, picture_file)
    width, height = Image.open(picture_file).size
    editor.get_by_label("Extend the picture at its edges").tap()
    for _ in (1, 2):  # until it is as large as the stage, and on
        still(phone, "#inpaint-editor .stage")
        stage = editor.locator(".stage").bounding_box()
        margins = phone.evaluate(f"{canvas}.tools.extend.margins")
        x, y = phone.evaluate(edge, [width / 2, height + margins["bottom"]])
        assert y + 20 <= stage["y"] + stage["height"]  # the edge is within the finger's reach
        touch(phone, (x, y), (x, stage["y"] + stage["height"] + 10))
        phone.wait_for_function(f"{canvas}.tools.extend.margins.bottom > {margins['bottom']} && !{canvas}.tools.extend.held")
    bottom = phone.evaluate(f"{canvas}.tools.extend.margins.bottom")
    assert phone.evaluate("scrollY") == 0  # the page has not moved along
    apply = editor.get_by_role("button", name="Apply")
    assert apply.bounding_box()["height"] >= 40
    apply.tap()
    phone.wait_for_function(f"{canvas}.document.picture.height === {height + bottom}")


# --- what stands in for Generate

WATCH_RUNNING = """() => {
    const look = () => {
        const button = document.querySelector("#skip");
        if (!button || window.atFirst) return;
        const { left, top, width, height } = button.getBoundingClientRect();
        window.atFirst = [getComputedStyle(button).pointerEvents, button.contains(document.elementFromPoint(left + width / 2, top + height / 2))];
    };
    new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
}"""


@shares_page
def test_the_second_click_of_a_double_click_on_generate_does_not_skip(page, picture_file):
    put(page, "img2img-picture", picture_file)
    prepare_a_long_job(page)
    page.evaluate(WATCH_RUNNING)
    page.locator("#generate-img2img").dblclick()
    page.locator("#skip").wait_for()
    assert page.evaluate("atFirst") == ["none", False]
    page.wait_for_function("getComputedStyle(document.querySelector('#skip')).pointerEvents === 'auto'")
    page.locator("#interrupt").click()
    page.locator("#interrupt").wait_for(state="hidden")


def swipe(page, element, by):
    """A finger's swipe over an element's middle, by so many CSS pixels."""
    found = box(page, element)
    x, y = found["x"] + found["width"] / 2, found["y"] + found["height"] / 2
    touch(page, (x, y), (x + by, y))


def test_a_swipe_goes_to_another_result_unless_the_picture_is_zoomed(phone):
    phone.locator("#samples-img2img img").first.click()
    settle(phone)
    set_slider_on_a_phone(phone, "Sampling steps", 1)
    set_slider_on_a_phone(phone, "Batch count", 2)
    generate(phone, "img2img")
    result(phone)
    expect(tiles(phone)).to_have_count(3)  # a grid and two pictures
    settle(phone)
    files = tiles(phone).evaluate_all("(all) => all.map((each) => each.dataset.file)")

    def shows(index):
        phone.wait_for_function("(file) => window.palimpsest.viewer.file === file && !window.palimpsest.viewer.loading", arg=files[index])
        assert phone.evaluate("window.palimpsest.viewer.sheet.style.translate") == ""

    shows(0)
    for by, index in ((100, 0), (-100, 1), (-100, 2), (-100, 2), (-30, 2), (100, 1)):
        swipe(phone, "#gallery .frame", by)
        shows(index)
    settle(phone)
    phone.evaluate("window.palimpsest.viewer.frame.zoom(4 * window.palimpsest.viewer.frame.scale)")
    swipe(phone, "#gallery .frame", -100)
    shows(1)


def test_history_of_a_phone_shows_a_pictures_details_over_the_list(phone):
    phone.locator("#samples-img2img img").first.click()
    settle(phone)
    set_slider_on_a_phone(phone, "Sampling steps", 1)
    generate(phone, "img2img")
    result(phone)
    settle(phone)
    open_tab(phone, "History")
    phone.locator("#history .thumbnail-item").first.click()
    settle(phone)
    assert not cut_off(phone, ["#history-picture", "#history-about", "#history-restore", "#history-delete", "#history-close"])
    heights = phone.locator("#history-details button:visible").evaluate_all("(all) => all.filter((each) => each.id).map((each) => each.offsetHeight)")
    assert len(heights) == 5 and min(heights) >= 40
    phone.locator("#history-close").click()
    expect(phone.locator("#history-details")).to_be_hidden()
    fields = [box(phone, field)["height"] for field in ("#history-words input", "#history-model input", "#history-since .timebox")]
    assert fields == pytest.approx([40] * 3, abs=1)


@shares_page
def test_history_says_that_nothing_matches(page):
    open_tab(page, "History")
    page.locator("#history-words input, #history-words textarea").first.fill("no such words anywhere")
    page.keyboard.press("Enter")
    expect(page.locator("#history-nothing")).to_have_text("Nothing matches this search.")


def test_an_empty_history_says_what_it_is_for(tmp_path):
    with gr.Blocks():
        history = build_history()
    shown = found(history, Journal(tmp_path), False, "", "", "", None, False)
    assert shown[history.rows] == [] and shown[history.nothing].value == NOTHING_YET
