"""The page in other languages: each catalogue is whole and holds nothing that is not said; and one of them in a browser."""

import ast
import html
import re
from contextlib import contextmanager
from itertools import product

import pytest
from playwright.sync_api import expect

from pipeline.device import DeviceWorker
from pipeline.drafts import Drafts
from pipeline.engine import LocalEngine
from pipeline.families import placement
from pipeline.journal import Journal
from pipeline.limits import Limits
from pipeline.loading import ModelStore
from pipeline.models import Catalog
from pipeline.options import SPECS
from pipeline.scripts import ALWAYS_ON
from pipeline.settings import Settings
from tests.conftest import DEMO_MODEL, ROOT
from tests.ui.steps import open_page
from ui import build_ui, catalogues

CATALOGUES = catalogues()
GRADIO = {"Error", "Warning", "Info", "number input for {}", "range slider for {}"}
"""Texts of Gradio that it has no translation for itself."""
SENTENCES = {"InvalidRequest": 1} | dict.fromkeys(
    ("ModelError", "NotReadable", "TooMany", "PalimpsestError", "HookError", "Unverifiable", "Missing", "refusal", "error_toast",
     "Error", "Info", "Warning"), 0)
"""What a sentence for people is given to, and as its which argument."""

NAMES = {choice for spec in SPECS.values() for choice in spec.choices or ()} | {
    script.title for script in ALWAYS_ON.values()}
"""Said as requests and infotext say them: values of options, scripts. So is what menus offer."""


def texts_of(markup: str) -> set[str]:
    """The texts between a markup's tags."""
    return {text for part in re.split(r"<[^>]*>", markup) if (text := html.unescape(part).strip())}


def spoken(text: str) -> bool:
    """Whether it holds words: not a ratio, a key or a placeholder alone."""
    return bool(re.search("[A-Za-z]{2}", text.replace("{}", "")))


@pytest.fixture(scope="module")
def page_texts(demo, tmp_path_factory) -> set[str]:
    """Labels, sentences, placeholders, choices and texts of the page, of its owner's and of a shared one."""
    folder = tmp_path_factory.mktemp("locale")
    catalog = Catalog(folder / "models", extra=[DEMO_MODEL])
    models = ModelStore(catalog, placement.choose("cpu", "float32"), catalog.find_checkpoint("demo-model"),
                        load=lambda *_, **__: demo)
    engine = LocalEngine({"cpu #1": DeviceWorker(models.load), "cpu #2": DeviceWorker(models.load)}, journal=Journal(folder / "outputs"),
                         limits=Limits(pictures=60))
    texts = set()
    for shared in (False, True):
        page = build_ui(engine, models, models.describe(), outputs=folder / "outputs", samples=ROOT / "assets" / "samples",
                        settings=Settings(), drafts=Drafts(), shared=shared)
        for component in page.get_config_file()["components"]:
            props, kind = component["props"], component["type"]
            texts |= {props.get(name) for name in ("label", "info", "placeholder")}
            if kind in ("radio", "checkboxgroup"):
                texts |= {label for label, _ in props["choices"]}
            if kind in ("button", "markdown"):
                texts.add(props.get("value"))
            elif kind == "html":
                texts |= texts_of(value) if isinstance(value := props.get("value"), str) else set()
    engine.close()
    same_everywhere = {name for file in catalog.checkpoints() for name in (file.title, file.rel)} | {
        "Palimpsest", "Ctrl", "Enter", "Esc", "Shift", "Alt", "cpu #1", "cpu #2"}
    return {text for text in texts if isinstance(text, str) and spoken(text)} - NAMES - same_everywhere


def patterns(node: ast.expr) -> list[str]:
    """What an expression can say, {} where it puts a value in."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(said) for said in product(*map(patterns, parts))]
        case ast.FormattedValue(value=ast.IfExp() as chosen) | (ast.IfExp() as chosen):
            return patterns(chosen.body) + patterns(chosen.orelse)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return [before + after for before, after in product(patterns(left), patterns(right))]
        case _:
            return ["{}"]


def sources() -> list[ast.AST]:
    return [ast.parse(file.read_text("utf-8")) for room in ("ui", "pipeline") for file in sorted((ROOT / room).rglob("*.py"))]


def sentences() -> set[str]:
    """What the code tells people: errors, notes and comments."""
    told = set()
    for call in (node for tree in sources() for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name, owner = getattr(call.func, "id", getattr(call.func, "attr", "")), getattr(call.func, "value", None)
        if name == "append" and getattr(owner, "id", getattr(owner, "attr", "")) in ("comments", "notes"):
            told |= {*patterns(call.args[0])}
        elif len(call.args) > SENTENCES.get(name, len(call.args)):
            told |= {*patterns(call.args[SENTENCES[name]])}
    return {text for text in told if spoken(text)}


def said_by_scripts() -> set[str]:
    """What the modules under ui/web say."""
    files = (ROOT / "ui" / "web").rglob("*.js")
    said = (found for file in files for found in re.findall(r"""\bsay\((['"`])(.+?)\1\)""", file.read_text("utf-8")))
    return {re.sub(r"\$\{[^}]*\}", "{}", text) for _, text in said}


def everything_said() -> set[str]:
    """Every text in the code that the page could show, also in parts as it does."""
    whole = {text for tree in sources() for node in ast.walk(tree) if isinstance(node, ast.expr) for text in patterns(node)}
    whole |= {*re.findall(r"translate\('([^']+)'\)", (ROOT / "ui" / "events.py").read_text("utf-8"))}
    whole |= said_by_scripts()
    # Markdown's code and what is quoted within SQL and scripts stand by themselves, as do parts that a dot joins
    parts = {part for text in whole for line in texts_of(text) | {*re.split("[`'\"]", text)} for part in line.split(" · ")}
    return {text.strip() for text in whole | parts} | {text.removeprefix("{}") for text in parts}


@pytest.mark.parametrize("language", CATALOGUES)
def test_a_catalogue_has_every_text_of_the_page(language, page_texts):
    catalogue = CATALOGUES[language]
    shapes = [".*".join(map(re.escape, key.split("{}"))) for key in catalogue if key.startswith("Shared page")]
    missing = {text for text in page_texts - catalogue.keys() if not any(re.fullmatch(shape, text) for shape in shapes)}
    assert sorted(missing) == []


@pytest.mark.parametrize("language", CATALOGUES)
def test_a_catalogue_has_every_sentence_that_people_are_told(language):
    assert sorted(sentences() - CATALOGUES[language].keys()) == []


@pytest.mark.parametrize("language", CATALOGUES)
def test_a_catalogue_has_every_text_of_the_scripts(language):
    assert len(said_by_scripts()) > 10 and sorted(said_by_scripts() - CATALOGUES[language].keys()) == []


@pytest.mark.parametrize("language", CATALOGUES)
def test_a_catalogue_has_nothing_that_is_never_said(language, page_texts):
    said = everything_said() | page_texts | GRADIO
    assert [key for key in CATALOGUES[language] if key not in said] == []


@pytest.mark.parametrize("language", CATALOGUES)
def test_a_translation_has_the_places_of_its_text_and_is_final(language):
    catalogue = CATALOGUES[language]
    assert [key for key, text in catalogue.items() if not text or key.count("{}") != text.count("{}")] == []
    assert [text for text in catalogue.values() if catalogue.get(text, text) != text] == []
    assert list(catalogue) == sorted(catalogue, key=lambda key: (key.lower(), key))


@contextmanager
def opened(browser, server, locale):
    """The page in a browser that speaks a language."""
    context = browser.new_context(locale=locale, viewport={"width": 1366, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    open_page(page, server.url)
    yield page
    context.close()


@pytest.fixture(scope="module")
def german_page(browser, server):
    with opened(browser, server, "de-DE") as page:
        yield page


def test_a_german_browser_shows_german_and_makes_the_same_picture(german_page):
    page = german_page
    generate, toast = page.locator("#generate-img2img"), page.locator(".toast-body").last
    expect(generate).to_have_text("Generieren")
    expect(page.get_by_placeholder("Was das Bild zeigen soll")).to_be_visible()
    generate.click()
    expect(toast).to_contain_text("Fehler")
    expect(toast).to_contain_text("Es fehlt ein Bild, von dem ausgegangen werden kann")
    page.locator("#samples-img2img button").first.click()
    expect(page.locator("#prompt textarea")).not_to_have_value("")
    steps = page.get_by_label("Zahlenfeld für Schritte", exact=True)
    steps.fill("2")
    steps.press("Enter")
    generate.click()
    expect(page.locator("#infotext textarea")).to_have_value(
        re.compile("Steps: 2, Sampler: DPM[+][+] 2M, Schedule type: Karras, "))


def test_a_value_stays_what_it_is_in_any_language(german_page):
    german_page.get_by_role("tab", name="Batch", exact=True).click()
    expect(german_page.locator("#batch-source").get_by_label("Hochladen", exact=True)).to_be_checked()
    expect(german_page.locator("#vae input")).to_have_value("Automatic")


@pytest.mark.parametrize("said, german", [
    ("In queue, place 3", "In der Warteschlange, Platz 3"),
    ("file 2 of 9 · picture 1 of 4 · step 5/20 · 25% · 1.2 s · about 3.4 s left",
     "Datei 2 von 9 · Bild 1 von 4 · Schritt 5/20 · 25% · 1.2 s · noch etwa 3.4 s"),
    ("40 files · 12 were done already · 3 are done now · 1 ended early · 2 could not be done",
     "40 Dateien · 12 waren schon fertig · 3 sind jetzt fertig · 1 endeten vorzeitig · 2 gingen nicht"),
    ("demo-model [3557f37b94] · loading, 40%", "demo-model [3557f37b94] · lädt, 40%"),
    ("steps must be a whole number between 1 and 150, got 0", "steps muss eine ganze Zahl zwischen 1 und 150 sein, nicht 0"),
    ('sampler_name: no sampler called "Mask"; did you mean "Euler a"?',
     'sampler_name: kein Sampler namens „Mask“; gemeint vielleicht „Euler a“?'),
    ("Shared page: pictures you make are saved on its owner's machine; 60 pictures an hour.",
     "Geteilte Seite: erzeugte Bilder werden auf dem Rechner des Besitzers gespeichert; 60 Bilder pro Stunde."),
    ("Visitors may make 60 pictures an hour, and 58 have been requested already; there is room for 4 more in 12 minutes.",
     "Besucher dürfen 60 Bilder pro Stunde erzeugen, und 58 waren es schon; Platz für 4 mehr ist in 12 Minuten."),
    ("Identical: made again, it has the same pixels.", "Identisch: nochmal erzeugt hat es dieselben Pixel."),
    ("Mask.png", "Mask.png"), ("a house in the style of {}", "a house in the style of {}")])
def test_a_line_with_values_in_it_is_translated_around_them(german_page, said, german):
    assert german_page.evaluate("said => window.palimpsest.translate(said)", said) == german


def test_a_browser_of_a_language_without_a_catalogue_shows_english(browser, server):
    with opened(browser, server, "fr-FR") as page:
        expect(page.locator("#generate-img2img")).to_have_text("Generate")
        assert page.evaluate("window.palimpsest.translate('Generate')") == "Generate"
