"""The canvas shows what Generate will do, as the pipeline computes it; and its picture grows at its edges."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from pipeline.foresight import foresee
from pipeline.img2img import Mode, request_of
from pipeline.outpaint import Margins, extended
from tests.ui.steps import generate, open_tab, paint, put, put_in_editor, result, set_slider, settle, shares_page, stroke
from tests.ui.test_canvas import EDITOR, mask_of, set_tool

pytestmark = shares_page

SIZE = (300, 200)
CANVAS = f"window.palimpsest.canvases.of('{EDITOR}')"


@pytest.fixture
def picture(tmp_path):
    """A file of 300x200 in which every pixel can be told from its neighbours."""
    y, x = np.mgrid[:SIZE[1], :SIZE[0]]
    image = Image.fromarray(np.stack([x % 256, y, (x + y) % 256], axis=-1).astype(np.uint8))
    image.save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.fixture
def canvas(page, picture):
    open_tab(page, "Inpaint")
    put_in_editor(page, picture)
    set_tool(page, size=30, hardness=0.8, opacity=1)
    return page


def answered(page, editor=EDITOR):
    """What is foreseen of the mask and the settings as they are now."""
    page.wait_for_function("""(id) => { const { foresight, document } = window.palimpsest.canvases.of(id);
        return foresight.answer?.version === document.version && !foresight.outdated && !foresight.waiting; }""", arg=editor)
    return page.evaluate("(id) => (({ frames, together, size, inverted, onlyMasked, edge }) => ({ frames, together, size, inverted, onlyMasked, "
                         "edge }))(window.palimpsest.canvases.of(id).foresight.answer)", editor)


def computed(page, picture, **settings):
    """The same by the pipeline, of the mask that the canvas sends."""
    told = answered(page)
    mask = Image.fromarray(mask_of(page))
    defaults = {"mask_blur": 4, "inpaint_full_res": 0, "inpaint_full_res_padding": 32, "width": 128, "height": 128}
    return told, foresee(request_of(Mode.INPAINT, (Image.open(picture), mask), **defaults | settings))


def same(told, expected):
    assert [tuple(frame) for frame in told["frames"]] == [tuple(frame) for frame in expected.frames]
    assert tuple(told["size"]) == tuple(expected.size) and told["onlyMasked"] == expected.only_masked
    assert (told["together"] and tuple(told["together"])) == (expected.together and tuple(expected.together))
    assert (told["edge"] is None) == (expected.edge is None)
    if told["edge"]:
        edge = Image.open(io.BytesIO(base64.b64decode(told["edge"]["png"].split(",")[1])))
        assert tuple(told["edge"]["box"]) == tuple(expected.edge_box) and edge.tobytes() == expected.edge.tobytes()


def test_edge_and_crop_are_the_pipelines_and_follow_the_settings(canvas, picture):
    paint(canvas, [(0.2, 0.3), (0.3, 0.4)])
    same(*computed(canvas, picture))
    shown = canvas.evaluate(f"""() => {{ const {{ view: {{ effect }} }} = {CANVAS};
        const pixels = effect.canvas.getContext("2d").getImageData(0, 0, effect.canvas.width, effect.canvas.height).data;
        return [...pixels.filter((_, at) => at % 4 === 3)]; }}""")
    told, expected = computed(canvas, picture)
    assert (np.array(shown) == np.asarray(expected.edge).ravel()).all()
    canvas.get_by_label("Only masked", exact=True).check()
    settle(canvas)
    same(*computed(canvas, picture, inpaint_full_res=1))
    for label, field, value in (("Only masked padding, pixels", "inpaint_full_res_padding", 8), ("Mask blur", "mask_blur", 0), ("Width", "width", 192)):
        set_slider(canvas, label, value)
        settle(canvas)
    same(*computed(canvas, picture, inpaint_full_res=1, inpaint_full_res_padding=8, mask_blur=0, width=192))
    canvas.get_by_label("Inpaint not masked", exact=True).check()
    settle(canvas)
    told, expected = computed(canvas, picture, inpaint_full_res=1, inpaint_full_res_padding=8, mask_blur=0, width=192, inpainting_mask_invert=1)
    same(told, expected)
    assert told["inverted"] and canvas.evaluate(f"{CANVAS}.view.inverted")
    canvas.get_by_label("Inpaint masked", exact=True).check()
    canvas.get_by_label("Whole picture", exact=True).check()
    canvas.get_by_label("Crop and resize", exact=True).check()
    settle(canvas)
    same(*computed(canvas, picture, mask_blur=0, width=192, resize_mode=1))


def test_nothing_is_asked_while_a_stroke_is_drawn_and_only_the_mask_goes_up(canvas):
    answered(canvas)
    asked = []
    canvas.on("request", lambda request: asked.append(request.url) if request.method == "POST" else None)
    at = canvas.locator(f"#{EDITOR} .stage").bounding_box()
    canvas.mouse.move(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
    canvas.mouse.down()
    for step in range(10):
        canvas.mouse.move(at["x"] + at["width"] / 2 + 4 * step, at["y"] + at["height"] / 2)
        canvas.wait_for_timeout(100)
    assert asked == []
    assert canvas.evaluate(f"{CANVAS}.view.effect") is None  # what is painted is seen as it is painted
    canvas.mouse.up()
    answered(canvas)
    sends = [url for url in asked if "canvas-drafts" in url]
    assert len(sends) == 1 and "kind=mask" in sends[0] and len([url for url in asked if "queue/join" in url]) == 1
    canvas.keyboard.press("h")
    paint(canvas, [(0.2, 0.3), (0.3, 0.4)])
    canvas.wait_for_timeout(800)
    assert len([url for url in asked if "queue/join" in url]) == 1
    assert canvas.evaluate(f"{CANVAS}.view.effect") is None


def test_parts_that_lie_far_apart_run_one_after_the_other_by_a_click(canvas, picture):
    for label, value in (("Width", 64), ("Height", 64), ("Sampling steps", 2)):
        set_slider(canvas, label, value)
    canvas.get_by_label("Only masked", exact=True).check()
    settle(canvas)
    paint(canvas, [(0.1, 0.15), (0.14, 0.15)])
    offer = canvas.locator(f"#{EDITOR} .offer")
    answered(canvas)
    expect(offer).to_be_hidden()
    paint(canvas, [(0.86, 0.85), (0.9, 0.85)])
    told, expected = computed(canvas, picture, inpaint_full_res=1, width=64, height=64)
    same(told, expected)
    assert len(told["frames"]) == 2
    expect(offer).to_contain_text("Run the 2 areas that are far apart one after the other")
    offer.get_by_role("button").click()
    made = np.asarray(result(canvas).convert("RGB")).astype(int)
    expect(canvas.locator("#infotext textarea")).to_have_value(re.compile("Masked areas: 2"))
    changed = (made != np.asarray(Image.open(picture))).any(axis=-1)
    assert changed[20:40, 30:42].any() and changed[160:180, 258:270].any() and not changed[80:120].any()


# --- extending

def grown_file(page):
    data = page.evaluate(f"""() => new Promise(done => {{ const reader = new FileReader();
        reader.onload = () => done(reader.result.split(",")[1]); reader.readAsDataURL({CANVAS}.transport.picture.blob); }})""")
    return Image.open(io.BytesIO(base64.b64decode(data)))


def size_of(page):
    return page.evaluate(f"(({{ width, height }}) => [width, height])({CANVAS}.document.picture)")


def to_client(page, *points):
    return page.evaluate(f"points => points.map(([x, y]) => {CANVAS}.view.client({{ x, y }})).map(({{ x, y }}) => [x, y])", [list(p) for p in points])


def test_an_edge_is_dragged_and_what_is_new_is_masked(canvas, picture):
    set_slider(canvas, "Width", 192)  # the picture's shape
    settle(canvas)
    paint(canvas, [(0.2, 0.3), (0.3, 0.4)])
    before = mask_of(canvas)
    canvas.locator(f"#{EDITOR}").get_by_label("Extend the picture at its edges").click()
    stroke(canvas, to_client(canvas, (300, 100), (403, 100)))
    stroke(canvas, to_client(canvas, (0, 0), (-41, -2)))  # a corner, by too little upwards
    margins = canvas.evaluate(f"{CANVAS}.tools.extend.margins")
    assert margins == {"left": 40, "top": 0, "right": 100, "bottom": 0}  # 440 is a multiple of 8
    canvas.locator(f"#{EDITOR}").get_by_role("button", name="Apply").click()
    canvas.wait_for_function(f"{CANVAS}.document.picture.width === 440")
    assert size_of(canvas) == [440, 200]
    assert grown_file(canvas).tobytes() == extended(Image.open(picture), Margins(left=40, right=100), "mirrored").tobytes()
    grown = canvas.evaluate(f"[...{CANVAS}.document.layer.data]")
    expected = np.full((200, 440), 255, np.uint8)
    expected[:, 48:40 + 300 - 8] = before[:, 8:-8]
    assert (np.array(grown).reshape(200, 440) == expected).all()
    settle(canvas)
    expect(canvas.get_by_label("number input for Width", exact=True)).to_have_value("280")  # 192 by 440/300, to the next 8
    set_slider(canvas, "Sampling steps", 1)
    generate(canvas, "inpaint")
    assert result(canvas).size == (280, 128)


def test_by_keyboard_with_a_colour_and_back_by_undo(canvas, picture):
    paint(canvas, [(0.2, 0.3), (0.3, 0.4)])
    before = mask_of(canvas)
    editor = canvas.locator(f"#{EDITOR}")
    editor.locator(".stage").focus()
    canvas.keyboard.press("x")
    expect(editor.get_by_role("button", name="Apply")).to_be_disabled()
    editor.get_by_label("Top", exact=True).focus()
    canvas.keyboard.type("50")
    editor.get_by_label("Fill", exact=True).select_option("colour")
    set_tool(canvas, fillColour="#12ab34", overlap=0)
    editor.get_by_role("button", name="Apply").press("Enter")
    canvas.wait_for_function(f"{CANVAS}.document.picture.height === 250")
    assert grown_file(canvas).tobytes() == extended(Image.open(picture), Margins(top=50), "colour", "#12ab34").tobytes()
    layer = np.array(canvas.evaluate(f"[...{CANVAS}.document.layer.data]")).reshape(250, 300)
    assert (layer[:50] == 255).all() and (layer[50:] == before).all()
    editor.locator(".stage").focus()
    canvas.keyboard.press("Control+z")
    canvas.wait_for_function(f"{CANVAS}.document.picture.height === 200")
    assert grown_file(canvas).tobytes() == Image.open(picture).tobytes() and (mask_of(canvas) == before).all()
    canvas.keyboard.press("Control+z")  # and on to what was before it
    assert not mask_of(canvas).any()
    canvas.keyboard.press("Control+Shift+z")
    canvas.keyboard.press("Control+Shift+z")
    canvas.wait_for_function(f"{CANVAS}.document.picture.height === 250")
    assert (np.array(canvas.evaluate(f"[...{CANVAS}.document.layer.data]")).reshape(250, 300) == layer).all()


def test_what_is_too_large_is_refused_in_a_sentence_and_nothing_is_lost(canvas):
    canvas.locator(f"#{EDITOR} .stage").focus()
    canvas.keyboard.press("x")
    editor, said = canvas.locator(f"#{EDITOR}"), []
    canvas.on("dialog", lambda dialog: (said.append(dialog.message), dialog.accept()))
    canvas.evaluate(f"{CANVAS}.tools.extend.set('left', 20000)")
    editor.get_by_role("button", name="Apply").click()
    canvas.wait_for_function(f"!{CANVAS}.root.hasAttribute('aria-busy')")
    settle(canvas)
    assert said == ["left must be a whole number between 0 and 16384, got '20000'"] and size_of(canvas) == [300, 200]


# --- Inpaint upload

UPLOADED = "inpaint-upload-editor"


@pytest.fixture
def mask(tmp_path):
    """A mask of other proportions than the picture's: white in two far corners."""
    image = Image.new("L", (200, 200))
    image.paste(255, (0, 0, 24, 24))
    image.paste(255, (170, 176, 200, 200))
    image.save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def test_an_uploaded_mask_is_foreseen_as_the_pipeline_will_use_it(page, picture, mask):
    open_tab(page, "Inpaint upload")
    put(page, "upload-picture", picture)
    put(page, "upload-mask", mask)

    def check(**settings):
        settle(page)
        told = answered(page, UPLOADED)
        expected = foresee(request_of(Mode.INPAINT_UPLOAD, (Image.open(picture), Image.open(mask)),
                                      **{"mask_blur": 4, "inpaint_full_res": 0, "inpaint_full_res_padding": 32, "width": 128, "height": 128} | settings))
        same(told, expected)
        return expected

    assert check().edge is not None
    page.get_by_label("Crop and resize", exact=True).check()
    assert check(resize_mode=1).frames[0] != (0, 0, *SIZE)
    page.get_by_label("Only masked", exact=True).check()
    assert len(check(resize_mode=1, inpaint_full_res=1).frames) == 2
    expect(page.locator(f"#{UPLOADED} .offer")).to_contain_text("Run the 2 areas that are far apart one after the other")


def test_uploaded_areas_that_lie_far_apart_run_one_after_the_other(page, picture, mask):
    open_tab(page, "Inpaint upload")
    put(page, "upload-picture", picture)
    put(page, "upload-mask", mask)
    for label, value in (("Width", 64), ("Height", 64), ("Sampling steps", 2)):
        set_slider(page, label, value)
    page.get_by_label("Only masked", exact=True).check()
    page.locator(f"#{UPLOADED} .offer button").click()
    assert "Masked areas: 2" in result(page).info["parameters"]


def test_a_sketch_has_no_preview_and_no_button_for_one(page, picture):
    open_tab(page, "Sketch")
    put_in_editor(page, picture, "sketch-editor")
    expect(page.locator("#sketch-editor").get_by_label("Hide or show what was painted")).to_be_visible()
    expect(page.locator("#sketch-editor").get_by_label("Show what Generate will do")).to_have_count(0)
