"""A page that others can open too: who asks is known, and there is nothing on it that is the owner's alone."""

from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.helpers import special_args

from pipeline.drafts import Drafts
from pipeline.engine import local_engine
from pipeline.families import placement
from pipeline.journal import Journal
from pipeline.limits import Client, Limits
from pipeline.loading import ModelStore
from pipeline.models import Catalog
from pipeline.settings import Settings
from tests.conftest import DEMO_MODEL, ROOT
from ui import build_ui
from ui.session import BrowserId, asked_by


@pytest.fixture(scope="module")
def build(demo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    catalog = Catalog(folder / "models", extra=[DEMO_MODEL])
    models = ModelStore(catalog, placement.choose("cpu", "float32"), catalog.find_checkpoint("demo-model"),
                        load=lambda *_, **__: demo)
    engine = local_engine(models.load, journal=Journal(folder / "outputs"), limits=Limits(pictures=60))

    def build(shared: bool) -> dict[str, gr.blocks.Block]:
        """The page's components by elem_id."""
        page = build_ui(engine, models, models.describe(), outputs=folder / "outputs", samples=ROOT / "assets" / "samples",
                        settings=Settings(), drafts=Drafts(), shared=shared)
        return {block.elem_id: block for block in page.blocks.values() if getattr(block, "elem_id", None)}

    yield build
    engine.close()


def test_a_shared_page_says_so_and_has_no_settings(build):
    shared, own = build(True), build(False)
    assert shared["shared"].value == "Shared page: pictures you make are saved on its owner's machine; 60 pictures an hour."
    assert "shared" not in own and "settings-save" in own and "settings-save" not in shared
    assert not any(name.startswith("option-") for name in shared)


def test_what_takes_a_folder_of_the_server_is_not_on_a_shared_page(build):
    def folders(page):
        return {name for name in page if any(word in name for word in ("folder", "-dir", "directory"))}
    assert folders(build(True)) == set()


def test_an_event_is_told_who_asks():
    def handler(client, *inputs, **named):
        yield client, inputs, named

    handle = asked_by(handler)
    request = gr.Request(SimpleNamespace(client=SimpleNamespace(host="10.0.0.7")))
    inputs, *_ = special_args(handle, ["a" * 32, 1, 2], request)
    assert list(handle(*inputs, steps=3)) == [(Client("a" * 32, "10.0.0.7"), (1, 2), {"steps": 3})]


@pytest.mark.parametrize("stored, id", [("0123456789abcdef" * 2, "0123456789abcdef" * 2), (None, ""), ("", ""), ({}, ""),
                                        ("api palimpsest 10.0.0.7", ""), (["0" * 32], "")])
def test_no_browser_can_claim_to_be_a_client_of_the_api(stored, id):
    assert BrowserId("", storage_key="id").preprocess(stored) == id
