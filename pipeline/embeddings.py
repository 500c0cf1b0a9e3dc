"""Textual inversion: files of learned word vectors, and where a prompt names them."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import ModelError
from pipeline.small_files import shortened
from pipeline.weights import Weights

MAX_VECTORS = 75
"""Per chunk of a prompt."""
MAX_BYTES = 1 << 24
"""Per file: 75 vectors for both encoders of SDXL take 0.6 MB, twice that if a trainer keeps output vectors."""
MAX_FACT = 200
"""Characters kept of a file's training facts."""
OUTPUT = "_out"
"""Suffix of the vectors that OneTrainer trains for a text encoder's output; A1111 does not use them."""
SOLE = ""
"""Key for a model's only text encoder, whichever it is."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """The vectors that replace a word of the prompt."""

    name: str
    vectors: Mapping[str, Tensor]
    """By text encoder: {"clip_l": (n, width), "clip_g": (n, width)}, or {SOLE: (n, width)}."""
    hash: str = ""
    """SHA-256 in hex of the file, or of the pickle it was converted from."""
    step: int | None = None
    """Steps that it was trained for."""
    sd_checkpoint: str | None = None
    """Hash of the checkpoint it was trained on."""
    sd_checkpoint_name: str | None = None
    network: str | None = None
    """The name of the network file that bundles it."""

    @property
    def short_hash(self) -> str:
        """Its hash in infotext."""
        # A1111: one bundled in a network file goes by that file's name
        return self.hash[:12] if self.network is None else self.network

    @property
    def count(self) -> int:
        """Tokens it takes up in a prompt."""
        return next(iter(self.vectors.values())).shape[0]

    @property
    def width(self) -> int:
        """Numbers per vector, summed over the text encoders."""
        return sum(tensor.shape[1] for tensor in self.vectors.values())

    def vectors_for(self, encoder: str) -> Tensor:
        """(n, width) for one text encoder of a model that it fits."""
        return self.vectors[encoder if encoder in self.vectors else SOLE]

    def fits(self, widths: Mapping[str, int]) -> bool:
        """Whether a model with text encoders of these widths can use it."""
        own = {encoder: tensor.shape[1] for encoder, tensor in self.vectors.items()}
        return own == widths or len(widths) == 1 and own == {SOLE: sum(widths.values())}


def read_embedding(path: Path) -> Embedding:
    """The embedding in a safetensors file, named after the file. Raises ModelError with one sentence."""
    weights = Weights(path)
    if weights.size > MAX_BYTES:
        raise ModelError(f'"{path.name}" is not a textual inversion embedding: it has {weights.size} bytes, at most {MAX_BYTES} are read')
    facts = weights.metadata
    source = facts.get("source_sha256", "")
    return Embedding(
        path.stem, read_vectors(path.name, weights),
        hash=source if re.fullmatch(r"[0-9a-f]{64}", source) else weights.sha256(),
        step=int(facts["step"]) if re.fullmatch(r"[0-9]{1,18}", facts.get("step", "")) else None,
        sd_checkpoint=fact(facts, "sd_checkpoint"), sd_checkpoint_name=fact(facts, "sd_checkpoint_name"))


def fact(facts: Mapping[str, str], key: str) -> str | None:
    return shortened(facts[key], MAX_FACT) if key in facts else None


def read_vectors(label: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Embedding.vectors, from `clip_l` and `clip_g` (SDXL) or from a file's only tensor, whatever its name.

    Output vectors (`NAME_out` beside `NAME`) are left out. Raises ModelError with `label` in its sentence.
    """
    tensors = {name: tensor for name, tensor in tensors.items()
               if not (name.endswith(OUTPUT) and name.removesuffix(OUTPUT) in tensors)}
    if {"clip_l", "clip_g"} <= set(tensors):
        found = {"clip_l": tensors["clip_l"], "clip_g": tensors["clip_g"]}
    elif len(tensors) == 1:
        found = {SOLE: next(iter(tensors.values()))}
    else:
        raise ModelError(f'"{label}" is not a textual inversion embedding: it must hold one tensor, or clip_l and clip_g; '
                         f"it holds {len(tensors)}")
    vectors = {encoder: checked_vectors(label, tensor) for encoder, tensor in found.items()}
    if len({tensor.shape[0] for tensor in vectors.values()}) > 1:
        raise ModelError(f'"{label}" is damaged: clip_l and clip_g hold different numbers of vectors')
    return vectors


def checked_vectors(label: str, tensor: Tensor) -> Tensor:
    """A tensor of shape (width,) or (n, width) as a float32 copy of shape (n, width). Raises ModelError."""
    if tensor.ndim not in (1, 2) or not tensor.is_floating_point() or not 1 <= len(torch.atleast_2d(tensor)) <= MAX_VECTORS:
        raise ModelError(f'"{label}" is not a textual inversion embedding: it must hold 1 to {MAX_VECTORS} vectors, '
                         f"it holds {str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}")
    if not torch.isfinite(tensor.float()).all():
        raise ModelError(f'"{label}" is damaged: its vectors hold NaN or infinity')
    return torch.atleast_2d(tensor).to(torch.float32, copy=True)


class EmbeddingTable:
    """The embeddings that a model can use, found in a prompt by the token ids of their names."""

    def __init__(self, embeddings: Iterable[Embedding] = (), skipped: Mapping[str, str] | None = None,
                 encode: Callable[[list[str]], list[list[int]]] = lambda names: [[] for _ in names]):
        """skipped: by name, why an embedding that exists cannot be used. encode: names → token ids."""
        self.embeddings = {embedding.name: embedding for embedding in embeddings}
        self.skipped = {name: why for name, why in (skipped or {}).items() if name not in self.embeddings}
        self.key = tuple((embedding.name, embedding.hash, embedding.network) for embedding in self.embeddings.values())
        """Equal keys encode prompts equally."""
        self._by_first: dict[int, list[tuple[list[int], Embedding]]] = {}  # longest first
        for ids, embedding in zip(encode(list(self.embeddings)), self.embeddings.values()):
            if ids:
                self._by_first.setdefault(ids[0], []).append((ids, embedding))
        for entries in self._by_first.values():
            entries.sort(key=lambda entry: len(entry[0]), reverse=True)
        self._skipped_ids = dict(zip(self.skipped, encode(list(self.skipped))))

    def split(self, tokens: list[int]) -> Iterator[tuple[int, Embedding | None]]:
        """Each token alone; at an embedding's name, its first token and the embedding. The longest name wins."""
        position = 0
        while position < len(tokens):
            ids, embedding = next((entry for entry in self._by_first.get(tokens[position], ())
                                   if tokens[position:position + len(entry[0])] == entry[0]), ([0], None))
            yield tokens[position], embedding
            position += len(ids)

    def missed(self, tokens: list[int]) -> list[str]:
        """A sentence for each embedding named in `tokens` that cannot be used."""
        return [self.skipped[name] for name, ids in self._skipped_ids.items()
                if ids and any(tokens[start:start + len(ids)] == ids for start in range(len(tokens) - len(ids) + 1))]


class EmbeddingShelf:
    """All embedding files, each read when first needed and again when it changes.

    files: lists their paths; pickles among them are not read, but using one in a prompt gives a sentence.
    """

    def __init__(self, files: Callable[[], Iterable[Path]] = tuple):
        self._files = files
        self._read: dict[tuple, Embedding | str] = {}
        """By path, size and modification time: the embedding, or why it cannot be used."""
        self._widths: dict[str, int] | None = None

    def offer(self, encoders: list, bundled: Iterable[Embedding] = ()) -> None:
        """Let the text encoders of a model (its family's `text_encoders`) use the embeddings that fit it.

        Call it before each job; it is cheap while no file changes. bundled: more embeddings; a file of the same name
        takes precedence.
        """
        encoders = [encoder for encoder in encoders if encoder.embeddings is not None]
        self._widths = {encoder.name: encoder.width for encoder in encoders}
        fitting, skipped = self.known()
        fitting = {embedding.name: embedding for embedding in bundled if embedding.fits(self._widths)} | fitting
        for encoder in encoders:
            if (encoder.embeddings.embeddings, encoder.embeddings.skipped) != (fitting, skipped):
                encoder.embeddings = EmbeddingTable(fitting.values(), skipped, encoder.tokens.encode)

    def known(self) -> tuple[dict[str, Embedding], dict[str, str]]:
        """By name: the embeddings that the model of the last offer() can use, and a sentence on each that it cannot.

        Before the first offer(): all that can be read.
        """
        fitting, skipped = {}, {}
        for name, entry in self._entries().items():
            if isinstance(entry, str):
                skipped[name] = entry
            elif self._widths is None or entry.fits(self._widths):
                fitting[name] = entry
            else:
                skipped[name] = (f'The embedding "{name}" was not used: its vectors have {entry.width} numbers, '
                                 f"this model takes {' + '.join(map(str, self._widths.values()))}")
        return fitting, skipped

    def _entries(self) -> dict[str, Embedding | str]:
        """By name. Of two files of one name the later counts, but a readable one before an unreadable one."""
        read = {}
        for path in self._files():
            try:
                stat = path.stat()
            except OSError:
                continue  # deleted since the folder was listed
            key = (path, stat.st_size, stat.st_mtime_ns)
            read[key] = self._read.get(key) or try_to_read(path)
        self._read = read
        entries = {}
        for (path, *_), entry in read.items():
            if not isinstance(entry, str) or path.stem not in entries:
                entries[path.stem] = entry
        return entries


def try_to_read(path: Path) -> Embedding | str:
    """The embedding in a file, or a sentence on why it cannot be used."""
    try:
        return read_embedding(path)
    except ModelError as error:
        return f'The embedding "{path.stem}" was not used: {error}'


def ti_hashes(calls: Iterable[Iterable[Embedding]]) -> str | None:
    """Infotext's value for the embeddings used in each encoding, the latest encoding first; None if there are none."""
    hashes = {}
    for used in calls:
        hashes = {embedding.name: embedding.short_hash for embedding in used} | hashes
    return ", ".join(f"{name.replace(':', '').replace(',', '')}: {digest}" for name, digest in hashes.items()) or None
