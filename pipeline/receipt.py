"""The receipt in a PNG: everything its pixels depend on, so that it can be made again and compared.

It holds no time, no path and no machine name: the same request gives the same file.
"""

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from typing import Any, Protocol, Self

import torch
from PIL import Image

from pipeline import __version__
from pipeline.families.base import Family
from pipeline.families.placement import Placement
from pipeline.infotext import RECEIPT
from pipeline.options import Options
from pipeline.originals import digest
from pipeline.progress import Progress
from pipeline.request import Replay
from pipeline.rng import fixed_seed, seed_by

PACKAGES = ("torch", "diffusers", "transformers", "pillow")
"""Packages whose versions can change pixels."""

Seeds = tuple[list[int], dict[str, int]]
"""(those drawn in order, those settled by the name of the request's field)"""
Files = dict[str, dict[str, str | None]]
"""kind (checkpoint, VAE, LoRA, embedding, upscaler, style) → name → SHA-256; None: unknown."""


@dataclass(frozen=True)
class Receipt:
    """Everything that determined a picture."""

    program: str
    """This program's version."""
    packages: dict[str, str]
    """Package → version, for PACKAGES."""
    device: str
    precision: str
    rng: str
    """The value of randn_source."""
    checkpoint: str
    """A name in `files`, like the next two."""
    vae: str | None
    """None: the checkpoint's own."""
    refiner: str | None
    files: Files
    """All files used up to this picture."""
    request: dict[str, Any]
    """The request, as record.asked() gives it."""
    drawn: list[int]
    """Random seeds drawn up to this picture."""
    seed: int | None
    """This picture's seed; None for a grid."""
    number: int
    """Its index among the request's pictures, in the order they were finished."""
    interrupted: bool
    """Whether it, or a picture that it was made from, was not sampled to its end."""
    pixels: str
    """Its digest."""

    @property
    def text(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))


KINDS = {"program": str, "packages": dict, "device": str, "precision": str, "rng": str, "checkpoint": str,
         "vae": str | None, "refiner": str | None, "files": dict, "request": dict, "drawn": list, "seed": int | None,
         "number": int, "interrupted": bool, "pixels": str}
"""The JSON type under each name."""


def read_receipt(image: Image.Image) -> Receipt | None:
    """The receipt in a picture, or None. Raises ValueError if it is damaged."""
    text = image.info.get(RECEIPT)
    if text is None:
        return None
    try:
        values = json.loads(text)
    except (TypeError, RecursionError) as error:
        raise ValueError("it is not valid JSON") from error
    if not isinstance(values, dict) or values.keys() != KINDS.keys():
        raise ValueError("its entries are not a receipt's")
    sound = (all(isinstance(values[name], kind) for name, kind in KINDS.items())
             and all(isinstance(hashes, dict) for hashes in values["files"].values())
             and all(isinstance(seed, int) for seed in values["drawn"]))
    if not sound:
        raise ValueError("one of its entries has the wrong type")
    return Receipt(**values)


class Stamped(Protocol):
    """The part of the processing object that receipts read."""

    options: Options
    script_name: str | None
    sd_model: Family
    refiner: Family | None
    progress: Progress
    extra_generation_params: dict[str, Any]


class Receipts:
    """Writes the receipts of a request's pictures and draws its random seeds. All variants of a request share one.

    drawn: results of the first draws, for a replay. wanted: the number of the picture to find, after which the run ends.
    chance: runs of one request with the same chance draw the same seeds, also those that draw only some of them; "": any.
    Nothing is written before begin().
    """

    def __init__(self, drawn: Sequence[int] = (), wanted: int | None = None, chance: str = ""):
        self._given, self._wanted, self.chance = tuple(drawn), wanted, chance or secrets.token_hex(16)
        self.found: Image.Image | None = None
        """The wanted picture, once it is there."""
        self._request: dict[str, Any] | None = None
        self._packages: dict[str, str] = {}
        self._again: Seeds = [], {}
        """Those of a first try, for the second."""
        self._known = self._again
        self._forget()

    @classmethod
    def of(cls, replay: Replay | None, seeds: Seeds | None = None, chance: str = "") -> Self:
        """For a request, which may be a replay up to one of its pictures. seeds: of an earlier run, to be drawn again."""
        receipts = cls(chance=chance) if replay is None else cls(replay.drawn, replay.number, chance)
        receipts._again = seeds or receipts._again
        return receipts

    def _forget(self) -> None:
        self._drawn: list[int] = []
        self._files: Files = {}
        self._scopes: list[Files] = [{}]
        self._settled: dict[str, int] = {}
        self._number, self._cut = 0, False

    def begin(self, request: dict[str, Any]) -> None:
        """A run of that request, given as its record, starts."""
        self._request, self._packages = request, versions()
        self._forget()
        self._known, self._again = self._again, ([], {})

    @property
    def seeds(self) -> Seeds:
        """All random seeds of the current run, and those that an earlier one drew after them."""
        return self._drawn + self._known[0][len(self._drawn):], self._known[1] | self._settled

    def try_again(self) -> None:
        """The current run is given up; the next one draws the same seeds."""
        self._again = self.seeds

    def draw(self) -> int:
        """A random seed."""
        place = len(self._drawn)
        known = next((seeds[place] for seeds in (self._known[0], self._given) if place < len(seeds)), None)
        self._drawn.append(seed_by(self.chance, place) if known is None else known)
        return self._drawn[-1]

    def seed(self, wanted: int, settles: str | None = None) -> int:
        """The seed, drawn if `wanted` asks for a random one. settles: the request's field to record it under."""
        if settles is None or self._request is None:
            return fixed_seed(wanted, self.draw)
        seed = fixed_seed(wanted, lambda: self._known[1].get(settles) or seed_by(self.chance, settles))
        if self._request[settles] == -1:  # otherwise it is known, or is one of a list
            self._settled[settles] = seed
            self._request = self._request | {settles: seed}
        return seed

    def use(self, kind: str, name: str, sha256: str | None) -> None:
        """A file or style is used by the pictures from now on."""
        for files in (self._files, self._scopes[-1]):
            files.setdefault(kind, {})[name] = sha256

    @contextmanager
    def scope(self) -> Iterator[None]:
        """What is used within is no circumstance of what comes after it. Scopes may lie in each other."""
        self._scopes.append({})
        try:
            yield
        finally:
            self._scopes.pop()

    def circumstances(self, p: Stamped) -> str:
        """Everything that the next pixels depend on besides the request: one text, equal if all of it is equal."""
        models = [(model.info.name, model.info.sha256, model.info.vae, model.info.vae_sha256)
                  for model in (p.sd_model, p.refiner) if model is not None]
        return json.dumps([__version__, versions(), device_of(p.sd_model.placement), precision_of(p), models, self._scopes],
                          sort_keys=True)

    def stamp(self, p: Stamped, image: Image.Image, seed: int | None = None) -> None:
        """Put a finished picture's receipt into its info. seed: the picture's; None for a grid."""
        if self._request is None:
            return
        self._cut |= p.progress.partial
        depends_on_others = seed is None or bool(p.script_name)
        names = self._use_models(p)
        receipt = Receipt(__version__, self._packages, device_of(p.sd_model.placement), precision_of(p), p.options.randn_source,
                          *names, self._files, self._request, self._drawn, seed, self._number,
                          (self._cut or p.progress.stopped) if depends_on_others else p.progress.partial, digest(image))
        image.info[RECEIPT] = receipt.text
        if self._number == self._wanted:
            self.found = image
            p.progress.end()
        self._number += 1

    def _use_models(self, p: Stamped) -> tuple[str, str | None, str | None]:
        """The names of (checkpoint, VAE, refiner)."""
        info, refiner = p.sd_model.info, None if p.refiner is None else p.refiner.info
        self.use("checkpoint", info.name, info.sha256)
        if info.vae is not None:
            self.use("VAE", info.vae, info.vae_sha256)
        for name, sha256 in info.text_encoders:
            self.use("text encoder", name, sha256)
        if refiner is not None:
            self.use("checkpoint", refiner.name, refiner.sha256)
        return info.name, info.vae, refiner and refiner.name


@cache
def versions() -> dict[str, str]:
    """Package → version, for PACKAGES."""
    return {name: version(name) for name in PACKAGES}


def device_of(placement: Placement) -> str:
    """The device, as far as rounding depends on it."""
    device = placement.device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"CPU, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    return device.type


def where(placement: Placement) -> str:
    """All that rounding depends on besides the request: one text, equal if all of it is equal."""
    return json.dumps([__version__, versions(), device_of(placement), str(placement.dtype), str(placement.vae_dtype)])


def precision_of(p: Stamped) -> str:
    """The networks' precision, as in "float16, VAE float32", and changes made because memory was short."""
    model, vae = (str(dtype).removeprefix("torch.") for dtype in (p.sd_model.placement.dtype, p.sd_model.placement.vae_dtype))
    return ", ".join(filter(None, [model, None if vae == model else f"VAE {vae}", p.extra_generation_params.get("Low memory")]))


def digest_of_texts(*texts: str) -> str:
    """SHA-256 of a style's texts."""
    return sha256(json.dumps(texts).encode()).hexdigest()
