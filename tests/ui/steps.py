"""What people do on the page, step by step."""

import io
import re
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect


shares_page = pytest.mark.usefixtures("page", "kept_page")
"""Marks a test that gets its file's one page, put back by put_back(): to open another takes three seconds of a processor.

Not for tests that reload the page, choose from a menu, or look at what is kept or remembered from before."""
STREAMS = re.compile("/gradio_api/(heartbeat/|queue/data)")
"""Requests that may stay open with nothing to send: the heartbeat, and the queue, which Gradio opens again if an event was
answered before the request that sent it."""
COUNT_EVENTS = r"""(() => {
    const sent = new Set(), answered = new Set(), plain = window.fetch;
    const read = async (answer) => {
        const text = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        for (let rest = ""; ;) {
            const { value, done } = await text.read();
            if (done) return;
            const messages = (rest + value).split("\n\n");
            rest = messages.pop();
            for (const message of messages.filter((line) => line.includes('"process_completed"')))
                answered.add(JSON.parse(message.replace(/^data: /, "")).event_id);
        }
    };
    window.fetch = async (...request) => {
        const answer = await plain(...request), address = String(request[0].url ?? request[0]);
        if (address.includes("/queue/data")) read(answer.clone()).catch(() => {});  // the page closes it at its end
        if (address.includes("/queue/join") && answer.ok) sent.add((await answer.clone().json()).event_id);
        return answer;
    };
    window.unanswered = () => [...sent].filter((id) => !answered.has(id));
})()"""


def open_page(page, address):
    """Open the page, and wait until it shows what its browser has kept, which would overwrite earlier input."""
    watch_requests(page)
    show_page(page, address)


def show_page(page, address):
    page.goto(address)
    page.locator("#generate-img2img").wait_for()
    settle(page)
    page.evaluate("noteValues()")


def watch_requests(page):
    page.add_init_script(COUNT_EVENTS)
    page.add_init_script(NOTE_VALUES)
    page.asked = set()  # and not answered so far
    page.on("request", lambda request: page.asked.add(request) if not STREAMS.search(request.url) else None)
    for end in ("requestfinished", "requestfailed"):
        page.on(end, lambda request: page.asked.discard(request))


def settle(page, seconds=60):
    """Wait until all the page's requests are answered and none follows within a few frames.

    For a page without a running job, whose event is only answered at the job's end.
    """
    deadline, quiet = time.monotonic() + seconds, 0
    while quiet < 4:
        waiting = page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(() => done(unanswered()), 25)))")
        assert time.monotonic() < deadline, [*waiting, *(request.url for request in page.asked)]
        quiet = 0 if page.asked or waiting else quiet + 1


NOTE_VALUES = """(() => {
    const noted = new Map(), box = (field) => ["checkbox", "radio"].includes(field.type);
    const now = (field) => field.matches(".label-wrap") ? field.classList.contains("open") : box(field) ? field.checked : field.value;
    const fields = ["input:not([type=file]):not([role]):enabled", "textarea:enabled", "button.label-wrap"];
    const change = (field, value) => {
        if (box(field) || field.matches(".label-wrap")) {
            if (value || field.type !== "radio") field.click();
            return;
        }
        Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), "value").set.call(field, value);
        for (const event of ["input", "change", "blur"]) field.dispatchEvent(new Event(event, { bubbles: true }));
    };
    window.noteValues = () => {
        for (const field of document.querySelectorAll(fields)) if (!noted.has(field) && !field.closest(".canvas")) noted.set(field, now(field));
    };
    window.changedOutOfSight = () => [...noted].some(([field, value]) => !field.isConnected && now(field) !== value);
    window.putValuesBack = (which) => {
        const changed = [...noted].filter(([field, value]) => field.isConnected && field.matches(which) && !field.disabled && now(field) !== value);
        for (const [field, value] of changed) change(field, value);
        return changed.length;
    };
})()"""
"""Remembers the fields' first values, and which accordions were open, to put them back."""
EMPTY_CANVASES = """() => {
    const those = [...document.querySelectorAll("[id]:has(.canvas)")].map(({ id }) => window.palimpsest.canvases?.of(id));
    for (const canvas of those.filter(Boolean)) {
        if (canvas.document.picture) canvas.remove();
        if (canvas.kind === "picture") continue;
        canvas.choose("brush");
        for (const [name, value] of Object.entries(new canvas.settings.constructor().values)) canvas.settings.set(name, value);
    }
}"""
WINDOW = {"width": 1366, "height": 900}


def put_back(page):
    """Put a page back to how it is when it is opened: img2img is open, nothing is said or made, and no canvas has a picture.

    Menus keep their choices, and what tests have added to the page stays. Returns whether that has worked: values of fields
    that Gradio has taken away meanwhile cannot be put back.
    """
    page.emulate_media(color_scheme=None)
    page.mouse.move(0, 0)
    if page.viewport_size != WINDOW:
        page.set_viewport_size(WINDOW)
    page.evaluate("document.querySelectorAll('dialog[open]').forEach((dialog) => dialog.close())")
    close_toasts(page)
    shown, mode = page.evaluate("[document.body.dataset.page, document.body.dataset.mode]")
    if shown != "make":
        open_tab(page, "Make")
    if mode != "img2img":
        open_tab(page, "img2img")
    while count := tiles(page).count():
        page.once("dialog", lambda dialog: dialog.accept())
        page.locator("#delete-result").dispatch_event("click")
        settle(page)
        if tiles(page).count() == count:  # its file is gone already
            return False
    page.evaluate("localStorage.clear()")  # or new values of the canvas's tools are those
    page.evaluate(EMPTY_CANVASES)
    for which in ("input, textarea", ".label-wrap"):  # an accordion's fields may go with it
        if page.evaluate("(which) => window.putValuesBack(which)", which):
            settle(page)
    close_toasts(page)
    settle(page)
    page.evaluate("localStorage.clear()")
    return not page.evaluate("changedOutOfSight()")


def close_toasts(page):
    page.evaluate("document.querySelectorAll('.toast-close').forEach((button) => button.click())")
    expect(page.locator(".toast-body")).to_have_count(0)


def count_shifts(page):
    """Add up in window.shifts how much the page's parts move from now on, as CLS does, clicks included."""
    page.evaluate("""() => {
        window.shifts = 0;
        new PerformanceObserver((list) => list.getEntries().forEach(({ value }) => { window.shifts += value; }))
            .observe({ type: "layout-shift", buffered: false });
    }""")


def still(page, element):
    """Wait until an element has not changed for a tenth of a second."""
    settle(page)
    deadline, before, same = time.monotonic() + 60, None, 0
    while same < 2:
        assert time.monotonic() < deadline, f"{element} goes on changing"
        shown = page.locator(element).screenshot(type="jpeg")
        before, same = shown, same + 1 if shown == before else 0
        page.wait_for_timeout(50)


def open_tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()
    settle(page)
    page.evaluate("noteValues()")


def open_accordion(page, title):
    page.get_by_role("button", name=title).click()
    settle(page)  # its widgets appear before their values
    page.evaluate("noteValues()")


def put(page, element, file):
    """A file into a canvas; for Inpaint upload, its picture or its mask."""
    if element.startswith("upload-"):
        put_in_canvas(page, element, file)
    else:
        put_in_editor(page, file, element)


def take_away(page, *editors):
    """Remove the pictures of these canvases."""
    for editor in editors:
        page.evaluate("(id) => window.palimpsest.canvases.of(id).remove()", editor)
    settle(page)


def put_in_canvas(page, element, file):
    """A picture or its mask into the canvas of Inpaint upload, which tells of both whether there is one."""
    page.locator(f"#{element} input[type=file]").set_input_files(str(file))
    expect(page.locator(f"#{element} output")).not_to_have_text(re.compile("^(—|none)$"))
    settle(page)


def put_in_editor(page, file, editor="inpaint-editor"):
    page.locator(f"#{editor} .stage").wait_for(state="attached")
    page.locator(f"#{editor} input[type=file]").first.set_input_files(str(file))
    expect(page.locator(f"#{editor}")).not_to_contain_text("Drop a picture here")
    settle(page)


def set_slider(page, label, value):
    page.get_by_label(f"number input for {label}", exact=True).fill(str(value))
    page.get_by_label(f"number input for {label}", exact=True).press("Enter")


def refused(page, editor, file) -> str:
    """What is said of a file that a canvas does not take."""
    page.once("dialog", lambda dialog: dialog.accept())
    with page.expect_event("dialog") as said:
        page.locator(f"#{editor} input[type=file]").first.set_input_files(str(file))
    return said.value.message


def has_picture(page, editor="img2img-picture"):
    """Wait until a canvas has a picture."""
    page.wait_for_function("(id) => window.palimpsest?.canvases?.of(id)?.document.picture", arg=editor)
    settle(page)


def held(page, editor="img2img-picture") -> bytes:
    """The file of a canvas's picture, byte for byte."""
    has_picture(page, editor)
    return bytes(page.evaluate("""async (id) => [...new Uint8Array(await window.palimpsest.canvases.of(id).transport.picture.blob.arrayBuffer())]""", editor))


LONG = (384, 384)


def prepare_a_long_job(page):
    """Set up a job that runs until interrupted on any machine: 150 steps of a picture of LONG's size."""
    for label, value in (("Sampling steps", 150), ("Width", LONG[0]), ("Height", LONG[1]), ("Denoising strength", 1)):
        set_slider(page, label, value)


def generate(page, mode):
    page.locator(f"#generate-{mode}").click()


def result(page, timeout=120_000) -> Image.Image:
    """The picture in the result viewer, from the bytes that were sent."""
    shown = page.locator("#gallery img.picture")
    shown.wait_for(timeout=timeout)
    data = urllib.request.urlopen(shown.get_attribute("src")).read()
    return Image.open(io.BytesIO(data))


def make(page, mode) -> Image.Image:
    """Generate, and the new result once it is shown."""
    viewer = page.locator("#gallery img.picture")
    before = viewer.get_attribute("src") if tiles(page).count() else None
    generate(page, mode)
    if before:
        expect(viewer).not_to_have_attribute("src", before)
    made = result(page)
    settle(page)
    return made


def act(page, button):
    """Press a button of the selected result, in its menu where it stands there."""
    if not page.locator(f"#{button}").is_visible():
        page.locator("#result-more").click()
    page.locator(f"#{button}").click()


def tiles(page):
    """The filmstrip's pictures."""
    return page.locator("#gallery .tile[data-file]")


def pixels(image):
    return np.asarray(image.convert("RGB")).astype(int)


def toast(page):
    return page.locator(".toast-body").last


def paint(page, points, editor="inpaint-editor"):
    """A brush stroke through points given as fractions of the picture's width and height."""
    stroke(page, shares_to_client(page, points, editor))


def shares_to_client(page, points, editor):
    """Window coordinates of points on a canvas's picture, given as fractions of its width and height."""
    page.locator(f"#{editor} .stage").scroll_into_view_if_needed()
    return page.evaluate("""async ([id, points]) => {
        await new Promise(requestAnimationFrame);
        const { view, document: { picture } } = window.palimpsest.canvases.of(id);
        return points.map(([x, y]) => view.client({ x: x * picture.width, y: y * picture.height })).map(({ x, y }) => [x, y]);
    }""", [editor, [list(point) for point in points]])


def stroke(page, points, steps=8):
    """Drag the mouse from point to point in the window."""
    page.mouse.move(*points[0])
    page.mouse.down()
    for x, y in points[1:]:
        page.mouse.move(x, y, steps=steps)
    page.mouse.up()
