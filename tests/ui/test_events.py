"""Every event of the page: what it raises is shown, and whatever is sent to it gives a sentence."""

import ast
import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

import gradio as gr
import pytest
from gradio.state_holder import SessionState
from starlette.requests import Request

from pipeline.drafts import Drafts
from pipeline.engine import local_engine
from pipeline.errors import InvalidRequest
from pipeline.families import placement
from pipeline.journal import Journal
from pipeline.limits import Limits
from pipeline.loading import ModelStore
from pipeline.models import Catalog
from pipeline.settings import Settings
from tests.conftest import DEMO_MODEL, ROOT
from ui import build_ui
from ui.events import Page, fitting, lingering
from ui.fields import Day, Seed, Slider

NONSENSE = [None, "", "<b>nonsense</b>", 10**400, float("nan"), True, ["x", None], {"path": "/etc/passwd", "background": 3}]
MAY_NOT_WAIT = {"interrupt", "stop-after", "skip"}
"""The buttons whose events run on the server without the queue."""
OWNERS = {"interrupt-extras"}
"""The same on a page that is not shared."""


@pytest.fixture(scope="module", params=[False, True], ids=["owner", "shared"])
def page(request, demo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("events")
    catalog = Catalog(folder / "models", extra=[DEMO_MODEL])
    models = ModelStore(catalog, placement.choose("cpu", "float32"), catalog.find_checkpoint("demo-model"),
                        load=lambda *_, **__: demo)
    engine = local_engine(models.load, journal=Journal(folder / "outputs"), limits=Limits(pictures=60))
    yield build_ui(engine, models, models.describe(), outputs=folder / "outputs", samples=ROOT / "assets" / "samples",
                   settings=Settings(folder / "settings.json"), drafts=Drafts(), shared=request.param)
    engine.close()


@pytest.fixture(scope="module")
def opened(page):
    """What Gradio keeps of an opened page. Describing all widgets for another one takes longer than most events."""
    return SessionState(page)


def run(coroutine):
    """The coroutine's result, on a thread of its own: the browser's tests leave an event loop running on this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def send(page, event, values, data=None, state=None):
    """What an event answers to these values from a page that was just opened; gr.Error where it shows one."""
    request = gr.Request(Request({"type": "http", "method": "POST", "path": "/", "headers": [(b"host", b"localhost")],
                                  "query_string": b"", "client": ("127.0.0.1", 1), "server": ("localhost", 80), "scheme": "http"}))
    state = state or SessionState(page)
    state.state_data.clear()

    async def answer():
        told = await page.process_api(event, values, state=state, request=request, session_hash="x", event_id=None,
                                      event_data=gr.EventData(None, data) if data is not None else None)
        if told.get("iterator") is not None:
            await told["iterator"].aclose()

    try:
        run(answer())
    except gr.Error as error:
        return error
    return None


def events(page):
    """Those that run on the server."""
    return [event for event in page.fns.values() if event.fn is not None and event.targets and event.targets[0][1] != "unload"]


def test_an_event_that_may_raise_is_sent_by_the_way_on_which_errors_are_shown(page):
    unseen = [event for event in events(page) if not event.queue]
    assert {page.blocks[target].elem_id for event in unseen for target, _ in event.targets} - OWNERS == MAY_NOT_WAIT


@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda value: f"{value!r}"[:20])
def test_nonsense_gives_a_sentence_and_at_most_one_line_in_the_log(page, opened, nonsense, caplog):
    for event in events(page):
        caplog.clear()
        error = send(page, event, [nonsense] * len(event.inputs), data={"index": nonsense, "value": nonsense}, state=opened)
        name = f"{event.name} of {event.targets}"
        told = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(told) <= 1 and all(len(record.getMessage().splitlines()) == 1 for record in told), name
        if error is not None:
            assert error.message.strip() and not error.print_exception, name
            assert "<b>" not in error.message and "Traceback" not in error.message, name
            assert str(ROOT) not in error.message and "site-packages" not in error.message, name


def test_missing_values_are_told(page, opened):
    for event in events(page):
        if inputs := [block for block in event.inputs if not block.stateful]:
            assert "reload it" in send(page, event, [None] * (len(event.inputs) - 1), state=opened).message, (event.name, inputs)


def test_one_wrong_value_among_right_ones_is_refused_by_the_fields_name(page):
    event = next(event for event in events(page) if getattr(page.blocks.get(event.targets[0][0]), "elem_id", None) == "generate-img2img")
    right = [block.value if hasattr(block, "value") else None for block in event.inputs]
    place = next(i for i, block in enumerate(event.inputs) if getattr(block, "label", "") == "Sampling steps")
    assert "Sampling steps must be a whole number" in send(page, event, [*right[:place], "many", *right[place + 1:]]).message
    place = next(i for i, block in enumerate(event.inputs) if getattr(block, "label", "") == "Sampling method")
    assert "Sampling method must be one of its choices" in send(page, event, [*right[:place], "Dream", *right[place + 1:]]).message


def test_what_nobody_has_foreseen_is_one_sentence_and_one_line(caplog):
    with Page() as page:
        text = gr.Textbox()
        gr.Button().click(lambda text: text[99], text, text)
    error = send(page, page.fns[0], ["<i>short</i>"])
    assert "IndexError" in error.message and not error.print_exception
    assert [record.levelname for record in caplog.records] == ["WARNING"] and "test_events.py" in caplog.text


def test_what_the_server_keeps_of_a_page_is_taken_as_it_is():
    with Page() as page:
        kept, text = gr.State("kept"), gr.Textbox()
        gr.Button().click(lambda kept, text: (kept + text, kept), [kept, text], [kept, text])
    state = SessionState(page)
    for expected in ("kept", "kept!"):
        answer = run(page.process_api(page.fns[0], [None, "!"], state=state))
        assert answer["data"][1] == expected


def test_a_sentence_with_markup_is_shown_as_text(page):
    with Page() as small:
        text = gr.Textbox()

        def refuse(text):
            raise InvalidRequest("prompt", f"prompt: {text}")

        gr.Button().click(refuse, text, text)
    assert send(small, small.fns[0], ["<img src=x>"]).message == "prompt: &lt;img src=x&gt;"


def test_only_one_place_makes_toasts():
    """So that no sentence reaches one without being escaped."""
    made = {(file.name, node.attr) for file in (ROOT / "ui").glob("*.py") for node in ast.walk(ast.parse(file.read_text("utf-8")))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "gr"
            and node.attr in ("Info", "Warning", "Error", "Success")}
    assert made == {("events.py", "Info"), ("events.py", "Warning"), ("events.py", "Error")}


@pytest.mark.parametrize("seed", [0, -1, 2**53 + 1, 1234567890123456789, 2**64 - 1])
def test_a_seed_keeps_all_its_digits(seed):
    field = Seed(label="Seed")
    assert field.preprocess(field.postprocess(seed)) == seed and field.postprocess(seed) == str(seed)


@pytest.mark.parametrize("text", ["abc", "1.5", str(2**64), "1e3", "--1"])
def test_what_is_not_a_seed_is_refused(text):
    with pytest.raises(InvalidRequest, match="Seed must be a whole number between"):
        Seed(label="Seed").preprocess(text)
    assert Seed(label="Seed").preprocess(" ") == -1


def test_a_slider_leaves_it_to_the_request_what_is_valid():
    slider = Slider(1, 150, label="Sampling steps")
    assert slider.preprocess(fitting(slider, 200)) == 200
    with pytest.raises(InvalidRequest, match="Sampling steps must be a whole number, got 'x'"):
        fitting(slider, "x")


def test_a_day_that_is_none_is_told():
    with pytest.raises(InvalidRequest, match='Since: "yesterday" is not a date'):
        Day(label="Since", include_time=False, type="timestamp").preprocess("yesterday")


def test_an_update_is_repeated_for_a_second_because_the_page_may_miss_it(monkeypatch):
    button, text, state = gr.Button(), gr.Textbox(), gr.State()
    times = iter([0.0, 0.3, 0.9, 1.2])
    monkeypatch.setattr("ui.events.monotonic", lambda: next(times))
    assert list(lingering(iter([{button: 1, state: 2}, {text: 3}, {text: 4}, {text: 5}]))) == [
        {button: 1, state: 2}, {button: 1, text: 3}, {button: 1, text: 4}, {text: 5}]


def test_updates_that_are_no_dict_pass_as_they_are():
    assert list(lingering(iter(["a", "b"]))) == ["a", "b"]
