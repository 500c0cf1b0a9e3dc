"""A network file: its tensors by layer, its hash in infotext, and its trigger words."""

import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import ModelError
from pipeline.networks.keys import split_name
from pipeline.small_files import open_regular
from pipeline.weights import Weights

BUNDLED_EMBEDDINGS = "bundle_emb."
"""Prefix of the tensors of textual inversions bundled in a network file."""

MAX_NUMBERS = 75 << 16
"""Per bundled tensor; a larger one is not an embedding."""

_BUNDLED = re.compile(re.escape(BUNDLED_EMBEDDINGS) + r"([^.]+)\.(?:string_to_param\.)?(.+)")

Version = tuple[int, int]
"""A file's size and modification time."""


def version(path: Path) -> Version:
    """Changes when the file does. Raises FileNotFoundError."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


class NetworkFile:
    """An opened LoRA or similar file: only its header is read, tensors only when parts() is called.

    Raises ModelError if no tensor in the file belongs to a layer, and what Weights raises.
    """

    def __init__(self, path: Path):
        self._weights = Weights(path)
        self._names: dict[str, dict[str, str]] = defaultdict(dict)  # layer → part → the tensor's name
        self._bundled: dict[str, dict[str, str]] = defaultdict(dict)  # embedding → vectors → the tensor's name
        for name in self._weights:
            if bundled := _BUNDLED.fullmatch(name):
                self._bundled[bundled[1]][bundled[2]] = name
            if not name.startswith(BUNDLED_EMBEDDINGS) and (split := split_name(name)):
                self._names[split[0]][split[1]] = name
        if not self._names:
            raise ModelError(f'"{path.name}" is not a LoRA: none of its {len(self._weights)} tensors has the name of a LoRA tensor')

    @property
    def layers(self) -> list[str]:
        """The file's names of the layers that it changes, with underscores only."""
        return list(self._names)

    def embeddings(self) -> dict[str, dict[str, Tensor]]:
        """Bundled textual inversions: name → tensors, as in a file of its own."""
        return {name: {part: self._weights[key] for part, key in parts.items()
                       if self._weights.shape(key).numel() <= MAX_NUMBERS} for name, parts in self._bundled.items()}

    def parts(self, layer: str, device: torch.device) -> dict[str, Tensor]:
        """The tensors for one layer, under the names of keys.PARTS, float32."""
        parts = {part: self._weights[name].to(device, torch.float32) for part, name in self._names[layer].items()}
        if "down" in parts and "alpha" not in parts:
            scale = self._adapter.scale(layer, parts["down"].shape[:1].numel())
            parts |= {} if scale is None else {"scale": torch.tensor(scale)}
        return parts

    @cached_property
    def _adapter(self) -> "AdapterConfig":
        return AdapterConfig(self._weights.metadata)

    @cached_property
    def short_hash(self) -> str:
        """The 12 hex digits of infotext's "Lora hashes"."""
        said = self._weights.metadata.get("sshs_model_hash", "")
        return (said if re.fullmatch(r"[0-9A-Za-z]+", said) else tensor_hash(self._weights.path))[:12]


class AdapterConfig:
    """PEFT's settings, which diffusers writes into a file's metadata as "unet.lora_alpha" and the like."""

    def __init__(self, metadata: Mapping[str, str]):
        config = read_object(metadata.get("lora_adapter_metadata", "")) or {}
        self._by_component = defaultdict(dict)
        for name, value in config.items():
            component, _, setting = name.rpartition(".")
            self._by_component[component][setting] = value
        self._patterns = {component: numbered(config.get("alpha_pattern")) for component, config in self._by_component.items()}
        """Component → {last words of a layer's name: (position in the file's list, alpha)}; the first match counts."""

    def scale(self, layer: str, rank: int) -> float | None:
        """The factor on the layer's low-rank product; None if not specified."""
        component = next((name for name in self._by_component if layer.startswith(f"{name}_")), "")
        config = self._by_component.get(component, {})
        words = layer.split("_")
        endings = ("_".join(words[start:]) for start in range(len(words)))
        found = [self._patterns[component][ending] for ending in endings if ending in self._patterns.get(component, {})]
        alpha = min(found)[1] if found else config.get("lora_alpha")
        if not is_number(alpha):
            return None
        return alpha / (max(rank, 1) ** (0.5 if config.get("use_rslora") else 1))


def numbered(patterns: object) -> dict[str, tuple[int, float]]:
    """A PEFT alpha_pattern, keyed by the last words of layers' names, with underscores only."""
    entries = patterns.items() if isinstance(patterns, dict) else ()
    return {pattern.replace(".", "_"): (place, alpha) for place, (pattern, alpha) in reversed([*enumerate(entries)])
            if is_number(alpha)}


def is_number(value: object) -> bool:
    """Whether a metadata value is a usable number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15 and math.isfinite(value)


def file_hash(path: Path) -> str:
    """The SHA-256 of a file."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensor_hash(path: Path) -> str:
    """The SHA-256 of a safetensors file's tensors, without the header, so that editing metadata does not change it."""
    with open_regular(path) as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        return hashlib.file_digest(file, "sha256").hexdigest()


def trigger_words(metadata: Mapping[str, str]) -> list[str]:
    """The tags that a network was trained with, most frequent first; [] if its metadata does not list them."""
    counts: Counter[str] = Counter()
    for folder in (read_object(metadata.get("ss_tag_frequency", "")) or {}).values():
        for tag, count in folder.items() if isinstance(folder, dict) else ():
            if is_number(count) and tag.strip():
                counts[tag.strip()] += count
    return [tag for tag, _ in counts.most_common()]


def read_object(text: str) -> dict | None:
    """The JSON object in a metadata value, or None."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
