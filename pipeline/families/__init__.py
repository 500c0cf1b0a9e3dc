"""Checkpoint in, `Family` out. A new family is one file beside this one and one row in FAMILIES."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from safetensors import SafetensorError

from pipeline.errors import ModelError
from pipeline.families import placement, sd
from pipeline.families.base import Family, ModelInfo, Placement


@dataclass(frozen=True)
class FamilyRow:
    """How a family is recognised and loaded."""

    matches: Callable[[dict], bool]
    """Does this model_index.json describe one?"""
    load: Callable[[Path, ModelInfo, Placement, dict], Family]


FAMILIES = {
    "sd1": FamilyRow(lambda index: str(index.get("_class_name")).startswith("StableDiffusion")
                     and "text_encoder_2" not in index, sd.load_folder),
}


def describe(path: Path | str) -> ModelInfo:
    """What is known of the checkpoint in a diffusers folder without loading it. Raises ModelError."""
    folder = Path(path)
    find_row(folder)
    return ModelInfo(name=folder.resolve().name, path=str(folder), hash=weights_hash(folder),
                     native_size=read_extra(folder).get("native_size", 512))


def load(path: Path | str, place: Placement, info: ModelInfo | None = None) -> Family:
    """The checkpoint in a diffusers folder. Raises ModelError with one sentence when it cannot be loaded.

    info: what describe() has said of it, where somebody has asked already.
    """
    folder = Path(path)
    row, info = find_row(folder), info or describe(folder)
    try:
        return row.load(folder, info, place, read_extra(folder))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f'model "{path}" cannot be loaded: {reason}') from error


def find_row(folder: Path) -> FamilyRow:
    index = read_json(folder / "model_index.json")
    if index is None:
        raise ModelError(f'model "{folder}" is not a diffusers folder: it holds no model_index.json')
    for row in FAMILIES.values():
        if row.matches(index):
            return row
    kind = index.get("_class_name") or "model without a _class_name"
    raise ModelError(f'model "{folder}" is a {kind}; valid: {", ".join(FAMILIES)}')


def read_extra(folder: Path) -> dict:
    """What our own models say besides: native_size, latent_rgb_factors, latent_rgb_bias."""
    return read_json(folder / "palimpsest.json") or {}


def read_json(path: Path) -> dict | None:
    """The object in a JSON file, or None where there is no such file."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} cannot be read: it must hold an object, as {{...}}")
    return value


def weights_hash(folder: Path) -> str | None:
    """10 hex digits over the safetensors files of a folder, in name order; None where there are none."""
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        return None
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()[:10]


__all__ = ["FAMILIES", "FamilyRow", "describe", "load", "placement"]
