"""The page's modules under ui/web, each in a real browser. The canvas, which is there too, has tests of its own."""

import re

import pytest
from playwright.sync_api import expect

from tests.conftest import ROOT
from tests.ui.steps import generate, open_accordion, open_page, open_tab, prepare_a_long_job, put, set_slider, settle

WEB = ROOT / "ui" / "web"
MODULES = sorted(WEB.rglob("*.js"))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(WEB)))
def test_a_module_says_in_its_first_line_what_it_is_for(module):
    assert re.match(r"// [A-Z(].{20,}", module.read_text("utf-8"))


def test_every_module_is_used():
    used, waiting = set(), [*WEB.rglob("index.js")]  # the page names these
    while waiting:
        module = waiting.pop()
        if module not in used:
            used.add(module)
            waiting += [(module.parent / name).resolve() for name in re.findall(r'"(\.[^"]+\.js)"', module.read_text("utf-8"))]
    assert used == set(MODULES)


def test_the_page_is_never_seen_in_another_language_than_the_browsers(browser, server):
    with browser.new_context(locale="de-DE", viewport={"width": 1366, "height": 900}) as context:
        page = context.new_page()
        page.add_init_script("""(() => {
            window.seen = new Set();
            const look = () => {  // after the scripts of a frame, before it is painted
                for (const button of document.querySelectorAll("button[id^=generate-]")) seen.add(button.textContent.trim());
                requestAnimationFrame(look);
            };
            look();
        })()""")
        open_page(page, server.url)
        assert page.evaluate("[...seen]") == ["Generieren"]
        assert page.evaluate("document.documentElement.lang") == "de"


def test_the_title_tells_how_far_a_job_is_and_a_sound_its_end(page, picture_file):
    page.evaluate("""() => {
        window.sounds = 0;
        window.AudioContext = class extends AudioContext { constructor() { super(); window.sounds += 1; } };
    }""")
    assert page.title() == "Palimpsest"
    put(page, "img2img-picture", picture_file)
    prepare_a_long_job(page)
    generate(page, "img2img")
    page.locator("#sound input").check()
    page.wait_for_function(r"/^\d+% · Palimpsest$/.test(document.title)")
    assert page.evaluate("sounds") == 0
    page.locator("#interrupt").click()
    page.wait_for_function("document.title === 'Palimpsest'")
    assert page.evaluate("sounds") == 1


def test_what_gradio_gives_no_tooltip_has_one(page):
    expect(page.locator("#read-data")).to_have_attribute("title", re.compile("^Read generation data from the prompt"))
    expect(page.locator("#read-data")).to_have_attribute("aria-label", re.compile("^Read generation data from the prompt"))
    open_tab(page, "Settings")
    expect(page.locator("#option-img2img_fix_steps")).to_have_attribute("title", "img2img_fix_steps")


def test_text_is_copied_where_the_browser_offers_no_clipboard(page):
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    copied = page.evaluate("""async () => {
        let copied = null;
        document.addEventListener("copy", (event) => { copied = event.target.value?.slice(event.target.selectionStart, event.target.selectionEnd); });
        await window.palimpsest.copy("Steps: 20");
        return copied;
    }""")
    assert copied == "Steps: 20" and page.locator("body > textarea").count() == 0


def test_a_number_beyond_its_slider_stays_as_typed(page):
    field = page.get_by_label("number input for CFG Scale", exact=True)
    field.fill("45")
    field.press("Tab")
    settle(page)
    expect(field).to_have_value("45")
