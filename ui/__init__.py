"""The page, built with gradio."""

import json
from pathlib import Path

import gradio as gr

from pipeline.drafts import Drafts
from pipeline.engine import Engine
from pipeline.families.base import ModelInfo
from pipeline.loading import ModelStore
from pipeline.settings import Settings
from ui.events import Page
from ui.page import build_page
from ui.stream import Folders
from ui.tabs import read_samples
from ui.theme import theme

STYLE = Path(__file__).with_name("style.css")
WEB = Path(__file__).with_name("web")
"""Scripts and styles that the page loads as modules, index.js first."""
LOCALE = Path(__file__).with_name("locale")
"""One catalogue per language other than English."""

CACHE_AGE = 24 * 3600
"""Seconds to keep Gradio's copies of uploads and results; the results themselves stay in the outputs folder."""


def build_ui(engine: Engine, models: ModelStore, info: ModelInfo, *, outputs: Path, samples: Path,
             settings: Settings, drafts: Drafts, shared: bool) -> gr.Blocks:
    """The page as gr.Blocks.

    info: of the model loaded at the start; samples: the folder with samples.json; drafts: its canvases' uploads; shared: there
    are visitors.
    """
    folders = Folders(samples=str(outputs / "img2img-images"), grids=str(outputs / "img2img-grids"),
                      extras=str(outputs / "extras-images"))
    with Page(title="Palimpsest", analytics_enabled=False, fill_width=True, delete_cache=(3600, CACHE_AGE)) as page:
        build_page(page, engine, models, info, folders, read_samples(samples), settings=settings, drafts=drafts, shared=shared)
    return page


def look() -> dict:
    """The page's theme, style and scripts, as arguments of api.build_app."""
    return {"theme": theme(), "css_paths": [STYLE], "head": head_html()}


def head_html() -> str:
    """What stands in the page's head before Gradio's script: styles, the catalogues, and the first module, which reads them there."""
    told = json.dumps(catalogues()).replace("<", "\\u003c")  # or a text could end the element
    styles = "".join(f'<link rel="stylesheet" href="./web/{sheet.name}">' for sheet in sorted(WEB.glob("*.css")))
    return f'{styles}<script type="application/json" id="catalogues">{told}</script><script type="module" src="./web/index.js"></script>'


def catalogues() -> dict[str, dict[str, str]]:
    """Language code → English text → translation; {} in a text stands for any words or number.

    Not passed to Gradio as gr.I18n, which would also translate the values of widgets, which events then send.
    """
    return {file.stem: json.loads(file.read_text("utf-8")) for file in sorted(LOCALE.glob("*.json"))}
