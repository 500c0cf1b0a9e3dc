"""The page's modules under ui/web, each in a real browser. The canvas, which is there too, has tests of its own."""

import re

import pytest
from playwright.sync_api import expect

from pipeline.options import SPECS
from tests.conftest import ROOT
from tests.ui.steps import generate, open_page, open_tab, prepare_a_long_job, put, settle, shares_page

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


@shares_page
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
    page.get_by_role("tab", name="History", exact=True).click()  # it goes on out of sight
    page.wait_for_timeout(1200)
    assert page.evaluate("sounds") == 0 and "%" in page.title()
    page.get_by_role("tab", name="Make", exact=True).click()
    page.locator("#interrupt").click()
    page.wait_for_function("document.title === 'Palimpsest'")
    assert page.evaluate("sounds") == 1


@shares_page
def test_what_gradio_gives_no_tooltip_has_one(page):
    expect(page.locator("#read-data")).to_have_attribute("title", re.compile("^Read generation data from the prompt"))
    expect(page.locator("#read-data")).to_have_attribute("aria-label", re.compile("^Read generation data from the prompt"))
    open_tab(page, "Settings")
    expect(page.locator("#option-img2img_fix_steps")).to_have_attribute("title", "img2img_fix_steps")


@shares_page
def test_text_is_copied_where_the_browser_offers_no_clipboard(page):
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true })")
    copied = page.evaluate("""async () => {
        let copied = null;
        document.addEventListener("copy", (event) => { copied = event.target.value?.slice(event.target.selectionStart, event.target.selectionEnd); });
        await window.palimpsest.copy("Steps: 20");
        return copied;
    }""")
    page.evaluate("delete navigator.clipboard")
    assert copied == "Steps: 20" and page.locator("body > textarea").count() == 0


@shares_page
def test_a_number_beyond_its_slider_stays_as_typed(page):
    field = page.get_by_label("number input for CFG Scale", exact=True)
    field.fill("45")
    field.press("Tab")
    settle(page)
    expect(field).to_have_value("45")


OFFERED = """[...document.querySelectorAll("[data-testid=dropdown-option]")].filter((option) => option.checkVisibility())
    .map((option) => option.ariaLabel)"""


def expect_in_menu(page, names):
    """Wait until the open menu offers these, as it is seen."""
    page.wait_for_function(f"(names) => String({OFFERED}) === String(names)", arg=names)


def test_a_menu_is_searched_by_words_anywhere_in_a_name_in_any_order(page):
    menu = page.get_by_label("Sampling method", exact=True)
    menu.click()
    page.wait_for_function(f"{OFFERED}.length > 15")
    page.keyboard.type("HEUN 2m")  # in place of the name that stood there
    expect(menu).to_have_value("HEUN 2m")
    expect_in_menu(page, ["DPM++ 2M SDE Heun"])
    page.keyboard.press("Enter")
    expect(menu).to_have_value("DPM++ 2M SDE Heun")
    settle(page)
    page.reload()
    expect(menu).to_have_value("DPM++ 2M SDE Heun")  # Gradio was told


@shares_page
def test_a_searched_menu_is_walked_by_the_arrows_and_clicked_by_the_mouse(page):
    menu = page.get_by_label("Sampling method", exact=True)
    menu.click()
    page.keyboard.type("dpm2")
    expect_in_menu(page, ["DPM2", "DPM2 a"])
    page.keyboard.press("ArrowDown")
    expect(page.locator("[data-first]")).to_have_attribute("id", menu.get_attribute("aria-activedescendant"))
    page.keyboard.press("Enter")
    expect(menu).to_have_value("DPM2 a")
    menu.click()
    page.keyboard.type("lm")
    page.get_by_role("option", name="LMS", exact=True).click()
    expect(menu).to_have_value("LMS")


@shares_page
def test_a_menu_without_a_hit_says_so_and_gives_its_value_back(page):
    menu = page.get_by_label("Schedule type", exact=True)
    menu.click()
    page.keyboard.type("qqq")
    expect_in_menu(page, [])
    assert page.evaluate("getComputedStyle(document.querySelector('[data-searched]'), '::after').content") == '"Nothing fits."'
    page.keyboard.press("Enter")
    expect(menu).to_have_value("qqq")
    page.keyboard.press("Escape")
    expect(menu).to_have_value("Automatic")
    expect(page.get_by_role("option")).to_have_count(0)
    page.keyboard.type("karr")  # opens it again
    expect(page.get_by_role("option", name="Karras", exact=True)).to_be_visible()
    expect_in_menu(page, ["Karras"])
    page.locator("h1").click()
    expect(menu).to_have_value("Automatic")


def make_style(page, name):
    page.locator("#style-name input").fill(name)
    page.locator("#style-name input").press("Enter")
    page.locator("#style-prompt :is(input, textarea)").fill(name)
    page.locator("#style-save").click()
    settle(page)


def test_several_styles_are_found_one_after_the_other(page):
    page.locator("#edit-styles").click()
    for name in ("pale ink drawing", "dark oil", "dark ink"):
        make_style(page, name)
    page.locator("#edit-styles").click()
    menu, chosen = page.locator("#styles input"), page.locator("#styles .token")
    menu.click()
    page.keyboard.type("drawing ink")
    expect_in_menu(page, ["pale ink drawing"])
    page.keyboard.press("Enter")
    expect(menu).to_have_value("")
    page.wait_for_function(f"{OFFERED}.length >= 3")
    page.keyboard.type("oil")
    page.get_by_role("option", name="dark oil").click()
    expect(menu).to_have_value("")
    expect(chosen).to_have_text(["pale ink drawing", "dark oil"])
    page.keyboard.type("x")
    page.keyboard.press("Backspace")  # takes back what was typed, and only then a style
    expect(chosen).to_have_count(2)
    page.keyboard.press("Backspace")
    expect(chosen).to_have_text(["pale ink drawing"])


def test_a_menu_of_any_length_is_searched_whole(controls):
    menus = (controls.sd_model_checkpoint, controls.sd_vae, controls.refiner_checkpoint, controls.styles)
    assert all(menu.get_config()["num_choices_shown"] > 10_000 for menu in menus)  # not the first hundred


@shares_page
def test_escape_closes_a_menu_and_lets_the_job_run(page, picture_file):
    put(page, "img2img-picture", picture_file)
    prepare_a_long_job(page)
    generate(page, "img2img")
    page.locator("#stage img").wait_for()
    page.get_by_label("Sampling method", exact=True).click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("option")).to_have_count(0)
    page.wait_for_timeout(500)
    expect(page.locator("#stage .bar")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#stage .bar")).to_have_count(0)


def test_on_a_phone_a_menu_shows_its_names_whole(page):
    page.set_viewport_size({"width": 390, "height": 844})
    menu = page.locator("#checkpoint input")
    menu.click()
    option = page.get_by_role("option").first
    expect(option).to_be_visible()
    option.click(trial=True)  # once it has slid in
    option.evaluate("(option) => { option.lastChild.data = 'a-folder-of-models/' + 'a-very-long-name-'.repeat(8) + '.safetensors'; }")
    box = option.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["height"] > 60
    assert option.evaluate("(option) => option.scrollWidth <= option.clientWidth")


def shown_options(page):
    return page.evaluate("[...document.querySelectorAll('[id^=option-]')].filter((option) => option.checkVisibility()).map(({ id }) => id.slice(7))")


def open_groups(page):
    return page.evaluate("[...document.querySelectorAll('.settings-group')].filter((group) => group.checkVisibility()).map(({ id }) => id)")


@shares_page
@pytest.mark.parametrize("typed, found", [
    ("old karras", ["use_old_karras_scheduler_sigmas"]),  # its label
    ("uni_pc_order", ["uni_pc_order"]),  # its name
    ("stochastic", ["eta_ancestral"]),  # its sentence
])
def test_a_setting_is_found_by_its_label_its_name_or_its_sentence(page, typed, found):
    open_tab(page, "Settings")
    everything, before = open_groups(page), shown_options(page)
    page.keyboard.press("/")
    expect(page.locator("#settings-search input")).to_be_focused()
    page.keyboard.type(typed)
    settle(page)
    page.wait_for_function("(found) => found.every((name) => document.querySelector(`#option-${name}`)?.checkVisibility())", arg=found)
    assert shown_options(page) == found and open_groups(page) == ["settings-sampling"]
    expect(page.locator("#settings-search [role=status]")).to_have_text(f"1 of {page.evaluate(OPTIONS)} settings")
    page.keyboard.press("Escape")
    expect(page.locator("#settings-search input")).to_have_value("")
    settle(page)
    assert open_groups(page) == everything and shown_options(page) == before


OPTIONS = "JSON.parse(document.querySelector('#settings-search [data-options]').dataset.options).length"


@shares_page
def test_a_search_of_the_settings_without_a_hit_says_so(page):
    open_tab(page, "Settings")
    page.locator("#settings-search input").fill("qqq <b>")
    expect(page.locator("#settings-search [role=status]")).to_have_text('No setting fits "qqq <b>".')
    assert shown_options(page) == [] and open_groups(page) == []
    page.locator("#settings-search input").fill("")
    settle(page)


def test_a_german_finds_a_setting_by_german_and_by_english_words(browser, server):
    with browser.new_context(locale="de-DE", viewport={"width": 1366, "height": 900}) as context:
        page = context.new_page()
        page.set_default_timeout(60_000)
        open_page(page, server.url)
        open_tab(page, "Einstellungen")
        for typed in ("farbkorrektur", "colour correction", "img2img_color_correction"):
            page.locator("#settings-search input").fill(typed)
            page.wait_for_function("document.querySelector('#option-img2img_color_correction')?.checkVisibility()")
            assert shown_options(page) == ["img2img_color_correction"], typed
        expect(page.locator("#settings-search [role=status]")).to_have_text(f"1 von {page.evaluate(OPTIONS)} Einstellungen")


def test_every_option_has_words_for_a_label_and_none_the_label_of_another():
    labels = [spec.label for spec in SPECS.values()]
    assert len({label.lower() for label in labels}) == len(labels)
    assert [label for label in labels if "_" in label or label in SPECS or not label[0].isupper()] == []


def colours(page):
    return page.evaluate("[document.body.classList.contains('dark'), document.documentElement.style.colorScheme]")


DARK, LIGHT = [True, "dark"], [False, "light"]


def test_the_theme_is_the_systems_until_it_is_switched_and_remembered(page, server):
    assert colours(page) == LIGHT
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.body.classList.contains('dark')")
    assert colours(page) == DARK
    page.locator("#theme-switch").click()
    assert colours(page) == LIGHT
    open_page(page, server.url)
    assert colours(page) == LIGHT
    page.emulate_media(color_scheme="light")
    page.emulate_media(color_scheme="dark")  # of which Gradio tells its class
    page.wait_for_timeout(200)
    assert colours(page) == LIGHT
    page.locator("#theme-switch").click()
    assert colours(page) == DARK and page.evaluate("localStorage.getItem('palimpsest-theme')") is None


def test_what_was_chosen_is_there_from_the_first_frame(context, server, page):
    page.locator("#theme-switch").click()
    page.add_init_script("""(() => {
        window.frames_seen = new Set();
        const look = () => {
            if (document.querySelector(".gradio-container")) frames_seen.add(document.body.classList.contains("dark"));
            requestAnimationFrame(look);
        };
        look();
    })()""")
    open_page(page, server.url)
    assert page.evaluate("[...frames_seen]") == [True]


def add(page, html):
    """Put elements into the page, as its layout would."""
    page.evaluate("(html) => document.body.insertAdjacentHTML('beforeend', html)", html)
    page.evaluate("() => new Promise(requestAnimationFrame)")


def test_the_stage_is_switched_and_turns_to_the_result_when_a_job_has_finished(page, picture_file):
    page.set_viewport_size({"width": 390, "height": 844})
    stage = "document.querySelector('#workspace').dataset.stage"  # what the stylesheet reads
    pressed = page.locator("#stage-switch [aria-pressed=true]")
    expect(pressed).to_have_text("Source")
    page.locator("#stage-switch [data-stage=result]").click()
    expect(pressed).to_have_text("Result")
    assert page.evaluate(stage) == "result"
    page.set_viewport_size({"width": 1366, "height": 900})  # where its settings are at hand
    open_tab(page, "Sketch")
    assert page.evaluate(stage) == "source"
    open_tab(page, "img2img")
    put(page, "img2img-picture", picture_file)
    prepare_a_long_job(page)
    generate(page, "img2img")
    page.locator("#stage img").wait_for()
    assert page.evaluate(stage) == "source"
    page.keyboard.press("Escape")
    page.wait_for_function(f"{stage} === 'result'")
    expect(pressed).to_have_text("Result")


WORKSPACE = ('<div id="workspace" style="position: fixed; inset: 0; z-index: 99; box-sizing: content-box; width: 1024px; padding: 10px; '
             'column-gap: 12px; display: grid; background: white; grid-template: 1fr / minmax(0, var(--split, 1fr)) 10px minmax(0, 1fr)">'
             '<div id="first">a</div><div id="splitter"></div><div><button id="fold-settings">Settings</button></div></div>')


@pytest.fixture
def workspace(page):
    page.evaluate("document.querySelectorAll('#workspace, #splitter, #fold-settings').forEach((element) => element.remove())")
    add(page, WORKSPACE)
    return page


def width(page):
    return page.locator("#first").bounding_box()["width"]


def test_the_strip_between_the_panels_is_dragged_set_back_and_remembered(workspace, server):
    page = workspace
    assert width(page) == pytest.approx(495, abs=1)
    page.mouse.move(522, 300)
    page.mouse.down()
    page.mouse.move(672, 300, steps=3)
    assert width(page) == pytest.approx(645, abs=2)
    page.mouse.move(1030, 300, steps=3)
    page.mouse.up()
    assert width(page) == pytest.approx(819, abs=2)  # so much of the other is left
    strip = page.get_by_role("separator", name="Width of the panels")
    expect(strip).to_have_attribute("aria-valuenow", "80")
    open_page(page, server.url)
    page.evaluate("document.querySelectorAll('#workspace, #splitter').forEach((element) => element.remove())")
    add(page, WORKSPACE)
    assert width(page) == pytest.approx(819, abs=2)
    strip.dblclick()
    assert width(page) == pytest.approx(495, abs=1)
    assert page.evaluate("localStorage.getItem('palimpsest-split')") is None


def test_the_strip_is_moved_by_keys(workspace):
    page = workspace
    page.get_by_role("separator").focus()
    for key, wide in (("ArrowRight", 516), ("ArrowRight", 536), ("Shift+ArrowLeft", 434), ("Home", 205), ("End", 819)):
        page.keyboard.press(key)
        assert width(page) == pytest.approx(wide, abs=2), key
    page.keyboard.press("Enter")
    assert width(page) == pytest.approx(495, abs=1)


def test_the_settings_are_folded_away_and_that_is_remembered(workspace, server):
    page = workspace
    folded = "document.querySelector('#workspace').dataset.settings"
    button = page.locator("#fold-settings")
    expect(button).to_have_attribute("aria-expanded", "true")
    button.click()
    expect(button).to_have_attribute("aria-expanded", "false")
    assert page.evaluate(folded) == "folded"
    open_page(page, server.url)
    page.evaluate("document.querySelectorAll('#workspace, #fold-settings').forEach((element) => element.remove())")
    add(page, WORKSPACE)
    expect(button).to_have_attribute("aria-expanded", "false")
    assert page.evaluate(folded) == "folded"
    button.click()
    assert page.evaluate(folded) == "shown"


@shares_page
def test_slash_goes_to_the_search_of_the_page_that_is_open_and_stays_a_letter_where_one_types(page):
    page.locator("#prompt textarea").fill("")
    page.locator("#prompt textarea").press("/")
    expect(page.locator("#prompt textarea")).to_have_value("/")
    open_tab(page, "History")
    page.keyboard.press("/")
    expect(page.locator("#history-words :is(input, textarea)")).to_be_focused()
