"""The kinds of control, such as Canny or Depth: which preprocessors and networks belong to each."""

from typing import Any

from pipeline.controlnet.preprocessors import NONE, Preprocessor, in_order
from pipeline.controlnet.units import NO_MODEL
from pipeline.models import Catalog

ALL = "All"
WITHOUT_PREPROCESSOR = ("InstructP2P", "MLSD", "NormalMap", "SoftEdge")
"""Kinds whose maps come from elsewhere; there are networks for them."""
WORDS = {"instructp2p": ("ip2p",), "segmentation": ("seg",), "normalmap": ("normal",), "t2i-adapter": ("t2i_adapter", "t2iadapter", "t2ia"),
         "openpose": ("densepose",), "scribble": ("sketch",), "tile": ("blur",), "ip-adapter": ("ip_adapter", "ipadapter")}
"""Further words in the names of a kind's networks."""


def tags() -> list[str]:
    """The kinds in alphabetical order, All first."""
    return [ALL, *sorted({*WITHOUT_PREPROCESSOR, *(tag for one in in_order() for tag in one.tags)})]


def preprocessors_of(tag: str) -> list[Preprocessor]:
    """Those of a kind, "none" first."""
    return [one for one in in_order() if tag == ALL or one.name == NONE or tag in one.tags]


def listed_models(catalog: Catalog) -> list[str]:
    """The networks in the extension's form, without "None"."""
    return [name for name, _ in catalog.control_network_names()]


def models_of(tag: str, models: list[str]) -> list[str]:
    """The networks whose names say that they are of a kind; unions are of every kind."""
    words = (tag.lower(), *WORDS.get(tag.lower(), ()), "union")
    return models if tag == ALL else [name for name in models if any(word in name.lower() for word in words)]


def control_types(catalog: Catalog) -> dict[str, dict[str, Any]]:
    """Each kind as the extension describes it."""
    models, found = listed_models(catalog), {}
    for tag in tags():
        modules = [one.label for one in preprocessors_of(tag)]
        fitting = models_of(tag, models)
        default = next((name for name in fitting if "11" in name.split("[")[0]), next(iter(fitting), NO_MODEL))
        found[tag] = {"module_list": modules, "model_list": [NO_MODEL, *(fitting or models)],
                      "default_option": NONE if tag == ALL or len(modules) == 1 else modules[1],
                      "default_model": NO_MODEL if tag == ALL else default}
    return found
