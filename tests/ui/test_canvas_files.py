"""Files in the canvas: masks that are uploaded, dropped and pasted, what a result has changed, and what is kept and sent of all that."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from pipeline.foresight import lying
from pipeline.geometry import Size
from pipeline.painted import seen
from tests.ui.conftest import start
from tests.ui.steps import generate, open_page, open_tab, paint, put, put_in_editor, result, set_slider, settle, shares_to_client
from tests.ui.test_canvas import EDITOR, SIZE, canvas, kept, marked_file, mask_of, only_draws, sent, set_tool, sum_of  # noqa: F401
from tests.ui.test_canvas_tools import more

UPLOAD = "inpaint-upload-editor"
UNCHANGED = "150×50, stretched"
DROP = """([id, zone, files]) => {
    const root = document.querySelector(`#${id} .canvas`), dataTransfer = new DataTransfer();
    for (const { name, bytes } of files) dataTransfer.items.add(new File([Uint8Array.from(bytes)], name, { type: 'image/png' }));
    const at = (target, type) => target.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
    at(root.querySelector('.stage'), 'dragover');
    const zones = [...root.querySelectorAll('.zone')].filter((each) => each.offsetParent).map((each) => each.textContent);
    at(zone ? root.querySelector(`.zone[data-takes=${zone}]`) : root.querySelector('.stage'), 'drop');
    return zones;
}"""


@pytest.fixture
def odd_mask(tmp_path):
    """A mask that is not the picture's size and whose opacity counts, 150x50: opaque in its right half."""
    clear = Image.new("RGBA", (150, 50), (255, 255, 255, 0))
    clear.paste((255, 255, 255, 255), (75, 0, 150, 50))
    clear.save(tmp_path / "clear.png")
    return tmp_path / "clear.png"


@pytest.fixture
def uploads(page, marked_file, odd_mask):  # noqa: F811
    """Inpaint upload with a picture and the odd mask."""
    open_tab(page, "Inpaint upload")
    put(page, "upload-picture", marked_file)
    put(page, "upload-mask", odd_mask)
    expect(page.locator("#upload-mask output")).to_have_text(UNCHANGED)
    return page


def numbers(page, editor=UPLOAD) -> np.ndarray:
    """The layer as it stands, (h, w)."""
    data, width = page.evaluate("""id => { const { layer } = window.palimpsest.canvases.of(id).document; return [[...layer.data], layer.width]; }""", editor)
    return np.array(data, np.uint8).reshape(-1, width)


def told(page, editor=UPLOAD):
    """What Generate would tell the server of a canvas."""
    return page.evaluate("id => window.palimpsest.canvases.send([{ canvas: id }])", editor)[0]


def drop(page, editor, zone, *files):
    return page.evaluate(DROP, [editor, zone, [{"name": file.name, "bytes": list(file.read_bytes())} for file in files]])


def test_an_uploaded_mask_goes_as_its_file_until_it_is_painted_on(uploads, odd_mask, marked_file):  # noqa: F811
    assert sent(uploads, "mask", UPLOAD) == odd_mask.read_bytes() and told(uploads)["picture"]
    shown = np.asarray(seen(Image.open(odd_mask), *SIZE))
    assert (numbers(uploads) == shown).all()
    untouched = told(uploads)["mask"]
    set_tool(uploads, UPLOAD, size=30, hardness=1, opacity=1)
    paint(uploads, [(0.2, 0.5), (0.3, 0.5)], UPLOAD)
    expect(uploads.locator("#upload-mask output")).to_have_text("painted")
    painted = Image.open(io.BytesIO(sent(uploads, "mask", UPLOAD)))
    assert painted.mode == "L" and (np.asarray(painted) == numbers(uploads)).all()
    assert np.asarray(painted)[100, 75] == 255 and (np.asarray(painted)[:, 160:] == 255).all()
    uploads.keyboard.press("Control+z")
    expect(uploads.locator("#upload-mask output")).to_have_text(UNCHANGED)
    assert told(uploads)["mask"] == untouched  # and it is not sent again


def test_an_uploaded_mask_is_kept_as_its_file_over_a_reload(uploads, odd_mask):
    kept(uploads, int(numbers(uploads).sum()), UPLOAD)
    uploads.reload()
    settle(uploads)
    open_tab(uploads, "Inpaint upload")
    expect(uploads.locator("#upload-mask output")).to_have_text(UNCHANGED)
    assert sent(uploads, "mask", UPLOAD) == odd_mask.read_bytes()


def test_a_mask_may_come_before_its_picture(page, odd_mask, marked_file):  # noqa: F811
    open_tab(page, "Inpaint upload")
    put(page, "upload-mask", odd_mask)
    expect(page.locator("#upload-mask output")).to_have_text("waits for the picture")
    put(page, "upload-picture", marked_file)
    expect(page.locator("#upload-mask output")).to_have_text(UNCHANGED)
    assert sent(page, "mask", UPLOAD) == odd_mask.read_bytes()


def test_another_picture_leaves_an_uploaded_mask(uploads, odd_mask, picture_file):
    put(uploads, "upload-picture", picture_file)
    expect(uploads.locator("#upload-picture output")).to_have_text("160×160")
    expect(uploads.locator("#upload-mask output")).to_have_text(UNCHANGED)
    assert sent(uploads, "mask", UPLOAD) == odd_mask.read_bytes()
    assert (numbers(uploads) == np.asarray(seen(Image.open(odd_mask), 160, 160))).all()


def test_a_black_mask_is_sent_as_it_is_and_means_everything_where_it_is_inverted(page, marked_file, tmp_path):  # noqa: F811
    Image.new("L", SIZE).save(tmp_path / "black.png")
    open_tab(page, "Inpaint upload")
    put(page, "upload-picture", marked_file)
    put(page, "upload-mask", tmp_path / "black.png")
    set_slider(page, "Sampling steps", 1)
    generate(page, "inpaint_upload")
    expect(page.locator(".toast-body").last).to_contain_text("mask: it is all black")
    page.get_by_label("Inpaint not masked").check()
    generate(page, "inpaint_upload")
    result(page)


@only_draws
def test_a_file_is_dropped_as_the_picture_or_as_the_mask(canvas, picture_file, odd_mask):  # noqa: F811
    assert drop(canvas, EDITOR, "mask", odd_mask) == ["As the picture", "As the mask"]
    expect(canvas.locator(f"#{EDITOR} .status")).to_have_text("The mask was stretched from 150×50 to 300×200, the picture's size.")
    assert (mask_of(canvas) == np.asarray(seen(Image.open(odd_mask), *SIZE))).all()
    drop(canvas, EDITOR, "picture", picture_file)
    canvas.wait_for_function("window.palimpsest.canvases.of('inpaint-editor').document.picture.width === 160")
    assert sent(canvas) is None and not canvas.locator(".zones:visible").count()
    canvas.locator(f"#{EDITOR}").get_by_label("Remove the picture").click()
    assert drop(canvas, EDITOR, None, picture_file) == []  # there is nothing to ask
    canvas.wait_for_function("window.palimpsest.canvases.of('inpaint-editor').document.picture?.width === 160")


def test_a_mask_is_pasted_from_the_clipboard(canvas, context, server):  # noqa: F811
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server.url.rstrip("/"))
    canvas.evaluate("""async ([width, height]) => {
        const pen = new OffscreenCanvas(width, height).getContext('2d');
        pen.fillRect(0, 0, width, height);
        pen.fillStyle = '#fff';
        pen.fillRect(100, 50, 60, 40);
        await navigator.clipboard.write([new ClipboardItem({ 'image/png': await pen.canvas.convertToBlob() })]);
    }""", list(SIZE))
    more(canvas, "Mask from the clipboard")
    canvas.wait_for_function("window.palimpsest.canvases.of('inpaint-editor').document.history.past.length === 1")
    expected = np.zeros(SIZE[::-1])
    expected[50:90, 100:160] = 255
    assert (mask_of(canvas) == expected).all()
    canvas.evaluate("navigator.clipboard.writeText('no picture')")
    with canvas.expect_event("dialog") as dialog:
        canvas.once("dialog", lambda shown: shown.accept())
        more(canvas, "Mask from the clipboard")
    assert dialog.value.message == "There is no picture in the clipboard."


def test_a_mask_is_what_the_result_has_changed_by_more_than_a_threshold(canvas, marked_file):  # noqa: F811
    set_tool(canvas, size=60, hardness=1, opacity=1)
    paint(canvas, [(0.4, 0.5), (0.6, 0.5)])
    set_slider(canvas, "Sampling steps", 2)
    canvas.get_by_label("Only masked", exact=True).check()  # or the result is of another size
    generate(canvas, "inpaint")
    changed = np.asarray(result(canvas).convert("RGB")).astype(int) - np.asarray(Image.open(marked_file)).astype(int)
    changed = np.abs(changed).max(axis=-1)
    painted = sum_of(canvas)
    more(canvas, "Mask from what the result has changed")
    panel = canvas.locator(f"#{EDITOR} .panel")
    for threshold in (0, 20):
        panel.get_by_label("Differences of more than").evaluate(
            "(slider, share) => { slider.value = share; slider.dispatchEvent(new Event('input')); }", 1000 * (threshold / 255) ** 0.5)
        expect(panel.locator("output")).to_have_text(str(threshold))
        assert sum_of(canvas) == 255 * (changed > threshold).sum()
    assert 0 < sum_of(canvas) < 255 * (changed > 0).sum()
    panel.get_by_role("button", name="Apply").click()
    assert (mask_of(canvas) == 255 * (changed > 20)).all()
    canvas.keyboard.press("Control+z")  # one step
    assert sum_of(canvas) == painted


def test_a_restart_of_the_program_brings_picture_and_mask_back(browser, marked_file, tmp_path):  # noqa: F811
    with browser.new_context(viewport={"width": 1366, "height": 900}) as context:
        page = context.new_page()
        page.set_default_timeout(60_000)
        running = start(outputs=tmp_path / "outputs")
        server = next(running)
        open_page(page, server.url)
        open_tab(page, "Inpaint")
        put_in_editor(page, marked_file)
        set_tool(page, size=40, hardness=0.3, opacity=0.8)
        paint(page, [(0.3, 0.4), (0.7, 0.6)])
        mask = mask_of(page)
        kept(page, int(mask.sum()))
        running.close()
        again = start("--port", server.url.rstrip("/").rpartition(":")[2], outputs=tmp_path / "outputs")
        assert next(again).url == server.url
        try:
            page.reload()
            settle(page)
            open_tab(page, "Inpaint")
            page.wait_for_function("window.palimpsest?.canvases?.of('inpaint-editor')?.document.picture")
            assert sent(page, "picture") == marked_file.read_bytes()
            assert (mask_of(page) == mask).all()
            set_slider(page, "Sampling steps", 1)
            generate(page, "inpaint")
            result(page)
        finally:
            page.close()
            again.close()


def test_nothing_is_uploaded_before_generate_and_then_what_is_new(canvas, marked_file):  # noqa: F811
    posts = []  # (what, bytes)

    def note(route):
        posts.append((route.request.url.partition("kind=")[2], len(route.request.post_data_buffer or b"")))
        route.continue_()

    set_tool(canvas, foresee=False)  # what Generate will do needs the mask's PNG
    canvas.route(lambda address: "/canvas-drafts?kind" in address or "/shown-" in address, note)
    for y in (0.3, 0.5, 0.7):
        paint(canvas, [(0.3, y), (0.6, y)])
        settle(canvas)
    canvas.wait_for_timeout(600)  # the browser keeps it by itself meanwhile
    assert not posts
    set_slider(canvas, "Sampling steps", 1)
    generate(canvas, "inpaint")
    result(canvas)
    assert sorted(posts) == [("mask", posts[1][1]), ("picture", marked_file.stat().st_size)]
    settle(canvas)
    posts.clear()
    paint(canvas, [(0.4, 0.2), (0.5, 0.2)])
    before = canvas.locator("#gallery img.picture").get_attribute("src")
    generate(canvas, "inpaint")
    expect(canvas.locator("#gallery img.picture")).not_to_have_attribute("src", before)
    assert [what for what, _ in posts] == ["mask"] and posts[0][1] < 5000


@only_draws
def test_a_mask_that_is_used_is_seen_and_one_click_clears_it(canvas):  # noqa: F811
    opacity = "getComputedStyle(document.querySelector('#inpaint-editor canvas.layer')).opacity"
    paint(canvas, [(0.3, 0.5), (0.6, 0.5)])
    canvas.keyboard.press("v")
    assert float(canvas.evaluate(opacity)) == 0
    paint(canvas, [(0.3, 0.7), (0.6, 0.7)])  # what is painted is seen
    assert float(canvas.evaluate(opacity)) > 0
    canvas.keyboard.press("v")
    told(canvas, EDITOR)  # and so is what a job takes
    assert float(canvas.evaluate(opacity)) > 0 and sum_of(canvas)
    canvas.locator(f"#{EDITOR}").get_by_label("Clear the mask").click()
    assert not sum_of(canvas) and sent(canvas) is None


def test_a_brush_may_be_as_large_on_the_screen_at_any_zoom(canvas):  # noqa: F811
    set_tool(canvas, size=30, hardness=1, opacity=1)
    canvas.locator(f"#{EDITOR}").get_by_label("How the canvas is set").click()
    canvas.get_by_role("button", name="Pixels of the screen").click()
    canvas.get_by_role("button", name="Close", exact=True).first.click()
    shown = canvas.evaluate("window.palimpsest.canvases.of('inpaint-editor').view.scale")
    assert canvas.evaluate("window.palimpsest.canvases.of('inpaint-editor').settings.get('size')") == pytest.approx(30 * shown, abs=1)
    ring = canvas.locator(f"#{EDITOR} .ring")
    sizes = []
    for zoom in (1, 2):
        canvas.evaluate("by => { const { view } = window.palimpsest.canvases.of('inpaint-editor'); view.zoom(view.scale * by); }", zoom)
        [at] = shares_to_client(canvas, [(0.5, 0.5)], EDITOR)
        canvas.mouse.move(*at)
        sizes.append(ring.bounding_box()["width"])
        canvas.mouse.down()
        canvas.mouse.up()
        width = 60 * shown / canvas.evaluate("window.palimpsest.canvases.of('inpaint-editor').view.scale") / 2
        assert (mask_of(canvas)[100] > 127).sum() == pytest.approx(width, abs=1.5)
        canvas.keyboard.press("Control+z")
    assert sizes[0] == pytest.approx(sizes[1], abs=1)
    canvas.reload()
    settle(canvas)
    assert json.loads(canvas.evaluate("localStorage['palimpsest-canvas']"))["brushUnit"] == "screen"


# --- masks of other proportions than the picture

def lies(odd_mask, **settings):
    """The odd mask over the marked picture, as the pipeline uses it."""
    size = Size(settings.pop("width", 128), settings.pop("height", 128))
    return np.asarray(lying(Image.open(odd_mask), Size(*SIZE), size=size, **{"only_masked": False, "resize_mode": 0} | settings)[0])


def shows(page, expected):
    page.wait_for_function("([id, sum]) => window.palimpsest.canvases.of(id).document.layer.data.reduce((a, b) => a + b, 0) === sum", arg=[UPLOAD, int(expected.sum())])
    assert (numbers(page) == expected).all()


def test_a_mask_of_other_proportions_is_seen_as_it_will_be_used_and_the_rule_is_said(uploads, odd_mask):
    said = uploads.locator("#upload-mask output")
    expect(said).to_have_text("150×50, stretched")
    shows(uploads, lies(odd_mask))
    uploads.get_by_label("Crop and resize", exact=True).check()
    expect(said).to_have_text("150×50, cropped")
    expect(uploads.locator(f"#{UPLOAD} .status")).to_have_text("The mask has other proportions than the picture; both are cropped, as Resize mode says.")
    shows(uploads, lies(odd_mask, resize_mode=1))
    uploads.get_by_label("Resize and fill", exact=True).check()
    expect(said).to_have_text("150×50, edges filled")
    shows(uploads, lies(odd_mask, resize_mode=2))
    uploads.get_by_label("Only masked", exact=True).check()
    expect(said).to_have_text("150×50, stretched")
    shows(uploads, lies(odd_mask, only_masked=True, resize_mode=2))
    assert sent(uploads, "mask", UPLOAD) == odd_mask.read_bytes()  # it goes unchanged all the same


def test_what_was_painted_before_a_mask_is_laid_out_otherwise_is_undone_as_it_was(page, marked_file, odd_mask):  # noqa: F811
    open_tab(page, "Inpaint upload")
    put(page, "upload-picture", marked_file)
    set_tool(page, UPLOAD, size=30, hardness=1, opacity=1)
    paint(page, [(0.1, 0.5), (0.15, 0.5)], UPLOAD)
    painted = numbers(page)
    put(page, "upload-mask", odd_mask)
    page.get_by_label("Crop and resize", exact=True).check()
    shows(page, lies(odd_mask, resize_mode=1))
    paint(page, [(0.3, 0.5), (0.35, 0.5)], UPLOAD)
    over = numbers(page)
    assert (over >= lies(odd_mask, resize_mode=1)).all() and over.sum() > lies(odd_mask, resize_mode=1).sum()
    page.keyboard.press("Control+z")
    shows(page, lies(odd_mask, resize_mode=1))
    page.get_by_label("Just resize", exact=True).check()
    shows(page, lies(odd_mask))
    page.keyboard.press("Control+z")
    assert (numbers(page) == painted).all()
    for _ in range(2):
        page.keyboard.press("Control+Shift+z")
    assert (numbers(page) == over).all()


def test_a_mask_that_waits_for_its_picture_is_there_after_a_reload(page, odd_mask, marked_file):  # noqa: F811
    open_tab(page, "Inpaint upload")
    put(page, "upload-mask", odd_mask)
    expect(page.locator("#upload-mask output")).to_have_text("waits for the picture")
    page.wait_for_timeout(800)  # it is kept once nothing has changed for a while
    page.reload()
    settle(page)
    open_tab(page, "Inpaint upload")
    expect(page.locator("#upload-mask output")).to_have_text("waits for the picture")
    put(page, "upload-picture", marked_file)
    shows(page, lies(odd_mask))
    assert sent(page, "mask", UPLOAD) == odd_mask.read_bytes()
