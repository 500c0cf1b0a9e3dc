"""Checks a picture against its receipt: runs its request again, then compares pictures and receipts."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.engine import Engine
from pipeline.errors import ModelError, PalimpsestError
from pipeline.job import Event, Failed, Finished
from pipeline.limits import Client
from pipeline.models import Catalog, ModelFile
from pipeline.networks import KINDS as TAGS
from pipeline.originals import digest
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.receipt import Files, Receipt, read_receipt
from pipeline.record import ELSEWHERE, from_record
from pipeline.request import Replay
from pipeline.seam import way_of
from pipeline.txt2img import StableDiffusionProcessingTxt2Img
from pipeline.uploads import load_file, open_picture

MODE = "verify"
"""The mode under which such jobs are recorded."""
RECORDED = {spec.name for spec in fields(StableDiffusionProcessingTxt2Img) if spec.init} - ELSEWHERE | {"kind", "options"}
"""Keys that a request's record may have."""
DAMAGED = "its receipt is damaged"
ROLES = {"init_images": ("picture", "the picture that it was made from"), "mask": ("mask", "its mask"),
         "reference_images": ("picture", "a reference picture that it was made with"),
         "latent_mask": ("mask", "its mask of latent space"), "alwayson_scripts": ("picture", "a control picture that guided it")}
"""Field → (the flag to give its pictures with, their name in messages)."""


class Unverifiable(PalimpsestError):
    """Raised with the reason why a picture cannot be verified."""


class Missing(Unverifiable):
    """Something needed is missing; `what`: "picture", "mask" or "model"."""

    def __init__(self, sentence: str, what: str):
        super().__init__(sentence)
        self.what = what

    def __reduce__(self):
        return type(self), (str(self), self.what)


class Status(IntEnum):
    """The program's exit codes."""

    IDENTICAL = 0
    DIFFERENT = 1
    UNVERIFIABLE = 2


@dataclass(frozen=True)
class Verdict:
    status: Status
    sentence: str


@dataclass(frozen=True)
class Claim:
    """A picture and its receipt."""

    image: Image.Image
    receipt: Receipt


# --- the claim

def read_claim(file: Path | str) -> Claim:
    """The picture in a file, with its receipt. Raises Unverifiable, and InvalidRequest for a file that is not a picture."""
    image, _ = load_file(file, Path(file).name)
    try:
        receipt = read_receipt(image)
    except ValueError as error:
        raise Unverifiable(f"{DAMAGED}: {error}") from error
    if receipt is None and way_of(image.info.get("parameters")):
        raise Unverifiable("its seam was blended after it was made, so its request gives the picture before that")
    if receipt is None:
        raise Unverifiable("it has no receipt; only PNG files saved by Palimpsest have one, and other programs drop it when saving")
    if digest(image) != receipt.pixels:
        raise Unverifiable("its pixels were changed after it was made")
    if receipt.interrupted:
        raise Unverifiable("it was interrupted or skipped, so making it again would give a finished picture instead")
    return Claim(image, receipt)


def read_given(files: Mapping[str, list[str]], receipt: Receipt) -> dict[str, Image.Image]:
    """Pictures supplied for those of the request, by digest. files: paths by kind, "picture" or "mask".

    Raises Unverifiable for one that the request does not use as such, and InvalidRequest for a file that is not a picture.
    """
    found: dict[str, Image.Image] = {}
    for what, paths in files.items():
        wanted = [name for field, (of, _) in ROLES.items() if of == what for name in digests_of(receipt.request.get(field))]
        for path in paths:
            images = [open_picture(path, Path(path).name, over_api=over_api).image for over_api in (False, True)]
            read = {digest(image): image for image in images}
            if not read.keys() & set(wanted):
                raise Unverifiable(f"{path} is not the {what} that it was made from: its SHA-256 is {next(iter(read))}, "
                                   f"not {' or '.join(wanted) or 'one of the receipt'}")
            found |= read
    return found


def digests_of(value: Any) -> list[str]:
    """The digests of all pictures in a part of a request's record."""
    if isinstance(value, dict):
        return [value["picture"]] if value.keys() == {"picture"} else digests_of(list(value.values()))
    return [name for each in value for name in digests_of(each)] if isinstance(value, list) else []


# --- run again

def request_again(receipt: Receipt, catalog: Catalog, find: Callable[[str], Image.Image | None], *,
                  thorough: bool) -> StableDiffusionProcessingImg2Img:
    """The request of a receipt, to be run up to the receipt's picture, saving nothing.

    find: digest → picture or None. thorough: hash files of other names to find renamed ones. Raises Unverifiable if a
    picture or model is missing, and InvalidRequest as for any request.
    """
    search = Search(catalog, thorough)
    try:
        pictures = load_pictures(receipt.request, find)
        record = {name: value for name, value in receipt.request.items() if name in RECORDED}
        record |= with_models(record, receipt, search)
        record |= with_loras(record, receipt, search)
        record |= with_control_networks(record, receipt, search)
        p = from_record(record, pictures.get, do_not_save_samples=True,
                        do_not_save_grid=bool(receipt.request.get("do_not_save_grid")),
                        replay=Replay(tuple(receipt.drawn), receipt.number))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unverifiable(DAMAGED) from error
    return p


def load_pictures(request: dict[str, Any], find: Callable[[str], Image.Image | None]) -> dict[str, Image.Image]:
    """All pictures of a request's record, by digest. Raises Unverifiable if one is missing."""
    pictures = {}
    for field, value in request.items():
        for name in digests_of(value):
            image = find(name)
            if image is None:
                what, called = ROLES.get(field, ("picture", "a picture that it was made from"))
                raise Missing(f"{called} (SHA-256 {name}) was not found", what)
            pictures[name] = image
    return pictures


@dataclass(frozen=True)
class Search:
    """Finds model files by content."""

    catalog: Catalog
    thorough: bool
    """Whether to hash files of other names whose hash is unknown."""

    def find(self, kind: str, name: str, sha256: str | None) -> ModelFile | None:
        """The file with that hash, else the one with that name, else None."""
        listed = {"checkpoint": self.catalog.checkpoints, "VAE": self.catalog.vaes, "text encoder": self.catalog.text_encoders,
                  "LoRA": self.catalog.loras, "ControlNet": self.catalog.control_networks, "CLIP vision": self.catalog.clip_vision}[kind]()
        files = sorted(listed, key=lambda file: (name not in (file.stem, file.path.name), file.sha256 is None))
        named = [file for file in files if name in (file.stem, file.path.name)]
        same = (file for file in files if self.hash_of(file, read=self.thorough or file in named) == sha256)
        return next(same if sha256 else iter(()), next(iter(named), None))

    def hash_of(self, file: ModelFile, *, read: bool) -> str | None:
        try:
            return self.catalog.sha256(file) if read else file.sha256
        except ModelError:
            return None


def with_models(record: dict[str, Any], receipt: Receipt, search: Search) -> dict[str, Any]:
    """The record with its models named by their current files' hashes. Raises Unverifiable if one is missing."""
    def hash_of(kind: str, name: str | None) -> str | None:
        if name is None:
            return None
        sha256 = receipt.files[kind][name]
        file = search.find(kind, name, sha256)
        if file is None:
            raise Missing(f'the {kind} "{name}" (SHA-256 {sha256 or "unknown"}) is not in the models folder', "model")
        return search.catalog.sha256(file)

    chosen = {"sd_model_checkpoint": hash_of("checkpoint", receipt.checkpoint), "sd_vae": hash_of("VAE", receipt.vae) or "None",
              "sd_text_encoders": ",".join(hash_of("text encoder", name) for name in receipt.files.get("text encoder", {})) or "None"}
    refiner = hash_of("checkpoint", receipt.refiner)
    return {"options": record["options"] | chosen} | ({"refiner_checkpoint": refiner} if refiner else {})


def with_loras(record: dict[str, Any], receipt: Receipt, search: Search) -> dict[str, Any]:
    """The record with renamed LoRAs under their current names."""
    names = {name: file.stem for name, sha256 in receipt.files.get("LoRA", {}).items()
             if (file := search.find("LoRA", name, sha256)) is not None}

    def rename(prompt: str) -> str:
        return re.sub(rf"<({'|'.join(TAGS)}):([^:>]+)", lambda tag: f"<{tag[1]}:{names.get(tag[2], tag[2])}", prompt)

    prompt, options = record["prompt"], record["options"]
    of_all = {"sd_lora": names[options["sd_lora"]]} if options.get("sd_lora") in names else {}
    return {"prompt": list(map(rename, prompt)) if isinstance(prompt, list) else rename(prompt), "options": options | of_all}


def with_control_networks(record: dict[str, Any], receipt: Receipt, search: Search) -> dict[str, Any]:
    """The record with renamed control networks under their current names."""
    names = {name: file.stem for name, sha256 in receipt.files.get("ControlNet", {}).items()
             if (file := search.find("ControlNet", name, sha256)) is not None}

    def renamed(value: Any) -> Any:
        if isinstance(value, list):
            return [renamed(each) for each in value]
        if not isinstance(value, dict):
            return value
        called = str(value.get("model")).partition(" [")[0]
        return {key: names[called] if key == "model" and called in names else renamed(inner) for key, inner in value.items()}

    return {"alwayson_scripts": renamed(record["alwayson_scripts"])}


# --- comparison

def verify(claim: Claim, p: StableDiffusionProcessingImg2Img, engine: Engine, client: Client = Client(),
           heartbeat: float | None = None) -> Iterator[Event | Verdict]:
    """Run a claim's request again: yields the job's events, and last the verdict. Closing it early cancels the job."""
    for event in engine.submit([p], client=client, mode=MODE).events(heartbeat):
        if isinstance(event, Failed):
            yield refusal(event.message)
        elif not isinstance(event, Finished):
            yield event
        elif (again := event.results[0].found) is None:
            yield refusal("running its request again did not produce this picture")
        else:
            yield compare(claim, again)


def refusal(why: object) -> Verdict:
    """The verdict for a picture that cannot be verified."""
    return Verdict(Status.UNVERIFIABLE, f"Cannot be verified: {str(why).rstrip('.')}.")


def compare(claim: Claim, again: Image.Image) -> Verdict:
    """The verdict on a claim whose picture, made again, is `again`."""
    now = read_receipt(again)
    if now.interrupted:
        return refusal("making it again was interrupted")
    changes = "; ".join(changed(claim.receipt, now))
    if now.pixels == claim.receipt.pixels:
        but = f", although this has changed: {changes}" if changes else ""
        return Verdict(Status.IDENTICAL, f"Identical: made again, it has the same pixels{but}.")
    why = "Nothing in its receipt has changed."
    if changes:
        why = f"Changed since then: {changes}."
    elif claim.receipt.request["options"].get("edit_reuse"):
        why = "It was made with edit reuse, so it depends on earlier edits."
    elif claim.receipt.request["options"].get("compile_networks"):
        why = "It was made with compiled networks, so it depends on what had been compiled by then."
    return Verdict(Status.DIFFERENT, f"Different: made again, {distance(claim.image, again)}. {why}")


def distance(then: Image.Image, now: Image.Image) -> str:
    """A sentence part on how much two pictures differ."""
    if (then.mode, then.size) != (now.mode, now.size):
        return f"it is {now.width}x{now.height} {now.mode}, not {then.width}x{then.height} {then.mode}"
    apart = np.abs(np.asarray(then, dtype=np.int16) - np.asarray(now, dtype=np.int16)).reshape(then.width * then.height, -1)
    share, psnr = (apart.max(axis=1) > 0).mean(), 10 * np.log10(255**2 / np.square(apart, dtype=np.float64).mean())
    shown = f"{share:.2%}" if share >= 0.0001 else "less than 0.01%"
    return f"{shown} of its pixels differ, by at most {apart.max()} of 255 (PSNR {psnr:.1f} dB)"


def changed(then: Receipt, now: Receipt) -> Iterator[str]:
    """The differences between two receipts, a few words each."""
    versions = [("Palimpsest", then.program, now.program)]
    versions += [(name, then.packages.get(name), now.packages.get(name)) for name in then.packages | now.packages]
    for name, before, after in (*versions, ("device", then.device, now.device), ("precision", then.precision, now.precision)):
        if before != after:
            yield f"{name} {before} → {after}"
    yield from changed_files(then.files, now.files)


def changed_files(then: Files, now: Files) -> Iterator[str]:
    """The files whose content differs, whatever their names."""
    for kind, hashes in then.items():
        others = now.get(kind, {})
        for name, before in hashes.items():
            if before is None or before in others.values():
                continue
            after = others.get(name)
            yield f'{kind} "{name}" ' + (f"{before[:10]} → {after[:10]}" if after else f"{before[:10]} is missing")
