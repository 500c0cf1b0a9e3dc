"""The models folder: its checkpoints, VAEs, LoRAs and embeddings, and which of them a name means."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import InvalidRequest, ModelError, UnknownName
from pipeline.prompt_parser import in_a_tag
from pipeline.small_files import open_regular, read_json, reason
from pipeline.weights import PICKLES, PREVIEW_DECODER, refuse_pickle

FOLDERS = {  # A1111's names, and Forge's and ComfyUI's for text encoders, in the models folder
    "checkpoint": ("Stable-diffusion",),
    "VAE": ("VAE",),
    "text encoder": ("text_encoder", "text_encoders"),
    "LoRA": ("Lora", "LyCORIS"),
    "embedding": ("embeddings",),
    "ControlNet": ("ControlNet",),
    "CLIP vision": ("clip_vision",),
    "annotator": ("annotators",),
    "upscaler": ("ESRGAN", "RealESRGAN", "DAT"),
}
FIELDS = {"checkpoint": "sd_model_checkpoint", "VAE": "sd_vae", "text encoder": "sd_text_encoders", "LoRA": "prompt", "embedding": "prompt",
          "ControlNet": "alwayson_scripts", "CLIP vision": "alwayson_scripts", "annotator": "alwayson_scripts", "upscaler": "upscaler"}
"""The request's field that names each kind."""
MODULES = "forge_additional_modules"
"""Forge's option that names a model's VAE and text encoders in one list."""
SUFFIXES = (".safetensors", ".gguf", *PICKLES)
VAE_INFIX = ".vae"
"""A file called NAME.vae.safetensors is a VAE, even among checkpoints."""
EXTENSION = "extensions/sd-webui-controlnet/models"
"""Where A1111's extension keeps control networks too, in its installation."""
MARKERS = {"ControlNet": "config.json", "CLIP vision": "config.json", "annotator": "config.json"}
"""The file that makes a folder a model, where it is not WHOLE."""
WHOLE = "model_index.json"
NO_VAE = ("Automatic", "auto", "None", "")
"""Values of sd_vae and sd_text_encoders that do not name a file."""
HASHES = "palimpsest-hashes.json"
MAX_HASHES = 1 << 25
"""Bytes of the cache file."""
SHORT = 10
"""Hex digits of a SHA-256 that A1111 shows."""
BRACKETED = re.compile(r"(?P<name>.*\S)\s*\[(?P<digits>[0-9a-f]{8,64})\]", re.DOTALL)

Share = Callable[[float], None]
"""Called with the fraction done, 0 to 1."""


@dataclass(frozen=True)
class ModelFile:
    """A file, or a diffusers folder, with the names that A1111 gives it."""

    name: str
    """`rel` without its extension, each / a _."""
    rel: str
    """The path in its folder, with / and its extension; a longer path if two files of a kind share it."""
    path: Path
    sha256: str | None = None
    """None: not computed yet."""

    @property
    def stem(self) -> str:
        """The file's or folder's name, without extension."""
        return without_suffix(self.rel.rpartition("/")[2])

    @property
    def hash(self) -> str | None:
        return self.sha256 and self.sha256[:SHORT]

    @property
    def title(self) -> str:
        return f"{self.rel} [{self.hash}]" if self.sha256 else self.rel


def model_file(path: Path, rel: str) -> ModelFile:
    return ModelFile(without_suffix(rel).replace("/", "_"), rel, path)


def without_suffix(rel: str) -> str:
    """A path without its extension; a dot in a folder's name, as in v1.5, does not count."""
    stem, dot, suffix = rel.rpartition(".")
    return stem if dot + suffix.lower() in SUFFIXES else rel


class Catalog:
    """The contents of a models folder. Scanning reads only names and sizes; hashing reads a file.

    models_dir: a folder with A1111's subfolders, an A1111 installation, or a folder of checkpoints.
    cache: the JSON file of known hashes; None: one in the models folder.
    extra: checkpoints elsewhere. also: further folders of LoRAs and embeddings, listed after the models folder's.

    Symbolic links are followed, as people keep large files on other disks. A request cannot name a path: names are looked up
    among the files that the scan has found.
    """

    def __init__(self, models_dir: Path | str, *, cache: Path | None = None, extra: Iterable[Path] = (),
                 also: Iterable[Path] = ()):
        self.root, self._also = find_root(Path(models_dir)), tuple(also)
        self._hashes = HashCache(cache or self.root / HASHES)
        self._extra: list[ModelFile] = []
        self._found: dict[str, list[ModelFile]] = {}
        self._meant: dict[str, dict[str, ModelFile]] = {}
        """By kind: name (without a hash) → file."""
        self.refresh()
        for path in extra:
            self.add(path)

    def refresh(self) -> None:
        """Scan the folders again."""
        self._found = scan(self.root)
        for folder in self._also:
            more = scan(folder)
            for kind in ("LoRA", "embedding"):
                self._found[kind] = [*self._found[kind], *more[kind]]
        self._meant = {}

    def add(self, path: Path, rel: str | None = None) -> ModelFile:
        """List a checkpoint from elsewhere and return its entry; one already listed keeps its entry."""
        listed = next((file for file in self.all("checkpoint") if same_file(file.path, path)), None)
        if listed is None:
            listed = model_file(path, rel or path.absolute().name)
            self._extra.append(listed)
            self._meant = {}
        return self.hashed(listed)

    def all(self, kind: str) -> list[ModelFile]:
        """All files of a kind in FOLDERS, pickles too."""
        return told_apart([*self._found[kind], *(self._extra if kind == "checkpoint" else ())])

    def find(self, kind: str, text: str) -> ModelFile:
        """The file of a kind in FOLDERS by any of its names. Raises UnknownName, or ModelError for a pickle."""
        return self._find(kind, text)

    def checkpoints(self) -> list[ModelFile]:
        return self._listed("checkpoint")

    def vaes(self) -> list[ModelFile]:
        return self._listed("VAE")

    def text_encoders(self) -> list[ModelFile]:
        return self._listed("text encoder")

    def loras(self) -> list[ModelFile]:
        return self._listed("LoRA")

    def embeddings(self) -> list[ModelFile]:
        return self._listed("embedding")

    def control_networks(self) -> list[ModelFile]:
        return self._listed("ControlNet")

    def clip_vision(self) -> list[ModelFile]:
        return self._listed("CLIP vision")

    def annotators(self) -> list[ModelFile]:
        return self._listed("annotator")

    def upscalers(self) -> list[ModelFile]:
        return self._listed("upscaler")

    def embedding_paths(self) -> list[Path]:
        """All embedding files, including pickles, so that naming one gives a helpful message."""
        return [file.path for file in self.all("embedding")]

    def pickles(self, kind: str) -> list[ModelFile]:
        """Files of a kind in FOLDERS that are not used, because unpickling can run code."""
        return [file for file in self.all(kind) if is_pickle(file.path)]

    def find_checkpoint(self, text: str) -> ModelFile:
        """The checkpoint A1111 finds for a title, name, file name or hash. Raises UnknownName, or ModelError for a pickle."""
        return self._find("checkpoint", text)

    def has_checkpoint(self, text: str) -> bool:
        """Whether find_checkpoint() finds one."""
        try:
            return bool(text) and self.find_checkpoint(text) is not None
        except (UnknownName, ModelError):
            return False

    def find_vae(self, text: str) -> ModelFile:
        """The VAE of that file name, with or without extension. Raises UnknownName, or ModelError for a pickle."""
        return self._find("VAE", text)

    def find_text_encoders(self, text: str) -> list[ModelFile]:
        """The text encoders of those file names, separated by commas; none for Automatic. Raises as find_vae() does."""
        return [] if text in NO_VAE else [self._find("text encoder", name.strip()) for name in text.split(",")]

    def find_files(self, option: str, text: str) -> object:
        """What the option of that name, sd_vae or sd_text_encoders, means by `text`. Raises as find_vae() does."""
        return self.find_vae(text) if option == "sd_vae" else self.find_text_encoders(text)

    def modules(self, names: object) -> dict[str, str]:
        """sd_vae and sd_text_encoders for Forge's list of the files that complete a model. Of a path only the last name counts.

        Raises InvalidRequest, UnknownName, and ModelError for a pickle.
        """
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InvalidRequest(MODULES, f"{MODULES} must be a list of names, got {names!r}")
        found = {"VAE": [], "text encoder": []}
        for name in names:
            kind, file = self._module(name)
            found[kind].append(file.rel)
        if len(found["VAE"]) > 1:
            raise InvalidRequest(MODULES, f"{MODULES} takes one VAE, got {' and '.join(found['VAE'])}")
        return {"sd_vae": found["VAE"][0] if found["VAE"] else "Automatic", "sd_text_encoders": ", ".join(found["text encoder"]) or "Automatic"}

    def _module(self, text: str) -> tuple[str, ModelFile]:
        name = text.replace("\\", "/").rpartition("/")[2]
        for kind in ("VAE", "text encoder"):
            with suppress(UnknownName):
                return kind, self._find(kind, name)
        raise UnknownName(MODULES, "VAE or text encoder", text, [file.rel for file in (*self.vaes(), *self.text_encoders())])

    def find_lora(self, name: str) -> ModelFile:
        """The LoRA of that file name, with or without extension. Raises UnknownName, or ModelError for a pickle."""
        return self._find("LoRA", name)

    def find_control_network(self, text: str) -> ModelFile:
        """The control network of that name, or the one with the shortest name that holds it. Raises UnknownName, or ModelError for a pickle."""
        try:
            return self._find("ControlNet", text)
        except UnknownName:
            # extension: part of a name is enough, such as openpose
            holding = [file for file in self.control_networks() if text.strip().lower() in file.stem.lower()]
            if not text.strip() or not holding:
                raise
            return self.at_hand("ControlNet", min(holding, key=lambda file: len(file.stem)))

    def control_network_names(self) -> list[tuple[str, ModelFile]]:
        """The control networks as the extension lists them: each with its short hash."""
        return [(titled(file), file) for file in self.control_networks()]

    def vae_beside(self, checkpoint: ModelFile) -> ModelFile | None:
        """The VAE that "Automatic" picks for a checkpoint, or None."""
        # A1111: the first whose name begins with the checkpoint's, so m-2.vae.safetensors serves m as well
        beside = next((file for file in self.vaes() if file.path.name.startswith(checkpoint.stem)), None)
        return beside and self.at_hand("VAE", beside)

    def at_hand(self, kind: str, file: ModelFile) -> ModelFile:
        """The file, which is about to be read."""
        return file

    def lora_index(self) -> dict[str, ModelFile]:
        """All names of LoRAs, with the file each one means."""
        return index(self.loras())

    def vae_names(self) -> list[tuple[str, ModelFile]]:
        """The VAEs under the names shown in menus and lists, each of which finds its file."""
        files = self.vaes()
        return list(zip(offered(files, lambda file: (file.path.name, file.rel), taken=NO_VAE), files))

    def text_encoder_names(self) -> list[str]:
        """The same for text encoders."""
        return offered(self.text_encoders(), lambda file: (file.path.name, file.rel), taken=NO_VAE)

    def hashed(self, file: ModelFile) -> ModelFile:
        """The entry with its hash if that is cached; reads no file."""
        return replace(file, sha256=self._hashes.known(file.path))

    def sha256(self, file: ModelFile, progress: Share | None = None) -> str:
        """The SHA-256 of a file, or of the weights in a diffusers folder; computed unless cached."""
        return self._hashes.get(file.path, progress)

    def hash_of(self, path: Path) -> str:
        """The same for a path."""
        return self._hashes.get(path)

    def _listed(self, kind: str) -> list[ModelFile]:
        return [self.hashed(file) for file in self.all(kind) if not is_pickle(file.path)]

    def _by_name(self, kind: str) -> dict[str, ModelFile]:
        """The first match for each name, cached: a prompt may name a thousand files."""
        meant = self._meant  # refresh() on another thread replaces it
        if kind not in meant:
            meant[kind] = index([file for file in self.all(kind) if not is_pickle(file.path)])
        return meant[kind]

    def _find(self, kind: str, text: str) -> ModelFile:
        if not text.endswith("]") and (file := self._by_name(kind).get(text)) is not None:
            return self.at_hand(kind, self.hashed(file))
        files = self._listed(kind)
        if (found := match(files, text)) is not None:
            return self.at_hand(kind, found)
        if (pickle := match(self.pickles(kind), text)) is not None:
            refuse_pickle(pickle.path)
        raise UnknownName(FIELDS[kind], kind, text, [file.rel for file in files])


# --- scanning

def find_root(models_dir: Path) -> Path:
    """The folder with A1111's subfolders: `models_dir`, or its models/ if it is an A1111 installation."""
    inside = models_dir / "models"
    own, its = ((folder / "Stable-diffusion").is_dir() for folder in (models_dir, inside))
    return inside if its and not own else models_dir


def scan(root: Path) -> dict[str, list[ModelFile]]:
    """All model files by kind, each kind in A1111's order."""
    found = {kind: [file for name in names for file in walk(root / name, marker=MARKERS.get(kind, WHOLE))] for kind, names in FOLDERS.items()}
    if (root / "Stable-diffusion").is_dir():
        found["ControlNet"] += walk(root.parent / EXTENSION, marker=MARKERS["ControlNet"])
        found["embedding"] += walk(root.parent / "embeddings")  # A1111 keeps them beside its models folder
    reserved = {name for names in FOLDERS.values() for name in names}
    found["checkpoint"] += [file for file in walk(root, depth=1) if file.rel not in reserved]
    for file in [file for file in found["checkpoint"] if VAE_INFIX in Path(file.rel).suffixes[:-1]]:
        found["checkpoint"].remove(file)
        found["VAE"].append(file)
    return {kind: sorted(files, key=lambda file: natural(file.rel)) for kind, files in found.items()}


def walk(folder: Path, depth: int | None = None, marker: str = WHOLE) -> Iterator[ModelFile]:
    """The model files and diffusers folders in a folder and its subfolders to that depth; symbolic links are followed.

    marker: the file that makes a folder a model.
    """
    seen = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith(".") and is_text(name)]
        if real in seen:
            continue
        seen.add(real)
        inside = Path(here)
        for name in [name for name in folders if (inside / name / marker).is_file()]:
            folders.remove(name)
            files.append(name)
        for path in (inside / name for name in files if not name.startswith(".") and is_text(name)):
            if path.is_dir() or (path.suffix.lower() in SUFFIXES and path.is_file()):
                yield model_file(path, path.relative_to(folder).as_posix())
        if depth is not None and len(inside.relative_to(folder).parts) + 1 >= depth:
            folders.clear()


def is_text(name: str) -> bool:
    """Whether a request could name the file: a name that is not UTF-8 on disk holds lone surrogates here."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def natural(text: str) -> list:
    """A sort key that puts model2 before model10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text.lower()) if part]


def is_pickle(path: Path) -> bool:
    return path.suffix.lower() in PICKLES and not path.is_dir()


def same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


# --- looking up names

def told_apart(files: list[ModelFile]) -> list[ModelFile]:
    """The files with distinct `rel`: a repeated one gets its root folder's name in front, as LyCORIS/style.safetensors, or else
    becomes the whole path."""
    taken, apart = {file.rel for file in files}, []
    if len(taken) == len(files):
        return files
    first: set[str] = set()
    for file in files:
        if file.rel in first:
            whole = file.path.absolute().as_posix()
            longer = f"{whole.removesuffix(file.rel).rstrip('/').rpartition('/')[2]}/{file.rel}"
            file = model_file(file.path, whole if longer in taken else longer)
        taken.add(file.rel)
        first.add(file.rel)
        apart.append(file)
    return apart


def offered(files: list[ModelFile], names_of: Callable[[ModelFile], Iterable[str]], taken: Iterable[str] = ()) -> list[str]:
    """For each file the first of its names that `match` resolves to it, or else its whole path.

    taken: names that mean something else.
    """
    meant = index(files)
    return [next((name for name in names_of(file) if meant.get(name) is file and name not in taken),
                 file.path.absolute().as_posix()) for file in files]


def index(files: list[ModelFile]) -> dict[str, ModelFile]:
    """All names that `match` knows, with the file each one means."""
    meant: dict[str, ModelFile] = {}
    for found in (lambda file: (file.title, file.rel), names):
        for file in files:
            for name in found(file):
                meant.setdefault(name, file)
    return meant


def match(files: list[ModelFile], text: str) -> ModelFile | None:
    """The file whose title, path, name or hash is `text`: first as written, then cleaned up; the most specific match wins."""
    spellings = dict.fromkeys((text, text.replace("\\", "/"), text.strip().replace("\\", "/")))
    return next((found for spelling in spellings if (found := match_exactly(files, spelling)) is not None), None) \
        or next((file for file in files if text.strip() in map(str.strip, names(file))), None)


def match_exactly(files: list[ModelFile], text: str) -> ModelFile | None:
    """The file that `text` names in this spelling, by the most specific kind of name."""
    bracketed = BRACKETED.fullmatch(text)
    tests: list[Callable[[ModelFile], bool]] = [
        lambda file: text in (file.title, file.rel),
        lambda file: text in names(file),
        lambda file: len(text) >= SHORT and file.sha256 is not None and file.sha256.startswith(text),
        lambda file: re.fullmatch("[0-9a-f]{8}", text) is not None and old_hash(file.path) == text,
        lambda file: bracketed is not None and bracketed["name"] in names(file) and may_be(file, bracketed["digits"]),
    ]
    return next((file for test in tests for file in files if test(file)), None)


def names(file: ModelFile) -> tuple[str, ...]:
    bare = without_suffix(file.rel)
    return (file.rel, file.name, bare, file.stem, file.path.name, file.path.absolute().as_posix(),
            *map(in_a_tag, (file.rel, bare, file.stem)))


def may_be(file: ModelFile, digits: str) -> bool:
    """Whether a hash, of either of A1111's kinds, is the file's. True if the hash is not known yet."""
    return file.sha256 is None or file.sha256.startswith(digits) or old_hash(file.path) == digits


def titled(file: ModelFile) -> str:
    """A control network's name in the extension's form, such as "canny [d14c016b]"."""
    digits = old_hash(file.path)
    return f"{file.stem} [{digits}]" if digits else file.stem


def old_hash(path: Path) -> str | None:
    """A1111's first kind of hash: 8 hex digits over the 64 KiB at offset 1 MiB. None for a folder."""
    try:
        with open_regular(path) as file:
            file.seek(0x100000)
            return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]
    except OSError:
        return None


# --- hashes

class HashCache:
    """SHA-256 by path, valid while size and modification time are unchanged, kept in a JSON file."""

    def __init__(self, file: Path):
        self._file = file
        self._entries: dict[str, list] = read_entries(file)

    def known(self, path: Path) -> str | None:
        """The hash, if it is cached and still valid."""
        entry = self._entries.get(str(path.absolute()))
        return entry[2] if entry and tuple(entry[:2]) == stamp(path) else None

    def get(self, path: Path, progress: Share | None = None) -> str:
        """The hash, computed if necessary. Raises ModelError."""
        known = self.known(path)
        if known is None:
            before = stamp(path)
            try:
                known = digest(path, progress or (lambda share: None))
            except OSError as error:
                raise ModelError(f'"{path.name}" cannot be read: {reason(error)}') from error
            self._entries = self._entries | {str(path.absolute()): [*before, known]}
            self._save()
        return known

    def _save(self) -> None:
        """Write the file atomically; if it cannot be written, the hashes live as long as this object."""
        draft = self._file.with_name(f"{self._file.name}.{os.getpid()}.tmp")
        with suppress(OSError):
            draft.write_text(json.dumps(self._entries, indent=0), "utf-8")
            os.replace(draft, self._file)
        with suppress(OSError):
            draft.unlink()


def read_entries(file: Path) -> dict[str, list]:
    """The entries of a hash file; invalid ones are dropped."""
    try:
        entries = read_json(file, MAX_HASHES) or {}
    except ModelError:
        return {}
    return {path: entry for path, entry in entries.items() if is_entry(entry)}


def is_entry(entry: object) -> bool:
    return isinstance(entry, list) and [type(part) for part in entry] == [int, int, str] \
        and re.fullmatch("[0-9a-f]{64}", entry[2]) is not None


def weight_files(path: Path) -> list[Path]:
    """The file itself, or the weight files of a diffusers folder, sorted by name."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*.safetensors") if PREVIEW_DECODER not in file.relative_to(path).parts)


def stamp(path: Path) -> tuple[int, int] | None:
    """(bytes, modification time in ns) of what `digest` reads; None if it is not accessible."""
    try:
        stats = [file.stat() for file in weight_files(path)]
    except OSError:
        return None
    return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)


def digest(path: Path, progress: Share) -> str:
    """The SHA-256 of all weight files, concatenated."""
    files, sha256, done = weight_files(path), hashlib.sha256(), 0
    total = sum(file.stat().st_size for file in files) or 1
    for file in files:
        with open_regular(file) as stream:
            while block := stream.read(1 << 24):
                sha256.update(block)
                done += len(block)
                progress(done / total)
    return sha256.hexdigest()
