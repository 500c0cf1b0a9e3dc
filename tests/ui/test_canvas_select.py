"""Selecting on the canvas: by a box or a stroke, along edges, and by clicks where there is a model."""

import math
import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import expect

from pipeline.families import sam
from pipeline.families.sam import Prompt
from pipeline.geometry import Box
from tests.families import tiny_sam
from tests.ui.steps import stroke
from tests.ui.test_canvas import EDITOR, SIZE, drawn_on, lent, mask_of, only_draws, sent, set_tool
from tests.ui.test_canvas_tools import client, press

WIDTH, HEIGHT = SIZE
CORNERS = (90, 50, 210, 150)
"""Of the ellipse in the picture."""


@pytest.fixture
def ellipse_file(tmp_path):
    """A yellow ellipse before a mottled blue."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(np.clip(np.array([60, 80, 140]) + rng.normal(0, 12, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8))
    ImageDraw.Draw(image).ellipse(CORNERS, fill=(230, 190, 60))
    image.save(tmp_path / "ellipse.png")
    return tmp_path / "ellipse.png"


@pytest.fixture
def ellipse():
    """Where it is: 255."""
    mask = Image.new("L", SIZE)
    ImageDraw.Draw(mask).ellipse(CORNERS, fill=255)
    return np.asarray(mask)


@pytest.fixture
def canvas(request, ellipse_file):
    yield from drawn_on(request, ellipse_file)


def wait_for_steps(page, number):
    """Until so many steps can be undone."""
    page.wait_for_function("number => window.palimpsest.canvases.of('inpaint-editor').document.history.past.length === number", arg=number)


def option(page, name):
    return page.locator(f"#{EDITOR} .options").get_by_role("button", name=name, exact=True)


def overlap(mask, shape) -> float:
    return ((mask > 127) & (shape > 127)).sum() / ((mask > 127) | (shape > 127)).sum()


def drag(page, *corners):
    stroke(page, client(page, *corners)[0])


@only_draws
def test_a_box_selects_what_is_in_it_as_one_step(canvas, ellipse):
    press(canvas, "a")
    drag(canvas, (70, 30), (230, 170))
    wait_for_steps(canvas, 1)
    assert overlap(mask_of(canvas), ellipse) > 0.98
    canvas.keyboard.press("Control+z")
    assert sent(canvas) is None


@only_draws
def test_a_stroke_selects_what_it_lies_on(canvas, ellipse):
    press(canvas, "a")
    option(canvas, "Stroke").click()
    set_tool(canvas, size=20)
    drag(canvas, (130, 100), (170, 104))
    wait_for_steps(canvas, 1)
    assert overlap(mask_of(canvas), ellipse) > 0.98


@only_draws
def test_what_is_found_is_taken_away_or_added_by_its_opacity(canvas, ellipse):
    press(canvas, "r")
    drag(canvas, (0, 0), (WIDTH, HEIGHT))
    press(canvas, "a")
    option(canvas, "Take away").click()
    drag(canvas, (70, 30), (230, 170))
    wait_for_steps(canvas, 2)
    assert overlap(255 - mask_of(canvas), ellipse) > 0.98
    option(canvas, "Add").click()
    set_tool(canvas, opacity=0.5)
    drag(canvas, (70, 30), (230, 170))
    wait_for_steps(canvas, 3)
    inside = mask_of(canvas)[ellipse > 0]
    assert np.median(inside) == 128


def walk(page, x, y):
    """By arrow keys, so many pixels of the picture, about."""
    step = page.evaluate("(({ view }) => 8 * view.ratio / view.scale)(window.palimpsest.canvases.of('inpaint-editor'))")
    for way, keys in ((x, ("ArrowLeft", "ArrowRight")), (y, ("ArrowUp", "ArrowDown"))):
        for _ in range(round(abs(way) / step)):
            page.keyboard.press(keys[way > 0])


@only_draws
def test_the_keyboard_alone_draws_the_box(canvas, ellipse):
    press(canvas, "a")
    walk(canvas, -80, -70)
    canvas.keyboard.press("Enter")
    walk(canvas, 160, 140)
    canvas.keyboard.press("Enter")
    wait_for_steps(canvas, 1)
    assert overlap(mask_of(canvas), ellipse) > 0.98


@only_draws
def test_what_cannot_be_selected_is_said_and_nothing_is_lost(canvas):
    press(canvas, "a")
    drag(canvas, (-5, -5), (WIDTH + 5, HEIGHT + 5))
    expect(canvas.locator(f"#{EDITOR} .status")).to_contain_text("leave some of the picture outside the box")
    assert sent(canvas) is None


@only_draws
def test_that_nothing_was_found_is_said(canvas):
    canvas.route("**/canvas-selections", lambda route: route.fulfill(headers={"Selected-Area": "0 0 0 0"}, body=b""))
    press(canvas, "a")
    drag(canvas, (70, 30), (230, 170))
    expect(canvas.locator(f"#{EDITOR} .status")).to_have_text("Nothing was found there.")
    canvas.unroute("**/canvas-selections")
    assert sent(canvas) is None


def test_an_answer_that_comes_too_late_changes_nothing(canvas, picture_file):
    asked = []
    canvas.route("**/canvas-selections", lambda route: asked.append(route))
    press(canvas, "a")
    drag(canvas, (70, 30), (230, 170))
    expect(canvas.locator(f"#{EDITOR} .status")).to_have_text("Looking for the object…")
    canvas.wait_for_timeout(100)
    canvas.locator(f"#{EDITOR} input[type=file]").first.set_input_files(str(picture_file))
    canvas.wait_for_function("window.palimpsest.canvases.of('inpaint-editor').document.picture.width === 160")
    with canvas.expect_response("**/canvas-selections"):
        asked[0].continue_()
    canvas.unroute("**/canvas-selections")
    canvas.wait_for_timeout(300)
    assert sent(canvas) is None
    expect(canvas.locator(f"#{EDITOR} .status")).to_be_hidden()


def test_a_picture_that_the_server_has_forgotten_is_sent_again(canvas, context, ellipse):
    press(canvas, "a")
    drag(canvas, (70, 30), (230, 170))
    wait_for_steps(canvas, 1)
    context.clear_cookies()  # another visitor: nothing of it is theirs
    canvas.keyboard.press("Control+z")
    drag(canvas, (70, 30), (230, 170))
    wait_for_steps(canvas, 1)
    assert overlap(mask_of(canvas), ellipse) > 0.98


# --- the lasso that snaps

def on_ellipse(degrees, more=0):
    x1, y1, x2, y2 = CORNERS
    angle = math.radians(degrees)
    return ((x1 + x2) / 2 + ((x2 - x1) / 2 + more) * math.cos(angle), (y1 + y2) / 2 + ((y2 - y1) / 2 + more) * math.sin(angle))


def corners(page, number):
    page.wait_for_function("""number => {
        const { points, waiting } = window.palimpsest.canvases.of('inpaint-editor').tools.snap;
        return points.length === number && !waiting;
    }""", arg=number)


@only_draws
def test_the_lasso_follows_the_edge_from_click_to_click(canvas, ellipse):
    press(canvas, "s")
    for number, degrees in enumerate((0, 80, 160, 240, 310)):
        canvas.mouse.click(*client(canvas, on_ellipse(degrees, more=3))[0][0])  # beside the edge, as hands do
        corners(canvas, number + 1)
    canvas.keyboard.press("Enter")
    wait_for_steps(canvas, 1)
    mask = mask_of(canvas)
    assert overlap(mask, ellipse) > 0.97
    chords = Image.new("L", SIZE)
    ImageDraw.Draw(chords).polygon([on_ellipse(degrees) for degrees in (0, 80, 160, 240, 310)], fill=255)
    assert overlap(np.asarray(chords), ellipse) < 0.85  # straight lines would not have done it


@only_draws
def test_the_line_to_the_pointer_snaps_while_it_moves(canvas):
    press(canvas, "s")
    canvas.mouse.click(*client(canvas, on_ellipse(0))[0][0])
    corners(canvas, 1)
    canvas.mouse.move(*client(canvas, on_ellipse(90))[0][0], steps=10)
    end = on_ellipse(90)  # earlier answers are of places on the way
    canvas.wait_for_function("""([x, y]) => {
        const end = window.palimpsest.canvases.of('inpaint-editor').tools.snap.wire?.at(-1);
        return end && Math.hypot(end.x - x, end.y - y) < 8;
    }""", arg=list(end))
    wire = np.array(canvas.evaluate("window.palimpsest.canvases.of('inpaint-editor').tools.snap.wire.map(({ x, y }) => [x, y])"))
    x1, y1, x2, y2 = CORNERS
    far = np.hypot((wire[:, 0] - (x1 + x2) / 2) / ((x2 - x1) / 2), (wire[:, 1] - (y1 + y2) / 2) / ((y2 - y1) / 2))
    assert np.abs(far - 1).max() < 2.5 / 50  # of the shorter half
    canvas.keyboard.press("Escape")
    assert sent(canvas) is None


@only_draws
def test_corners_are_taken_back_and_set_by_the_keyboard_alone(canvas):
    press(canvas, "s")
    for number, way in enumerate(((-60, 0), (60, -50), (60, 50), (-20, 30))):
        walk(canvas, *way)
        canvas.keyboard.press("Enter")
        corners(canvas, number + 1)
    canvas.keyboard.press("Backspace")
    corners(canvas, 3)
    canvas.keyboard.press("ArrowDown")
    canvas.keyboard.press("Enter")
    corners(canvas, 4)
    canvas.keyboard.press("Enter")  # twice at one place: closed
    wait_for_steps(canvas, 1)
    assert mask_of(canvas).any()


# --- with a model

@only_draws
def test_without_a_model_it_is_said_how_to_get_one(canvas):
    press(canvas, "w")
    expect(canvas.locator(f"#{EDITOR} .advice")).to_have_text(
        "To use this tool, put a SAM or SAM 2 checkpoint into models/sam: a folder with config.json and model.safetensors, as saved by transformers.")
    canvas.mouse.click(*client(canvas, (150, 100))[0][0])
    expect(canvas.locator(f"#{EDITOR} .model, #{EDITOR} .menu")).to_be_hidden()
    assert sent(canvas) is None
    press(canvas, "b")
    expect(canvas.locator(f"#{EDITOR} .advice")).to_be_hidden()


@pytest.fixture(scope="module")
def with_models(server):
    """The folder of two segmentation models that the server has from now on."""
    folder = server.outputs.parent / "models" / "sam"
    for name, kind in (("tiny-1", "sam"), ("tiny-2", "sam2")):
        tiny_sam.save(folder / name, kind)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def clicks(kept_page, with_models, ellipse_file):
    for page in lent(kept_page, ellipse_file):
        press(page, "w")
        expect(page.get_by_label("Segmentation model", exact=True)).to_have_value("tiny-1")
        yield page


def expected(folder, file, name, prompt):
    model = sam.load(folder / name)
    return model.segment(model.embed(np.asarray(Image.open(file).convert("RGB")), sam.torch.device("cpu")), prompt, WIDTH, HEIGHT)


def click_at(page, point, **how):
    """A click at a point of the picture; gives where it landed."""
    [at], [shown] = client(page, point)
    for key in how.get("modifiers", []):
        page.keyboard.down(key)
    page.mouse.click(*at, button=how.get("button", "left"))
    for key in how.get("modifiers", []):
        page.keyboard.up(key)
    return tuple(shown)


def alike(page, folder, file, name, prompt):
    """Wait until the mask is the model's answer, but for where a logit is 0."""
    wanted = expected(folder, file, name, prompt)
    total = int(wanted.sum() / 255)
    page.wait_for_function("""total => Math.abs(window.palimpsest.canvases.of('inpaint-editor').document.layer.data.reduce((a, b) => a + b, 0) / 255 - total) <= 5""",
                           arg=total)
    assert (mask_of(page) != wanted).sum() <= 5


def test_each_click_says_better_what_is_meant_and_all_are_one_step(clicks, with_models, ellipse_file):
    folder = with_models
    first = click_at(clicks, (150, 100))
    alike(clicks, folder, ellipse_file, "tiny-1", Prompt(((*first, True),)))
    second = click_at(clicks, (30, 30), modifiers=["Alt"])
    alike(clicks, folder, ellipse_file, "tiny-1", Prompt(((*first, True), (*second, False))))
    third = click_at(clicks, (260, 40), modifiers=["Control"])
    alike(clicks, folder, ellipse_file, "tiny-1", Prompt(((*first, True), (*second, False), (*third, False))))
    wait_for_steps(clicks, 1)
    clicks.keyboard.press("Control+z")
    assert sent(clicks) is None


def test_a_box_and_another_model(clicks, with_models, ellipse_file):
    clicks.get_by_label("Segmentation model", exact=True).select_option("tiny-2")
    points, ((x1, y1), (x2, y2)) = client(clicks, (80, 40), (220, 160))
    stroke(clicks, points)
    alike(clicks, with_models, ellipse_file, "tiny-2", Prompt((), Box(round(x1), round(y1), round(x2), round(y2))))


def test_the_next_object_is_added_as_a_step_of_its_own(clicks, with_models, ellipse_file):
    first = click_at(clicks, (150, 100))
    alike(clicks, with_models, ellipse_file, "tiny-1", Prompt(((*first, True),)))
    option(clicks, "Next object").click()
    option(clicks, "Take away").click()
    click_at(clicks, (150, 100))
    wait_for_steps(clicks, 2)
    assert sent(clicks) is None  # what was added is taken away
    press(clicks, "Escape")
    wait_for_steps(clicks, 1)


def test_a_click_may_be_told_beforehand_to_be_no_part_of_it(clicks, with_models, ellipse_file):
    first = click_at(clicks, (150, 100))
    alike(clicks, with_models, ellipse_file, "tiny-1", Prompt(((*first, True),)))
    option(clicks, "Not part of it").click()
    second = click_at(clicks, (30, 30))
    alike(clicks, with_models, ellipse_file, "tiny-1", Prompt(((*first, True), (*second, False))))


def test_a_model_that_cannot_be_read_is_one_sentence(clicks, with_models):
    (with_models / "broken").mkdir(exist_ok=True)
    (with_models / "broken" / "config.json").write_text('{"model_type": "sam"}')
    press(clicks, "b")
    press(clicks, "w")
    clicks.get_by_label("Segmentation model", exact=True).select_option("broken")
    click_at(clicks, (150, 100))
    expect(clicks.locator(f"#{EDITOR} .status")).to_contain_text("has no .safetensors file")
