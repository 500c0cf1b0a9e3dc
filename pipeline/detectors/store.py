"""The detectors in a folder: their names, which of them a name means, and the last few in memory."""

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import torch

from pipeline.detectors import Detector, Find
from pipeline.detectors.detr import CONFIG, Detr, named_classes
from pipeline.detectors.onnx_header import Header, read_header
from pipeline.detectors.yolo import Yolo
from pipeline.detectors.yunet import OUTPUTS, YuNet
from pipeline.errors import InvalidRequest, ModelError
from pipeline.models import natural
from pipeline.small_files import read_bytes, read_json, reason
from pipeline.weights import PICKLES

FOLDER = "adetailer"
"""In the models folder, as the extension calls it."""
ONNX = ".onnx"
MOST_BYTES = 1 << 29
"""Of an ONNX file; the largest YOLOv8 has 270 MB."""
KEEP = 3
SUBJECTS = {"face": ("face", "mediapipe"), "hand": ("hand",), "person": ("person",), "": ("world",)}
"""What the extension's own names find → words in them."""
EXTENSIONS_NAMES = (
    "face_yolov8n.pt", "face_yolov8s.pt", "hand_yolov8n.pt", "person_yolov8n-seg.pt", "person_yolov8s-seg.pt", "yolov8x-worldv2.pt",
    "mediapipe_face_full", "mediapipe_face_short", "mediapipe_face_mesh")
"""Names that clients send without asking what there is; another detector of the same kind stands in."""
FACES = "face_detection_yunet_2023mar.onnx"
"""The file that finds faces; OpenCV's model zoo has it under the MIT licence."""
HOW = (f"Put {FACES} of OpenCV's model zoo for faces, a YOLOv8 as .onnx, or a folder of a DETR, RT-DETR or YOLOS with .safetensors "
       f"into models/{FOLDER}")


@dataclass(frozen=True)
class DetectorFile:
    """A detector in the folder."""

    name: str
    """With its extension, as the extension lists it; a folder's is its own."""
    path: Path

    @property
    def stem(self) -> str:
        return self.name.removesuffix(ONNX)

    @property
    def weights(self) -> Path:
        """The file that tells one version from another."""
        return self.path if self.path.is_file() else next(iter(sorted(self.path.glob("*.safetensors"))), self.path / CONFIG)


class Detectors:
    """The detectors of a folder. Any thread may use them; they take turns, on the processor.

    sha256: a file's hash, None if unknown.
    """

    def __init__(self, folder: Path | None = None, sha256: Callable[[Path], str | None] = lambda path: None):
        self._folder, self._hash = folder, sha256
        self._loaded: OrderedDict[tuple, Detector] = OrderedDict()
        self._told: dict[str, tuple[tuple, tuple[str, ...]]] = {}
        """By name: (the file's state, its classes)."""
        self._lock = Lock()

    def files(self) -> list[DetectorFile]:
        """All that can be used."""
        return [DetectorFile(path.name, path) for path in self._entries()
                if (path.suffix.lower() == ONNX and path.is_file()) or (path / CONFIG).is_file()]

    def pickles(self) -> list[str]:
        """Names of files that are not read, since reading a pickle can run code."""
        return [path.name for path in self._entries() if path.suffix.lower() in PICKLES and path.is_file()]

    def names(self) -> list[str]:
        return [file.name for file in self.files()]

    def names_for_clients(self) -> list[str]:
        """The same, and before them the extension's own names that mean one of them, as clients look for these."""
        files = self.files()
        known = {file.stem for file in files}
        means = [name for name in EXTENSIONS_NAMES if without_suffix(name) in known or self._stand_in(files, name) is not None]
        return [*means, *(file.name for file in files)]

    def find(self, name: str) -> DetectorFile:
        """The detector that a name means, with any extension; for the extension's own names, another that finds the same.

        Raises InvalidRequest, whose sentence says what to put where.
        """
        files, wanted = self.files(), name.strip()
        bare = without_suffix(wanted)
        same = next((file for file in files if file.name == wanted), None) or next((file for file in files if file.stem.lower() == bare.lower()), None)
        if same is not None:
            return same
        if wanted in EXTENSIONS_NAMES and (other := self._stand_in(files, wanted)) is not None:
            return other
        if wanted in self.pickles():
            raise InvalidRequest("ad_model", f'ad_model: "{wanted}" is a pickle, which can run code when it is read. Export it once, where '
                                             f"ultralytics is installed, with: yolo export model={wanted} format=onnx; then put {bare}{ONNX} "
                                             f"into models/{FOLDER}")
        known = f"there is {', '.join(file.name for file in files)}" if files else "there is none yet"
        raise InvalidRequest("ad_model", f'ad_model: no detector called "{wanted}"; {known}. {HOW}')

    def detect(self, file: DetectorFile, picture: np.ndarray, confidence: float) -> list[Find]:
        """What a detector finds in (h, w, 3) uint8 RGB. Raises ModelError."""
        with self._lock:
            try:
                return self._load(file).find(picture, confidence)
            except ModelError as error:
                raise ModelError(f'detector "{file.name}" cannot be used: {error}') from error

    def classes(self, file: DetectorFile) -> tuple[str, ...]:
        """What a detector can find, without loading it; empty if it does not say."""
        state = stamp_of(file)
        if self._told.get(file.name, (None,))[0] != state:
            self._told[file.name] = state, classes_told(file)
        return self._told[file.name][1]

    def sha256(self, file: DetectorFile) -> str | None:
        return self._hash(file.weights)

    def release(self) -> None:
        """Drop all from memory."""
        with self._lock:
            self._loaded.clear()

    def _entries(self) -> list[Path]:
        if self._folder is None or not self._folder.is_dir():
            return []
        return sorted((Path(entry.path) for entry in os.scandir(self._folder) if not entry.name.startswith(".")), key=lambda path: natural(path.name))

    def _stand_in(self, files: list[DetectorFile], name: str) -> DetectorFile | None:
        """A detector for what a name of the extension finds: one that says so in its name, else one that has it among its classes."""
        subject = next(subject for subject, words in SUBJECTS.items() if any(word in name for word in words))
        if not subject:
            return None
        named = [file for file in files if subject in file.name.lower()]
        return next(iter(named), None) or next((file for file in files if subject in self.classes(file)), None)

    @torch.inference_mode(False)  # called in the middle of a job
    def _load(self, file: DetectorFile) -> Detector:
        key = stamp_of(file)
        detector = self._loaded.get(key)
        if detector is None:
            while len(self._loaded) >= KEEP:
                self._loaded.popitem(last=False)
            detector = self._loaded[key] = read_detector(file)
        self._loaded.move_to_end(key)
        return detector


def stamp_of(file: DetectorFile) -> tuple[str, int | None]:
    """What changes with a detector's content."""
    try:
        return str(file.path), file.weights.stat().st_mtime_ns
    except OSError:
        return str(file.path), None


def classes_told(file: DetectorFile) -> tuple[str, ...]:
    """The classes that a file or folder names itself; empty if there are none, or it cannot be read."""
    try:
        if file.path.is_dir():
            return named_classes(read_json(file.path / CONFIG) or {})
        _, header = opened(file)
        return kind_of(header).classes_of(header, file.name)
    except ModelError:
        return ()


def opened(file: DetectorFile) -> tuple[bytes, Header]:
    """An ONNX file's content and header. Raises ModelError."""
    try:
        content = read_bytes(file.path, MOST_BYTES)
    except OSError as error:
        raise ModelError(reason(error)) from error
    return content, read_header(content)


def read_detector(file: DetectorFile) -> Detector:
    """The detector of a file or folder, recognised by its content. Raises ModelError."""
    if file.path.is_dir():
        return Detr(file.path)
    content, header = opened(file)
    return kind_of(header)(content, header, file.name)


def kind_of(header: Header) -> type[YuNet] | type[Yolo]:
    return YuNet if OUTPUTS <= set(header.outputs) else Yolo


def without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in (*PICKLES, ONNX) else name
