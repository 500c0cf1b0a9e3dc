"""The canvas: what is drawn on it, at any zoom and on any screen, is the mask that Python computes."""

import io
import math
import time

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.ui.steps import WINDOW, act, generate, open_tab, paint, put_in_editor, result, set_slider, settle, shares_page, shares_to_client, stroke

EDITOR = "inpaint-editor"
SIZE, TILE = (300, 200), 256


@pytest.fixture
def marked_file(tmp_path):
    """A grey 300x200 picture with a red square from (40, 30) to (60, 50) and another from (240, 150) to (260, 170)."""
    image = Image.new("RGB", SIZE, (128, 128, 128))
    for x, y in ((40, 30), (240, 150)):
        image.paste((255, 0, 0), (x, y, x + 20, y + 20))
    image.save(tmp_path / "marked.png")
    return tmp_path / "marked.png"


@pytest.fixture
def canvas(request, marked_file):
    """The page with the picture in the canvas; that of the file where a test `shares_page` or, what takes less, `only_draws`."""
    yield from drawn_on(request, marked_file)


only_draws = pytest.mark.usefixtures("kept_page")


def drawn_on(request, file):
    """The test's page with the file's picture; nothing is previewed, so nothing is uploaded before Generate."""
    if "kept_page" in request.fixturenames and "page" not in request.fixturenames:
        yield from lent(request.getfixturevalue("kept_page"), file)
    else:
        page = request.getfixturevalue("page")
        open_tab(page, "Inpaint")
        put_in_editor(page, file)
        set_tool(page, foresee=False)
        yield page


def lent(page, file):
    """The page with the file's picture in its canvas; afterwards there is none, and the tools are set as they were at first."""
    open_tab(page, "Inpaint")
    put_in_editor(page, file)
    set_tool(page, foresee=False)
    yield page
    page.evaluate("""id => {
        const canvas = window.palimpsest.canvases.of(id), { settings } = canvas;
        canvas.remove();
        canvas.choose("brush");
        localStorage.clear();
        for (const [name, value] of Object.entries(new settings.constructor().values)) settings.set(name, value);
        localStorage.clear();
    }""", EDITOR)


def put_another(page, file, size):
    """Put the file in the place of the picture that is there, and wait until it is seen in its size."""
    put_in_editor(page, file)
    page.wait_for_function("""([id, width, height]) => {
        const { picture } = window.palimpsest.canvases.of(id).document;
        return picture.width === width && picture.height === height;
    }""", arg=[EDITOR, *size])


def set_tool(page, editor=EDITOR, **values):
    """How the tools are set: size, hardness, opacity, ink."""
    page.evaluate("""([id, values]) => {
        for (const [name, value] of Object.entries(values)) window.palimpsest.canvases.of(id).settings.set(name, value);
    }""", [editor, values])


def sent(page, kind="mask", editor=EDITOR, *, anew=True):
    """The file that the canvas sends before a job; None where there is none. anew: as if the server held none of its files."""
    files = []

    def catch(route):
        if anew and route.request.method == "GET":  # asks which of them it holds
            route.fulfill(json=[])
            return
        if f"kind={kind}" in route.request.url:
            files.append(route.request.post_data_buffer)
        route.continue_()

    page.route("**/canvas-drafts*", catch)
    told = page.evaluate("id => window.palimpsest.canvases.send([{ canvas: id }])", editor)
    page.unroute("**/canvas-drafts*")
    assert not told[0].get("problem"), told
    return files[-1] if files else None


def mask_of(page) -> np.ndarray:
    """The mask as it is sent, (h, w); all 0 where none is."""
    page.evaluate("window.palimpsest.canvases.of('inpaint-editor').transport.layer = null")  # or it is sent once only
    data = sent(page)
    if data is None:
        return np.zeros(SIZE[::-1], np.uint8)
    image = Image.open(io.BytesIO(data))
    assert image.mode == "L" and image.size == SIZE
    return np.asarray(image)


def to_picture(page, points):
    """Points of the window in the picture, by where the red squares are seen on the screen."""
    screen = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    red = (screen[..., 0] > 200) & (screen[..., 1] < 80) & (screen[..., 2] < 80)
    stage = page.locator(f"#{EDITOR} .stage").bounding_box()
    ratio = page.evaluate("devicePixelRatio")
    left, top, right, bottom = (round(edge * ratio) for edge in (
        stage["x"] + 1, stage["y"] + 1, stage["x"] + stage["width"] - 1, stage["y"] + stage["height"] - 1))
    rows, columns = np.nonzero(red[top:bottom, left:right])
    x1, x2, y1, y2 = columns.min() + left, columns.max() + 1 + left, rows.min() + top, rows.max() + 1 + top
    scale = (x2 - x1) / 220  # the squares reach from 40 to 260, and from 30 to 170
    assert (y2 - y1) / 140 == pytest.approx(scale, rel=0.02)
    return [((x * ratio - x1) / scale + 40, (y * ratio - y1) / scale + 30) for x, y in points]


def swept(points, size, hardness=1.0, opacity=1.0, start=None):
    """The mask of a stroke through points of the picture: 255 within the brush, falling off by a smooth step at its edge."""
    y, x = np.mgrid[:SIZE[1], :SIZE[0]] + 0.5
    radius, cover = size / 2, np.zeros(SIZE[::-1])
    for (ax, ay), (bx, by) in zip(points, points[1:] or points):
        length = (bx - ax) ** 2 + (by - ay) ** 2
        t = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length, 0, 1) if length else 0
        share = np.clip((radius - np.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay))) / max(1, radius * (1 - hardness)) + 0.5, 0, 1)
        cover = np.maximum(cover, np.round(255 * share**2 * (3 - 2 * share)))
    before = np.zeros(SIZE[::-1]) if start is None else start.astype(float)
    return np.round(before + (255 - before) * cover / 255 * opacity)


def centre(mask):
    rows, columns = np.mgrid[:mask.shape[0], :mask.shape[1]] + 0.5
    weights = mask / mask.sum()
    return (columns * weights).sum(), (rows * weights).sum()


@pytest.fixture
def screen(kept_page):
    """Gives the shared page another screen: the window's size in CSS pixels, and device pixels per CSS pixel."""
    session = kept_page.context.new_cdp_session(kept_page)

    def use(width, height, ratio):
        kept_page.set_viewport_size({"width": width, "height": height})
        session.send("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": ratio, "mobile": False})
        kept_page.wait_for_function("([width, ratio]) => innerWidth === width && Math.abs(devicePixelRatio - ratio) < 0.01", arg=[width, ratio])
        settle(kept_page)

    yield use
    session.send("Emulation.clearDeviceMetricsOverride")
    session.detach()
    kept_page.set_viewport_size(WINDOW)


@only_draws
@pytest.mark.parametrize("ratio", [1, 2])
@pytest.mark.parametrize("zoom", [0.67, 1, 1.5])
def test_a_stroke_lands_where_the_pointer_is(canvas, screen, ratio, zoom):
    """A browser's zoom is a device pixel ratio that is as much larger, and a window of as many CSS pixels less."""
    page = canvas
    screen(round(1366 / zoom), round(900 / zoom), ratio * zoom)
    set_tool(page, size=24, hardness=1, opacity=1)
    for step, wheel in enumerate((0, -240)):  # as fitted, then nearer
        [at] = shares_to_client(page, [(0.5, 0.5)], EDITOR)
        page.mouse.move(*at)
        if wheel:
            page.mouse.wheel(0, wheel)
        points = [(round(x), round(y)) for x, y in shares_to_client(page, [(0.4, 0.45), (0.62, 0.6)], EDITOR)]
        expected = swept(to_picture(page, points) if not wheel else shown_at(page, points), 24)
        stroke(page, points)
        mask = mask_of(page)
        assert math.dist(centre(mask), centre(expected)) < 0.5, step
        assert abs(mask.astype(int) - expected).sum() / 255 < 0.5 * 2 * (math.pi * 12 + 80), step  # half a pixel along its edge
        page.locator(f"#{EDITOR}").get_by_label("Undo").click()
        assert not mask_of(page).any()


def shown_at(page, points):
    """Points of the window in the picture, as the canvas has them."""
    return page.evaluate("""points => points.map(([clientX, clientY]) => window.palimpsest.canvases.of('inpaint-editor').view.pointer({ clientX, clientY }))
                            .map(({ x, y }) => [x, y])""", points)


@only_draws
@pytest.mark.parametrize("hardness, opacity", [(1, 1), (0.5, 1), (0, 0.6)])
def test_a_stroke_is_to_the_number_what_python_computes(canvas, hardness, opacity):
    set_tool(canvas, size=40, hardness=hardness, opacity=opacity)
    points = [(round(x), round(y)) for x, y in shares_to_client(canvas, [(0.3, 0.3), (0.7, 0.4), (0.35, 0.8)], EDITOR)]
    stroke(canvas, points, steps=1)
    first = swept(shown_at(canvas, points), 40, hardness, opacity)
    assert abs(mask_of(canvas) - first).max() <= 1
    stroke(canvas, points[:2], steps=1)  # a second stroke adds to what is there
    assert abs(mask_of(canvas) - swept(shown_at(canvas, points[:2]), 40, hardness, opacity, start=first)).max() <= 2


@only_draws
def test_a_stroke_that_crosses_itself_is_no_denser_there(canvas):
    set_tool(canvas, size=30, hardness=1, opacity=0.5)
    paint(canvas, [(0.3, 0.5), (0.7, 0.5), (0.3, 0.5)])
    assert mask_of(canvas).max() == 128


@only_draws
def test_the_eraser_takes_away_and_undo_brings_back(canvas):
    set_tool(canvas, size=60, hardness=1, opacity=1)
    paint(canvas, [(0.3, 0.5), (0.7, 0.5)])
    painted = mask_of(canvas)
    canvas.keyboard.press("e")
    set_tool(canvas, size=20)
    points = [(round(x), round(y)) for x, y in shares_to_client(canvas, [(0.4, 0.5), (0.6, 0.5)], EDITOR)]
    stroke(canvas, points, steps=1)
    erased = mask_of(canvas)
    assert abs(erased - np.round(painted * (1 - swept(shown_at(canvas, points), 20) / 255))).max() <= 1
    canvas.keyboard.press("Control+z")
    assert (mask_of(canvas) == painted).all()
    canvas.keyboard.press("Control+z")
    assert not mask_of(canvas).any()
    for _ in range(2):
        canvas.keyboard.press("Control+Shift+z")
    assert (mask_of(canvas) == erased).all()


@only_draws
def test_invert_and_clear_are_steps_of_their_own(canvas):
    set_tool(canvas, size=40, hardness=0.2)
    paint(canvas, [(0.3, 0.5), (0.7, 0.5)])
    painted = mask_of(canvas)
    canvas.locator(f"#{EDITOR}").get_by_label("Invert the mask").click()
    assert (mask_of(canvas) == 255 - painted).all()
    canvas.locator(f"#{EDITOR}").get_by_label("Clear the mask").click()
    assert sent(canvas) is None
    canvas.keyboard.press("Control+z")
    canvas.keyboard.press("Control+z")
    assert (mask_of(canvas) == painted).all()


@only_draws
def test_the_tools_are_there_for_the_keyboard_alone(canvas):
    stage = canvas.locator(f"#{EDITOR} .stage")
    stage.focus()
    set_tool(canvas, size=20, hardness=1, opacity=1)
    canvas.keyboard.press("Enter")  # from the picture's middle
    for _ in range(30):
        canvas.keyboard.press("Shift+ArrowRight")
    canvas.keyboard.press("Enter")
    assert abs(mask_of(canvas) - swept([(150, 100), (180, 100)], 20)).max() <= 1
    canvas.keyboard.press("]")
    assert canvas.evaluate("window.palimpsest.canvases.of('inpaint-editor').settings.get('size')") == 22
    names = canvas.locator(f"#{EDITOR} button:visible").evaluate_all("buttons => buttons.map(b => b.ariaLabel || b.textContent.trim())")
    assert all(names)


@only_draws
def test_space_and_wheel_move_the_view_and_leave_the_mask(canvas):
    before = shares_to_client(canvas, [(0.5, 0.5)], EDITOR)[0]
    canvas.mouse.move(*before)
    canvas.mouse.wheel(0, -300)
    assert shares_to_client(canvas, [(0.5, 0.5)], EDITOR)[0] == pytest.approx(before, abs=1)  # to the pointer
    canvas.keyboard.down(" ")
    stroke(canvas, [before, (before[0] + 50, before[1] + 20)])
    canvas.keyboard.up(" ")
    assert shares_to_client(canvas, [(0.5, 0.5)], EDITOR)[0] == pytest.approx((before[0] + 50, before[1] + 20), abs=1)
    canvas.keyboard.press("1")
    expect(canvas.locator(f"#{EDITOR} .percent")).to_have_text("100 %")
    canvas.keyboard.press("0")
    assert shares_to_client(canvas, [(0.5, 0.5)], EDITOR)[0] == pytest.approx(before, abs=1)
    assert sent(canvas) is None


@shares_page
def test_what_python_gets_is_the_untouched_file_and_the_mask_once(canvas, marked_file):
    assert sent(canvas, "picture") == marked_file.read_bytes()
    paint(canvas, [(0.4, 0.5), (0.6, 0.5)])
    assert sent(canvas, anew=False) and sent(canvas, "picture", anew=False) is None  # the server has it
    assert sent(canvas, anew=False) is None


@shares_page
def test_the_mask_stays_after_a_run_and_another_picture_has_none(canvas, picture_file):
    paint(canvas, [(0.4, 0.5), (0.6, 0.5)])
    mask = mask_of(canvas)
    set_slider(canvas, "Sampling steps", 1)
    generate(canvas, "inpaint")
    result(canvas)
    assert canvas.evaluate("window.palimpsest.canvases.of('inpaint-editor').document.layer.data.reduce((a, b) => a + b, 0)") == mask.sum()
    put_another(canvas, picture_file, (160, 160))
    assert sent(canvas) is None


@only_draws
def test_a_photograph_on_its_side_is_painted_upright(canvas, tmp_path):
    photo = Image.new("RGB", (90, 60), "navy")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "photo.jpg", exif=exif.tobytes())
    put_another(canvas, tmp_path / "photo.jpg", (60, 90))
    paint(canvas, [(0.4, 0.5), (0.6, 0.5)])
    assert Image.open(io.BytesIO(sent(canvas))).size == (60, 90)


def test_what_the_server_has_forgotten_is_sent_again(canvas, context):
    paint(canvas, [(0.4, 0.5), (0.6, 0.5)])
    mask_of(canvas)
    context.clear_cookies()  # another visitor: nothing of it is theirs
    assert sent(canvas) is not None
    set_slider(canvas, "Sampling steps", 1)
    generate(canvas, "inpaint")
    result(canvas)


@only_draws
def test_fifty_strokes_on_a_large_picture_leave_room(canvas, tmp_path):
    Image.new("RGB", (2048, 2048), "teal").save(tmp_path / "large.png")
    put_another(canvas, tmp_path / "large.png", (2048, 2048))
    kept = canvas.evaluate("""() => {
        const { document } = window.palimpsest.canvases.of('inpaint-editor');
        for (let i = 0; i < 60; i++) {
            const edit = document.begin({ value: i % 3 === 1 ? 0 : 255, strength: 1 });
            edit.stroke({ x: 100 + 30 * i, y: 100, radius: 90 }, { x: 1900 - 30 * i, y: 1900, radius: 90 }, 0.5);
            document.commit();
        }
        const { bytes, past } = document.history;
        const before = document.layer.data.slice();
        for (let i = 0; i < 55; i++) document.undo();
        for (let i = 0; i < 55; i++) document.redo();
        return [past.length, bytes, before.every((value, i) => value === document.layer.data[i])];
    }""")
    assert kept[0] == 60 and kept[1] < 50 * 2**20 and kept[2]


@shares_page
def test_a_sketch_is_painted_in_colours_over_the_untouched_picture(page, marked_file):
    editor = "sketch-editor"
    open_tab(page, "Sketch")
    put_in_editor(page, marked_file, editor)
    set_tool(page, editor, size=30, hardness=1, opacity=1, ink="#0ea5e9")
    paint(page, [(0.3, 0.5), (0.7, 0.5)], editor)
    colours = np.asarray(Image.open(io.BytesIO(sent(page, "paint", editor))))
    assert colours.shape == (200, 300, 4) and (colours[100, 150] == (14, 165, 233, 255)).all() and not colours[:80].any()
    page.keyboard.press("i")
    [red] = shares_to_client(page, [(50 / 300, 40 / 200)], editor)
    page.mouse.click(*red)
    assert page.evaluate("window.palimpsest.canvases.of('sketch-editor').settings.get('ink')") == "#ff0000"
    page.keyboard.press("b")
    set_tool(page, editor, opacity=0.5)
    paint(page, [(0.5, 0.5), (0.52, 0.5)], editor)  # half of red over the blue
    colours = np.asarray(Image.open(io.BytesIO(sent(page, "paint", editor)))).astype(int)
    assert abs(colours[100, 151] - (134, 82, 116, 255)).max() <= 1
    page.keyboard.press("e")
    set_tool(page, editor, opacity=1)
    paint(page, [(0.5, 0.5), (0.52, 0.5)], editor)
    assert not np.asarray(Image.open(io.BytesIO(sent(page, "paint", editor))))[100, 151, 3]
    page.locator(f"#{editor}").get_by_label("Clear what was painted").click()
    assert sent(page, "paint", editor) is None


def sum_of(page):
    """Of all numbers of the layer."""
    return page.evaluate("window.palimpsest.canvases.of('inpaint-editor').document.layer.data.reduce((a, b) => a + b, 0)")


def kept(page, expected, editor=EDITOR, channels=1):
    """Wait until the browser has kept a layer whose numbers add up to `expected`, or for None no picture."""
    deadline = time.monotonic() + 30
    while page.evaluate("""([id, channels]) => window.palimpsest.canvases.of(id).storage.restore(channels)
            .then((kept) => kept?.picture ? kept.numbers.reduce((a, b) => a + b, 0) : null)""", [editor, channels]) != expected:
        assert time.monotonic() < deadline, "it is not kept"
        page.wait_for_timeout(50)


def test_a_picture_is_stored_once_and_not_with_each_stroke(canvas):
    puts = """() => { window.puts = []; const put = IDBObjectStore.prototype.put;
        IDBObjectStore.prototype.put = function (value, key) { window.puts.push(key); return put.call(this, value, key); }; }"""
    canvas.evaluate(puts)
    for place in (0.3, 0.6):
        paint(canvas, [(place, 0.4), (place, 0.6)])
        kept(canvas, sum_of(canvas))
    stored = canvas.evaluate("window.puts")
    assert stored.count(EDITOR) >= 2 and stored.count(f"{EDITOR} picture") <= 1
    # another tab has replaced it
    canvas.evaluate("""async (id) => {
        const { keep } = await import(new URL("web/canvas/storage.js", document.baseURI));
        await Promise.all([keep(`${id} token`, "another"), keep(`${id} picture`, new Blob(["another"]))]); }""", EDITOR)
    paint(canvas, [(0.45, 0.4), (0.45, 0.6)])
    kept(canvas, sum_of(canvas))
    assert canvas.evaluate("(id) => window.palimpsest.canvases.of(id).storage.restore(1).then(({ picture }) => picture.size)", EDITOR) > 9


def test_a_reload_brings_picture_and_mask_back(canvas, marked_file):
    set_tool(canvas, size=40, hardness=0.3, opacity=0.8)
    paint(canvas, [(0.3, 0.4), (0.7, 0.6)])
    mask = mask_of(canvas)
    kept(canvas, int(mask.sum()))
    canvas.reload()
    settle(canvas)
    open_tab(canvas, "Inpaint")
    canvas.wait_for_function("window.palimpsest?.canvases?.of('inpaint-editor')?.document.picture")
    assert sent(canvas, "picture") == marked_file.read_bytes()
    again = mask_of(canvas)
    assert (again == mask).all(), (mask.sum(), again.sum(), sum_of(canvas), np.argwhere(again != mask)[:5])
    set_slider(canvas, "Sampling steps", 1)
    generate(canvas, "inpaint")
    result(canvas)
    canvas.locator(f"#{EDITOR}").get_by_label("Remove the picture").click()
    kept(canvas, None)
    canvas.reload()
    settle(canvas)
    open_tab(canvas, "Inpaint")
    expect(canvas.locator(f"#{EDITOR} .empty")).to_contain_text("Drop a picture here")


def test_a_result_brought_with_its_mask_comes_back_too_and_one_without_has_none(canvas):
    set_tool(canvas, size=60, hardness=1, opacity=1)
    paint(canvas, [(0.4, 0.5), (0.6, 0.5)])
    for label, value in (("Sampling steps", 1), ("Width", SIZE[0]), ("Height", SIZE[1])):
        set_slider(canvas, label, value)
    generate(canvas, "inpaint")
    result(canvas)
    act(canvas, "use-in-inpaint")
    canvas.wait_for_function("!window.palimpsest.canvases.of('inpaint-editor').document.layer.data.some(Boolean)")
    settle(canvas)
    assert sent(canvas) is None
    canvas.locator("#result-more").click()
    canvas.get_by_label("with mask").check()
    act(canvas, "use-in-inpaint")
    canvas.wait_for_function("window.palimpsest.canvases.of('inpaint-editor').document.layer.data.some(Boolean)")
    brought = sum_of(canvas)
    kept(canvas, brought)
    paint(canvas, [(0.2, 0.2), (0.3, 0.2)])  # what was painted since the result was brought is kept, and not what came with it
    painted = sum_of(canvas)
    assert painted > brought
    kept(canvas, painted)
    canvas.reload()
    settle(canvas)
    canvas.wait_for_function("window.palimpsest?.canvases?.of('inpaint-editor')?.document.picture")
    assert sum_of(canvas) == painted
