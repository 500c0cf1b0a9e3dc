"""The documents say what the code does: quirks, hooks, files, flags; and the pipeline leaves requests alone."""

import ast
import inspect
import re
from dataclasses import fields
from pathlib import Path

from app import parse_flags
from pipeline.hooks import Hooks
from pipeline.processing import StableDiffusionProcessingImg2Img
from tools import options_page

ROOT = Path(__file__).parents[1]
PIPELINE = ROOT / "pipeline"


def text(path):
    return (ROOT / path).read_text("utf-8")


def marked_functions():
    """(file, function) of every line in the pipeline that holds the marker, by the innermost function around it."""
    found = set()
    for path in PIPELINE.rglob("*.py"):
        source = path.read_text("utf-8")
        functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
        for number, line in enumerate(source.splitlines(), 1):
            if "A1111:" in line:
                around = [f for f in functions if f.lineno <= number <= f.end_lineno]
                assert around, f"{path}:{number} marks a quirk outside any function"
                found.add((path.relative_to(PIPELINE).as_posix(), max(around, key=lambda f: f.lineno).name))
    return found


def test_every_kept_quirk_has_its_row_and_every_row_its_quirk():
    kept = text("docs/a1111-compatibility.md").split("## Differences")[0]
    rows = set(re.findall(r"\| `([\w/]+\.py)` `(\w+)` \|", kept))
    assert rows == marked_functions()


def test_every_hook_is_documented_with_its_arguments():
    page = text("docs/hooks.md")
    for name, method in inspect.getmembers(Hooks, inspect.isfunction):
        parameters = [p for p in inspect.signature(method).parameters.values() if p.name != "self"]
        stars = ["*, " + p.name if p.kind is p.KEYWORD_ONLY and (i == 0 or parameters[i - 1].kind is not p.KEYWORD_ONLY)
                 else p.name for i, p in enumerate(parameters)]
        assert f"`{name}({', '.join(stars)})`" in page


def test_every_file_of_the_pipeline_is_in_the_architecture():
    page = text("docs/architecture.md")
    for path in [*PIPELINE.rglob("*.py"), *(ROOT / "ui").glob("*.py"), *(ROOT / "api").glob("*.py")]:
        assert path.name in page, f"docs/architecture.md does not mention {path.relative_to(ROOT)}"


def test_every_flag_is_in_the_readme():
    readme = text("README.md")
    for name in vars(parse_flags([])):
        assert f"--{name.replace('_', '-')}" in readme


def test_the_page_of_options_is_what_they_say_of_themselves():
    assert text("docs/options.md") == options_page.text(), "python -m tools.options_page writes it"


def test_every_file_that_the_documents_link_to_is_there():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_pipeline_never_writes_a_requests_fields():
    request = {f.name for f in fields(StableDiffusionProcessingImg2Img) if f.init} - {"mask", "sd_model"}
    for path in PIPELINE.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(function, ast.FunctionDef) or function.name in ("__post_init__", "set_mask_blur"):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                    owner = node.value.id if isinstance(node.value, ast.Name) else ""
                    in_class = owner == "self" and path.name in ("bound.py", "processing.py")  # request.py's are the constructor's
                    assert not ((owner == "p" or in_class) and node.attr in request), f"{path.name}: {owner}.{node.attr} is written"
