"""The canvas's tools beyond the brush: each gives the mask that Python computes."""

import math

import cv2
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.ui.steps import open_tab, put_in_editor, shares_to_client, still, stroke
from tests.ui.test_canvas import EDITOR, SIZE, drawn_on, mask_of, only_draws, sent, set_tool, shown_at, swept

pytestmark = only_draws
HEIGHT, WIDTH = SIZE[1], SIZE[0]
SCALE = 8
"""By how much shapes are drawn larger here, to know how much of a pixel they cover."""


@pytest.fixture
def colours() -> np.ndarray:
    """A 300x200 picture: two blue squares with a red band between, on a grey that gets lighter to the right, by steps of 5."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[:] = 100 + 5 * (np.arange(WIDTH) // 30)[None, :, None]
    picture[50:100, 40:90] = picture[50:100, 200:250] = (20, 40, 220)
    picture[70:80, 90:200] = (220, 30, 30)
    return picture


@pytest.fixture
def canvas(request, colours, tmp_path):
    """A page with the picture in the canvas."""
    Image.fromarray(colours).save(tmp_path / "colours.png")
    yield from drawn_on(request, tmp_path / "colours.png")


def client(page, *points):
    """Points of the picture as whole pixels of the window, and where these are in the picture."""
    points = [(round(x), round(y)) for x, y in shares_to_client(page, [(x / WIDTH, y / HEIGHT) for x, y in points], EDITOR)]
    return points, shown_at(page, points)


def drawn(shape, points) -> np.ndarray:
    """How much of each pixel an ellipse between two corners covers, or a polygon, 0 to 255."""
    y, x = (np.mgrid[:HEIGHT * SCALE, :WIDTH * SCALE] + 0.5) / SCALE
    if shape == "ellipse":
        (x1, y1), (x2, y2) = points
        inside = ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1
    else:
        inside = np.zeros(x.shape, bool)
        for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1]):
            inside ^= ((ay > y) != (by > y)) & (x < ax + (bx - ax) * (y - ay) / (by - ay))
    return 255 * inside.reshape(HEIGHT, SCALE, WIDTH, SCALE).mean((1, 3))


def press(page, key):
    page.locator(f"#{EDITOR} .stage").focus()
    page.keyboard.press(key)


def test_a_rectangle_is_of_whole_pixels(canvas):
    press(canvas, "r")
    points, ((x1, y1), (x2, y2)) = client(canvas, (30, 40), (180, 120))
    stroke(canvas, points)
    expected = np.zeros((HEIGHT, WIDTH))
    expected[math.floor(y1 + 0.5):math.floor(y2 + 0.5), math.floor(x1 + 0.5):math.floor(x2 + 0.5)] = 255
    assert (mask_of(canvas) == expected).all()


@pytest.mark.parametrize("key, shape, corners", [
    ("o", "ellipse", [(60, 40), (220, 160)]), ("l", "polygon", [(40, 30), (250, 60), (200, 170), (90, 120)]),
    ("p", "polygon", [(40, 30), (250, 60), (200, 170), (90, 120)])])
def test_a_shape_covers_what_lies_inside(canvas, key, shape, corners):
    press(canvas, key)
    points, shown = client(canvas, *corners)
    if key == "p":
        for point in points:
            canvas.mouse.click(*point)
            canvas.wait_for_timeout(50)
        canvas.keyboard.press("Enter")
    else:
        stroke(canvas, points, steps=1)
    difference = np.abs(mask_of(canvas) - drawn(shape, shown))
    assert difference.max() <= 64 and difference.mean() < 0.25  # a quarter of a pixel, where an edge crosses it


def test_a_polygon_is_taken_back_corner_by_corner_and_given_up(canvas):
    press(canvas, "p")
    points, shown = client(canvas, (40, 30), (250, 60), (200, 170), (20, 190))
    for point in points:
        canvas.mouse.click(*point)
        canvas.wait_for_timeout(50)
    canvas.keyboard.press("Backspace")
    canvas.keyboard.press("Enter")
    assert np.abs(mask_of(canvas) - drawn("polygon", shown[:3])).max() <= 40
    canvas.keyboard.press("Control+z")
    for point in points:
        canvas.mouse.click(*point)
    canvas.keyboard.press("Escape")
    assert sent(canvas) is None


def test_taking_away_and_the_right_button_make_holes(canvas):
    press(canvas, "r")
    stroke(canvas, client(canvas, (20, 20), (280, 180))[0])
    canvas.locator(f"#{EDITOR}").get_by_role("button", name="Take away").click()
    stroke(canvas, client(canvas, (60, 60), (120, 120))[0])
    canvas.locator(f"#{EDITOR}").get_by_role("button", name="Add", exact=True).click()
    other, _ = client(canvas, (160, 60), (220, 120))
    canvas.mouse.move(*other[0])
    canvas.mouse.down(button="right")
    canvas.mouse.move(*other[1], steps=3)
    canvas.mouse.up(button="right")
    mask = mask_of(canvas)
    assert not mask[70:110, 70:110].any() and not mask[70:110, 170:210].any() and (mask[125:175, 30:270] == 255).all()
    press(canvas, "m")
    canvas.get_by_role("button", name="Fill holes").click()
    assert (mask_of(canvas)[30:170, 30:270] == 255).all()


def alike(picture, x, y, tolerance):
    return (np.abs(picture.astype(int) - picture[y, x].astype(int)) <= tolerance).all(-1)


@pytest.mark.parametrize("key, tolerance, at", [("f", 10, (60, 60)), ("f", 12, (100, 150)), ("c", 10, (60, 60)), ("c", 0, (100, 150))])
def test_colours_are_selected_within_the_tolerance(canvas, colours, key, tolerance, at):
    press(canvas, key)
    set_tool(canvas, tolerance=tolerance)
    canvas.mouse.click(*client(canvas, at)[0][0])
    expected = alike(colours, *at, tolerance)
    if key == "f":
        labels = cv2.connectedComponents(expected.astype(np.uint8), connectivity=4)[1]
        expected &= labels == labels[at[1], at[0]]
    assert (mask_of(canvas) == 255 * expected).all()


def test_the_tolerance_can_be_changed_after_the_click(canvas, colours):
    press(canvas, "c")
    set_tool(canvas, tolerance=3)
    canvas.mouse.click(*client(canvas, (100, 150))[0][0])
    for tolerance in (40, 6):
        set_tool(canvas, tolerance=tolerance)
        assert (mask_of(canvas) == 255 * alike(colours, 100, 150, tolerance)).all()
    canvas.keyboard.press("Control+z")
    assert sent(canvas) is None  # it was one step


def test_a_gradient_falls_from_where_it_begins_to_where_it_ends(canvas):
    press(canvas, "g")
    points, ((ax, ay), (bx, by)) = client(canvas, (60, 40), (220, 150))
    stroke(canvas, points)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    t = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2)
    assert np.abs(mask_of(canvas) - 255 * np.clip(1 - t, 0, 1)).max() <= 1


def change(page, kind, amount):
    """Change the mask as a whole, looking at it before it is kept."""
    before = mask_of(page)
    press(page, "m")
    panel = page.locator(f"#{EDITOR} .panel")
    panel.get_by_role("button", name=kind, exact=True).click()
    panel.get_by_label("Amount").evaluate("(slider, share) => { slider.value = share; slider.dispatchEvent(new Event('input')); }",
                                          1000 * math.sqrt(amount / 128))
    expect(panel.locator("output")).to_have_text(f"{amount} px")
    panel.get_by_role("button", name="Apply").click()
    return before.astype(np.float32), mask_of(page).astype(float)


@pytest.fixture
def blot(canvas):
    """A mask of a rectangle with a thin arm."""
    press(canvas, "r")
    for corners in (((100, 60), (180, 130)), ((180, 90), (230, 94))):
        stroke(canvas, client(canvas, *corners)[0])
    return canvas


def test_growing_and_shrinking_go_by_distance(blot):
    before, after = change(blot, "Grow", 9)
    far = cv2.distanceTransform((before < 128).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    assert np.abs(after - np.maximum(before, 255 * np.clip(9.5 - far, 0, 1))).max() <= 2
    before, after = change(blot, "Shrink", 5)
    deep = cv2.distanceTransform((before >= 128).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    assert np.abs(after - np.minimum(before, 255 * np.clip(deep - 4.5, 0, 1))).max() <= 2
    assert np.abs(after.sum() / 255 - 80 * 70 - 2 * (80 + 70) * 4 - 50 * 12) < 260  # about 4 pixels larger all around


def test_feathering_is_a_gaussian_to_a_few_numbers(blot):
    before, after = change(blot, "Feather", 6)
    assert np.abs(after - cv2.GaussianBlur(before, (0, 0), 6, borderType=cv2.BORDER_REPLICATE)).max() < 8


def test_smoothing_takes_thin_parts_and_leaves_sharp_edges(blot):
    before, after = change(blot, "Smooth", 6)
    assert not after[80:104, 205:].any() and (after[75:115, 115:165] == 255).all()
    assert ((after > 20) & (after < 235)).sum() < 2 * 2 * (80 + 70)
    assert abs((after > 127).sum() - 80 * 70) < 400


def test_a_change_that_is_given_up_leaves_the_mask(blot):
    before = mask_of(blot)
    press(blot, "m")
    blot.locator(f"#{EDITOR} .panel").get_by_role("button", name="Feather").click()
    blot.keyboard.press("Escape")
    expect(blot.locator(f"#{EDITOR} .panel")).to_have_count(0)
    assert (mask_of(blot) == before).all()


def more(page, item):
    page.locator(f"#{EDITOR}").get_by_label("Masks from elsewhere, and as files").click()
    page.locator(f"#{EDITOR} .panel").get_by_role("menuitem", name=item).click()


def test_a_mask_is_brought_and_saved_as_a_file(canvas, tmp_path):
    grey = Image.fromarray(np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1)))
    grey.save(tmp_path / "grey.png")
    with canvas.expect_file_chooser() as chosen:
        more(canvas, "Mask from a file")
    chosen.value.set_files(str(tmp_path / "grey.png"))
    canvas.wait_for_function("window.palimpsest.canvases.of('inpaint-editor').document.history.past.length === 1")
    assert (mask_of(canvas) == np.asarray(grey)).all()
    with canvas.expect_download() as saved:
        more(canvas, "Save the mask as PNG")
    image = Image.open(saved.value.path())
    assert image.mode == "L" and (np.asarray(image) == np.asarray(grey)).all()


def test_a_mask_of_another_size_is_stretched_and_that_is_said(canvas, tmp_path):
    clear = Image.new("RGBA", (150, 50), (255, 255, 255, 0))
    clear.paste((0, 0, 0, 255), (75, 0, 150, 50))  # its opacity counts
    clear.save(tmp_path / "clear.png")
    with canvas.expect_file_chooser() as chosen:
        more(canvas, "Mask from a file")
    chosen.value.set_files(str(tmp_path / "clear.png"))
    expect(canvas.locator(f"#{EDITOR} .status")).to_have_text("The mask was stretched from 150×50 to 300×200, the picture's size.")
    mask = mask_of(canvas)
    assert not mask[:, :145].any() and (mask[:, 155:] == 255).all()


def test_a_mask_is_taken_from_the_pictures_transparency(page, tmp_path):
    picture = Image.new("RGBA", SIZE, (200, 100, 50, 255))
    picture.paste((0, 0, 0, 0), (50, 40, 120, 160))
    picture.save(tmp_path / "holed.png")
    open_tab(page, "Inpaint")
    put_in_editor(page, tmp_path / "holed.png")
    more(page, "Mask from the picture's transparency")
    expected = np.zeros((HEIGHT, WIDTH))
    expected[40:160, 50:120] = 255
    assert (mask_of(page) == expected).all()


def test_a_pens_pressure_is_its_width(canvas):
    set_tool(canvas, size=60, hardness=1, opacity=1)
    press(canvas, "b")
    points, _ = client(canvas, (80, 100), (220, 100))
    canvas.locator(f"#{EDITOR} .stage").evaluate("""(stage, points) => points.forEach(([clientX, clientY], i) => {
        const pen = { clientX, clientY, pointerId: 7, pointerType: 'pen', isPrimary: true, bubbles: true, button: 0, buttons: 1, pressure: i ? 0.25 : 1 };
        stage.setPointerCapture = () => {};
        stage.dispatchEvent(new PointerEvent(i ? 'pointermove' : 'pointerdown', pen));
        if (i) stage.dispatchEvent(new PointerEvent('pointerup', pen));
    })""", points)
    heights = (mask_of(canvas) > 127).sum(axis=0)
    assert heights[80] == pytest.approx(60, abs=2) and heights[220] == pytest.approx(15, abs=2)


@pytest.mark.parametrize("key, corners", [("b", [(60, 60), (200, 150)]), ("l", [(60, 60), (250, 80), (140, 180)])], ids=["brush", "lasso"])
def test_a_finger_draws_as_the_mouse_does(canvas, key, corners):
    press(canvas, key)
    set_tool(canvas, size=24, hardness=1, opacity=1)
    session = canvas.context.new_cdp_session(canvas)
    session.send("Emulation.setTouchEmulationEnabled", {"enabled": True})
    still(canvas, f"#{EDITOR} .stage")  # a touch screen's buttons are larger
    points, at = client(canvas, *corners)
    for step, (x, y) in enumerate(points):
        session.send("Input.dispatchTouchEvent", {"type": "touchMove" if step else "touchStart", "touchPoints": [{"x": x, "y": y}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    session.send("Emulation.setTouchEmulationEnabled", {"enabled": False})
    session.detach()
    difference = np.abs(mask_of(canvas) - (swept(at, 24) if key == "b" else drawn("polygon", at)))
    assert difference.max() <= (1 if key == "b" else 64) and difference.mean() < 0.25


def test_two_fingers_zoom_and_drag_and_leave_the_mask(canvas):
    (a, b, c, d), _ = client(canvas, (120, 100), (180, 100), (100, 110), (220, 110))
    before = canvas.evaluate("window.palimpsest.canvases.of('inpaint-editor').view.scale")
    canvas.locator(f"#{EDITOR} .stage").evaluate("""(stage, [a, b, c, d]) => {
        stage.setPointerCapture = () => {};
        const send = (type, pointerId, [clientX, clientY]) => stage.dispatchEvent(new PointerEvent(type, { clientX, clientY, pointerId,
            pointerType: 'touch', bubbles: true, button: type === 'pointermove' ? -1 : 0, isPrimary: pointerId === 1 }));
        send('pointerdown', 1, a);
        send('pointerdown', 2, b);
        send('pointermove', 1, c);
        send('pointermove', 2, d);
        send('pointerup', 1, c);
        send('pointerup', 2, d);
    }""", [a, b, c, d])
    assert canvas.evaluate("window.palimpsest.canvases.of('inpaint-editor').view.scale") == pytest.approx(2 * before, rel=0.03)
    assert sent(canvas) is None
