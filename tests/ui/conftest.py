"""A real server and a real Chromium."""

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
import pytest
import torch
from PIL import Image, ImageDraw
from playwright.sync_api import expect, sync_playwright
from safetensors.torch import save_file

from pipeline.families.placement import choose
from pipeline.loading import ModelStore
from pipeline.models import Catalog
from pipeline.styles import StyleDatabase
from pipeline.upscaling import UPSCALERS
from tests.browser import CHROMIUM_ARGS, find_chromium
from tests.conftest import DEMO_MODEL, ROOT
from tests.ui.steps import WINDOW, open_page, put_back, show_page
from ui.adetailer import build_adetailer
from ui.controlnet import build_controlnet
from ui.controls import (
    Controls,
    build_generation_controls,
    build_mask_controls,
    build_model_menus,
    build_prompts,
    build_scripts,
    build_strength,
    build_style_menu,
)
from ui.scripts import build_always_on

START_SECONDS = 180
"""Generous, as a busy machine imports slowly; speed is tested elsewhere."""


@dataclass
class Server:
    url: str
    outputs: Path
    output: list[str]
    """Lines printed so far."""
    status: int | None = None
    """Exit status; None: still running."""


def start(*flags: str, outputs: Path, program: tuple[str, ...] = ("app.py",)):
    """Start the program (which takes app.py's flags) on a free port, and yield it as a Server once it answers."""
    command = [sys.executable, "-u", *program, "--port", "0", "--no-browser", "--device", "cpu", "--precision", "float32",
               "--outputs-dir", str(outputs), "--settings-file", str(outputs.parent / "config.json"),
               "--styles-file", str(outputs.parent / "styles.csv"), *flags]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env=os.environ | {"GRADIO_TEMP_DIR": str(outputs.parent / "cache")})
    lines: list[str] = []
    ready = threading.Event()

    def read():
        for line in process.stdout:
            lines.append(line.rstrip())
            if "is ready at" in line:
                ready.set()
        ready.set()

    threading.Thread(target=read, daemon=True).start()
    server = Server("", outputs, lines)
    try:
        assert ready.wait(START_SECONDS), lines
        address = re.search(r"is ready at (\S+)", "\n".join(lines))
        assert address, lines
        server.url = address[1]
        yield server
    finally:
        process.terminate()
        server.status = process.wait(30)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "models" / "Lora").mkdir(parents=True)
    save_file({"lora_unet_conv_in.lora_up.weight": torch.zeros(1, 1)}, folder / "models" / "Lora" / "ink.safetensors",
              {"ss_tag_frequency": json.dumps({"set": {"ink sketch": 2, "<b>bold</b>": 1}})})
    yield from start("--models-dir", str(folder / "models"), outputs=folder / "outputs")


@pytest.fixture(scope="session")
def controls(tmp_path_factory):
    """The widgets of the page, with the demo model alone."""
    catalog = Catalog(tmp_path_factory.mktemp("models"), extra=[DEMO_MODEL])
    models = ModelStore(catalog, choose("cpu", "float32"), catalog.find_checkpoint("demo-model"))
    with gr.Blocks():
        return Controls(**build_model_menus(models), **build_prompts()[2], styles=build_style_menu(StyleDatabase()),
                        **build_mask_controls(), **build_strength(), **build_generation_controls(models, 512)[0],
                        scripts=build_scripts(build_always_on(), list(UPSCALERS), build_controlnet(models), build_adetailer(catalog)))


ONE_PROCESS = "--process-per-site"
"""A context's pages run in one process: to start another, and to compile the page's scripts there, takes a third of opening a page."""


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=[*CHROMIUM_ARGS, ONE_PROCESS])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def context(browser, server):
    """Shared by all pages, to keep the page's scripts fetched and compiled. A small page of the server keeps its process."""
    for context in new_context(browser):
        context.new_page().goto(f"{server.url}/sdapi/v1/progress")
        yield context


def new_context(browser):
    expect.set_options(timeout=60_000)
    with browser.new_context(viewport=WINDOW) as context:
        context.set_default_timeout(60_000)
        yield context


@pytest.fixture
def page(request, server):
    """The page as in a fresh browser, or where a test `shares_page`, that of its file. Only the server may be contacted, no
    script may fail, and no job may be left running."""
    if "kept_page" in request.fixturenames:
        page = request.getfixturevalue("kept_page")
        stop_all(server)
        if not put_back(page):
            page.goto("about:blank")
            forget_all(page.context, page, server.url)
            show_page(page, server.url)
        yield page
    else:
        yield from opened(request.getfixturevalue("context"), server)


@pytest.fixture(scope="module")
def kept_page(browser, server):
    """The same, opened once for a file's tests."""
    for context in new_context(browser):
        yield from opened(context, server)


def opened(context, server):
    page = context.new_page()
    forget_all(context, page, server.url)
    elsewhere, failures = [], []
    page.on("request", lambda r: elsewhere.append(r.url) if not r.url.startswith((server.url, "data:", "blob:")) else None)
    page.on("pageerror", lambda error: failures.append(str(error)))
    open_page(page, server.url)
    yield page
    page.close()
    stop_all(server)
    assert not elsewhere and not failures


def forget_all(context, page, address):
    """Clear everything the browser has kept for the address, except its script cache."""
    context.clear_cookies()
    context.clear_permissions()
    session = context.new_cdp_session(page)
    session.send("Storage.clearDataForOrigin", {"origin": address.rstrip("/"), "storageTypes": "all"})
    session.detach()


def stop_all(server):
    """Interrupt all running and waiting jobs, and wait for their end."""
    deadline = time.monotonic() + 60
    while json.load(urllib.request.urlopen(f"{server.url}/sdapi/v1/progress"))["state"]["job"]:
        assert time.monotonic() < deadline, "a job cannot be interrupted"
        urllib.request.urlopen(urllib.request.Request(f"{server.url}/sdapi/v1/interrupt", b""))
        time.sleep(0.05)


@pytest.fixture
def picture_file(tmp_path):
    """A 160x160 PNG in which every pixel differs from its neighbours."""
    image = Image.new("RGB", (160, 160))
    image.putdata([(x, y, (x + y) % 256) for y in range(160) for x in range(160)])
    image.save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.fixture
def mask_file(tmp_path):
    """White from 60 to 99 on both axes."""
    image = Image.new("L", (160, 160))
    ImageDraw.Draw(image).rectangle((60, 60, 99, 99), fill=255)
    image.save(tmp_path / "mask.png")
    return tmp_path / "mask.png"
