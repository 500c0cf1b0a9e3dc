"""k-diffusion's own samplers, for tests to compare with."""

import sys
from functools import cache
from importlib import import_module
from importlib.metadata import distribution
from types import ModuleType


@cache
def k_diffusion_sampling() -> ModuleType:
    """The module k_diffusion.sampling of the installed distribution (requirements-oracles.txt).

    The package's __init__ would import its training code, and utils imports torchvision for pictures. Stand-ins replace
    both in sys.modules while sampling and utils are imported, and are removed afterwards.
    """
    package, transforms = ModuleType("k_diffusion"), ModuleType("torchvision.transforms")
    package.__path__ = [str(distribution("k-diffusion").locate_file("k_diffusion"))]
    transforms.functional = None
    sys.modules.update({"k_diffusion": package, "torchvision": ModuleType("torchvision"),
                        "torchvision.transforms": transforms})
    try:
        return import_module("k_diffusion.sampling")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] in ("k_diffusion", "torchvision")]:
            del sys.modules[name]
