"""What decides a program's pixels beside the request and the device: its own files, and the versions of what it computes with."""

from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self

from pipeline import __version__

PACKAGES = ("torch", "diffusers", "transformers", "numpy", "pillow", "opencv-python-headless", "safetensors", "gguf")
"""Packages whose versions can change pixels, or whether a file is read."""
SHOWN = 10
"""Hex digits of a hash in a sentence."""


@dataclass(frozen=True)
class Identity:
    """Two programs of the same identity make the same pixels on devices of one kind."""

    program: str
    """This program's version."""
    sources: str
    """The SHA-256 of its files."""
    packages: dict[str, str] = field(default_factory=dict)
    """Package → version, for PACKAGES, without the part that says for which card it was built."""

    @classmethod
    def ours(cls) -> Self:
        """Of the program that asks."""
        return cls(__version__, hash_of_sources(Path(__file__).parent), {name: installed(name) for name in PACKAGES})

    def difference(self, other: Self) -> str:
        """How the other one differs, as the end of a sentence on it; "" if it does not."""
        versions = {"Palimpsest": (other.program, self.program)} | {
            name: (other.packages.get(name, "none"), self.packages.get(name, "none")) for name in {**self.packages, **other.packages}}
        differing = [(name, theirs, ours) for name, (theirs, ours) in versions.items() if theirs != ours]
        if differing:
            return "; ".join(f"it has {name} {theirs}, and this program {ours}" for name, theirs, ours in differing)
        if self.sources != other.sources:
            return f"its files of Palimpsest {other.program} have the hash {other.sources[:SHOWN]}, and this program's {self.sources[:SHOWN]}"
        return ""


@cache
def hash_of_sources(folder: Path) -> str:
    """The SHA-256 of all Python files in a folder, by their paths in it."""
    digest = sha256()
    for file in sorted(folder.rglob("*.py")):
        content = file.read_bytes().replace(b"\r\n", b"\n")  # git may change line ends on Windows
        digest.update(f"{file.relative_to(folder).as_posix()}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()


def installed(package: str) -> str:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "none"
