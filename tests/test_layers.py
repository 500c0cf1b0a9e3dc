"""The arrows of docs/architecture.md: who may import whom, and nobody reaches into a package to change it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("api", "app", "launch", "pipeline", "tools", "ui")

LEAVES = tuple(f"pipeline.{name}" for name in (
    "errors", "geometry", "options", "fonts", "rng", "philox", "masking", "images", "prompt_parser", "infotext", "hooks", "png", "foreign", "metadata",
    "progress", "uploads", "saving", "tiles", "grids", "small_files", "weights", "styles", "embeddings", "models", "hub", "upscaling", "originals",
    "pasting", "caches", "allocator", "islands", "outpaint", "matched_noise", "kept", "gguf", "arriving"))
FAMILY_TYPES = tuple(f"pipeline.families.{name}" for name in ("base", "cond", "controls", "latents", "prediction", "reuse"))
SAMPLERS_SEE = (*LEAVES, "pipeline.conditioning", *FAMILY_TYPES, "pipeline.samplers")
SCRIPTS_SEE = (*LEAVES, "pipeline.describe", "pipeline.finishing", "pipeline.processing", "pipeline.record", "pipeline.samplers", *FAMILY_TYPES,
               "pipeline.controlnet", "pipeline.detectors", "pipeline.adetailer", "pipeline.scripts")
FAMILIES_SEE = ("pipeline.errors", "pipeline.geometry", "pipeline.small_files", "pipeline.prompt_parser", "pipeline.weights", "pipeline.gguf", "pipeline.embeddings", "pipeline.families")
MAY_SEE = {
    **dict.fromkeys(LEAVES, LEAVES),
    "pipeline.samplers": SAMPLERS_SEE,
    "pipeline.scripts": SCRIPTS_SEE,
    "pipeline.families": FAMILIES_SEE,
    "pipeline.controlnet": (*LEAVES, *FAMILY_TYPES, "pipeline.families.placement", "pipeline.controlnet"),
    "pipeline.detectors": (*LEAVES, "pipeline.detectors"),
    "pipeline.upscalers": (*LEAVES, "pipeline.memory", "pipeline.upscalers"),
    "pipeline.networks": ("pipeline.errors", "pipeline.families.base", "pipeline.families.packed", "pipeline.small_files", "pipeline.prompt_parser", "pipeline.weights", "pipeline.networks"),
    "pipeline": ("pipeline",),
    "ui": ("ui", "pipeline"),
    "api": ("api", "pipeline"),
    "launch": (),
    "tools": ("tools", "pipeline"),
    "app": ("ui", "api", "pipeline"),
}
"""The first row that holds the importer is the one that counts."""
HOSTS = {
    "gradio": ("ui", "api", "app"),
    "fastapi": ("api",),
    "starlette": ("api",),
    "diffusers": ("pipeline.families", "pipeline.gguf", "tools"),
    "transformers": ("pipeline.families", "pipeline.detectors", "tools"),
    "huggingface_hub": ("pipeline.hub",),
    "ray": ("pipeline.ray_workers",),
    "torch": ("pipeline", "tools", "app"),
}
"""The only rooms that a guest package is let into."""


def within(module: str, places) -> bool:
    return any(module == place or module.startswith(place + ".") for place in places)


def read_modules() -> dict[str, str]:
    """Dotted name → source of every file of the project but the tests."""
    files = [file for room in ROOMS for file in (ROOT / f"{room}.py", *(ROOT / room).rglob("*.py")) if file.exists()]
    names = (file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for file in files)
    return {name.removesuffix(".__init__"): file.read_text("utf-8") for name, file in zip(names, files)}


def imports(name: str, node: ast.Import | ast.ImportFrom, modules: dict[str, str]) -> list[tuple[str, str]]:
    """(module, the name it binds) for each name that an import statement in module `name` brings."""
    if isinstance(node, ast.Import):
        return [(alias.name, alias.asname or alias.name.partition(".")[0]) for alias in node.names]
    source = node.module or ""
    if node.level:
        is_package = any(other.startswith(name + ".") for other in modules)
        parents = name.split(".")[:len(name.split(".")) - node.level + is_package]
        source = ".".join([*parents, *filter(None, [source])])
    return [(module if (module := f"{source}.{alias.name}") in modules else source, alias.asname or alias.name)
            for alias in node.names]


def statements(tree: ast.AST):
    """All nodes that run: what stands under `if TYPE_CHECKING:` does not."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            node = ast.Module(node.orelse, [])
        yield node
        yield from statements(node)


def changed(node: ast.AST) -> ast.expr | None:
    """What a node assigns to or deletes, where that is something's attribute."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "delattr"):
        return ast.Attribute(node.args[0], "(…)")
    return node if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load) else None


def root_name(node: ast.expr) -> str | None:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def violations(modules: dict[str, str]) -> list[str]:
    """A line for each import that no arrow allows, and for each change of something imported."""
    lines = []
    for name, source in modules.items():
        nodes = list(statements(ast.parse(source)))
        bound = [pair for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)
                 for pair in imports(name, node, modules)]
        seen = next(places for room, places in MAY_SEE.items() if within(name, [room]))
        for target in dict.fromkeys(target for target, _ in bound):
            guest = target.partition(".")[0]
            allowed = within(target, seen) if guest in ROOMS else within(name, HOSTS.get(guest, [name]))
            if not allowed:
                lines.append(f"{name} imports {target}")
        foreign = {alias for _, alias in bound}
        lines += [f"{name} assigns to {ast.unparse(target)}" for target in filter(None, map(changed, nodes))
                  if root_name(target) in foreign and ast.unparse(target) != "os.environ"]
    return lines


def test_every_import_follows_an_arrow_and_nothing_imported_is_changed():
    assert violations(read_modules()) == []


def test_every_leaf_exists():
    assert set(LEAVES) <= set(read_modules())


def violations_of(name: str, source: str) -> list[str]:
    """What a module of that name would do wrong among the project's."""
    return violations(dict.fromkeys(read_modules(), "") | {name: source})


@pytest.mark.parametrize("name, source, line", [
    ("pipeline.samplers.bad", "from pipeline.families.sd import StableDiffusion", "imports pipeline.families.sd"),
    ("pipeline.samplers.bad", "from ..families import sd", "imports pipeline.families.sd"),
    ("pipeline.samplers.bad", "from pipeline import processing", "imports pipeline.processing"),
    ("pipeline.samplers", "from ..processing import Processed", "imports pipeline.processing"),
    ("pipeline.families.bad", "import pipeline.options", "imports pipeline.options"),
    ("pipeline.scripts.bad", "from pipeline.engine import Engine", "imports pipeline.engine"),
    ("pipeline.rng", "from pipeline.conditioning import Subprompt", "imports pipeline.conditioning"),
    ("pipeline.bad", "import ui", "imports ui"),
    ("pipeline.bad", "def late():\n    from api.guard import Guard", "imports api.guard"),
    ("ui.bad", "from api import serve", "imports api"),
    ("api.bad", "from ui.tabs import build_page", "imports ui.tabs"),
    ("pipeline.bad", "import app", "imports app"),
    ("pipeline.bad", "import gradio as gr", "imports gradio"),
    ("pipeline.bad", "try:\n    import fastapi\nexcept ImportError:\n    pass", "imports fastapi"),
    ("ui.bad", "from starlette.types import Scope", "imports starlette.types"),
    ("pipeline.samplers.bad", "import diffusers.models", "imports diffusers.models"),
    ("ui.bad", "from torch import Tensor", "imports torch"),
    ("pipeline.bad", "import cv2\ncv2.blur = None", "assigns to cv2.blur"),
    ("pipeline.bad", "import a.b\na.b.c += 1", "assigns to a.b.c"),
    ("pipeline.bad", "from PIL import Image as I\nI.MAX_IMAGE_PIXELS = None", "assigns to I.MAX_IMAGE_PIXELS"),
    ("pipeline.bad", "import cv2\nsetattr(cv2, 'blur', None)", "assigns to cv2.(…)"),
    ("pipeline.bad", "import cv2\nx, cv2.blur = 1, 2", "assigns to cv2.blur"),
])
def test_a_planted_violation_is_caught(name, source, line):
    assert violations_of(name, source) == [f"{name} {line}"]


@pytest.mark.parametrize("name, source", [
    ("pipeline.samplers.good", "from pipeline.families.base import Family\nfrom . import solvers\nfrom ..rng import ImageRNG"),
    ("pipeline.samplers.good", "if TYPE_CHECKING:\n    from pipeline.processing import Processed"),
    ("pipeline.families.good", "def load():\n    from diffusers import AutoencoderKL\n    from .base import Cond"),
    ("ui.good", "import gradio as gr\nfrom pipeline.engine import Engine\nfrom . import tabs"),
    ("app", "from api import serve\nfrom ui import build_ui"),
    ("pipeline.good", "import os\nos.environ['A'] = '1'\nos.environ |= {}\nself.os = 2"),
])
def test_what_the_arrows_allow_passes(name, source):
    assert violations_of(name, source) == []
