"""YOLOv8 and YOLO11, for boxes or segmentation, exported as ONNX and run by OpenCV."""

import cv2
import numpy as np

from pipeline.detectors import Find, within
from pipeline.detectors.onnx_header import Header
from pipeline.errors import ModelError
from pipeline.geometry import Size

USUAL = Size(640, 640)
"""The size that such networks are trained at."""
GREY = 114
"""Around a picture of another shape."""
OVERLAP = 0.7
"""Of two boxes of a class with more intersection over union than this, the better one counts."""
MOST = 300
"""Finds in a picture."""
CANDIDATES = 30_000
TABLE = {"face": ("face",), "hand": ("hand",), "person": ("person",)}
"""Classes by a word in the file's name, for files whose metadata do not name them."""


class Letterbox:
    """A picture fitted into the network's input without changing its shape, with grey around it."""

    def __init__(self, picture: Size, into: Size):
        self.picture, self.into = picture, into
        self.scale = min(into.width / picture.width, into.height / picture.height)
        self.fitted = Size(max(1, round(picture.width * self.scale)), max(1, round(picture.height * self.scale)))
        # half of an odd rest goes to the right and below
        self.left = round((into.width - self.fitted.width) / 2 - 0.1)
        self.top = round((into.height - self.fitted.height) / 2 - 0.1)

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 → (1, 3, into.height, into.width) in [0, 1]."""
        boxed = np.full((self.into.height, self.into.width, 3), GREY, np.uint8)
        inside = picture if self.fitted == self.picture else cv2.resize(picture, self.fitted, interpolation=cv2.INTER_LINEAR)
        boxed[self.top:self.top + self.fitted.height, self.left:self.left + self.fitted.width] = inside
        return np.ascontiguousarray(boxed.transpose(2, 0, 1)[None].astype(np.float32) / 255)

    def back(self, boxes: np.ndarray) -> np.ndarray:
        """(n, 4) corners in the network's input → in the picture."""
        return (boxes - np.array([self.left, self.top, self.left, self.top])) / self.scale

    def mask_back(self, logits: np.ndarray) -> np.ndarray:
        """(h, w) logits over the network's input, at any resolution → (h, w) uint8 over the picture, 255 where they are above 0."""
        whole = cv2.resize(logits, self.into, interpolation=cv2.INTER_LINEAR)
        inside = whole[self.top:self.top + self.fitted.height, self.left:self.left + self.fitted.width]
        return (cv2.resize(inside, self.picture, interpolation=cv2.INTER_LINEAR) > 0).astype(np.uint8) * 255


class Yolo:
    """A detector of ultralytics' layout: output (1, 4 + classes [+ coefficients], n), and (1, coefficients, h, w) for masks."""

    def __init__(self, content: bytes, header: Header, name: str):
        try:
            self._net = cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))
        except cv2.error as error:
            raise ModelError("OpenCV cannot run this network") from error
        self._size, self._segments = header.size or USUAL, len(header.outputs) > 1
        self._outputs = list(header.outputs)
        self.classes = self.classes_of(header, name)

    @staticmethod
    def classes_of(header: Header, name: str) -> tuple[str, ...]:
        """What it finds, as its metadata or a word in its name say."""
        return header.classes() or next((names for word, names in TABLE.items() if word in name.lower()), ())

    def find(self, picture: np.ndarray, confidence: float) -> list[Find]:
        height, width = picture.shape[:2]
        box = Letterbox(Size(width, height), self._size)
        try:
            self._net.setInput(box.apply(picture))
            outputs = [self._net.forward(self._outputs[0])] if not self._segments else list(self._net.forward(self._outputs))
        except cv2.error as error:
            raise ModelError("OpenCV cannot run this network; export it with a fixed size") from error
        protos = next((output[0] for output in outputs if output.ndim == 4), None)
        rows = next((output[0] for output in outputs if output.ndim == 3), None)
        coefficients = 0 if protos is None else protos.shape[0]
        if rows is None:
            raise ModelError("it has no output like YOLOv8's; export it without NMS")
        if rows.shape[0] < 5 + coefficients or (self.classes and rows.shape[0] != 4 + len(self.classes) + coefficients):
            raise ModelError(f"its output {'x'.join(map(str, rows.shape))} is not like YOLOv8's; export it without NMS")
        return found(rows, protos, box, confidence, self.classes)


def found(rows: np.ndarray, protos: np.ndarray | None, box: Letterbox, confidence: float, classes: tuple[str, ...]) -> list[Find]:
    """The finds in a network's output: rows (4 + classes + coefficients, n), boxes as centre and size; protos (coefficients, h, w)."""
    coefficients = 0 if protos is None else protos.shape[0]
    scores = rows[4:rows.shape[0] - coefficients]
    best, score = scores.argmax(0), scores.max(0)
    chosen = np.flatnonzero(score > confidence)
    chosen = chosen[np.argsort(-score[chosen], kind="stable")[:CANDIDATES]]
    centre, size = rows[:2, chosen].T, rows[2:4, chosen].T
    # OpenCV takes the upper left corner and the size
    kept = cv2.dnn.NMSBoxesBatched(np.hstack([centre - size / 2, size]).tolist(), score[chosen].tolist(), best[chosen].tolist(), 0.0, OVERLAP)
    kept = sorted(np.asarray(kept, int).ravel().tolist())[:MOST]
    corners = np.hstack([centre - size / 2, centre + size / 2])[kept].reshape(-1, 4)
    finds = []
    for index, place, inner in zip(chosen[kept], box.back(corners), corners):
        mask = None if protos is None else masked(rows[rows.shape[0] - coefficients:, index], protos, box, inner)
        if mask is not None and not mask.any():
            continue
        name = classes[best[index]] if best[index] < len(classes) else ""
        x1, y1, x2, y2 = within(tuple(place), *box.picture)
        if x1 < x2 and y1 < y2:  # not in the grey
            finds.append(Find((x1, y1, x2, y2), float(score[index]), name, mask))
    return finds


def masked(coefficients: np.ndarray, protos: np.ndarray, box: Letterbox, inner: np.ndarray) -> np.ndarray:
    """The mask of a find over the picture: its prototypes' weighted sum, inside its box `inner` in the network's input."""
    logits = np.tensordot(coefficients, protos, 1).astype(np.float32)
    mask = box.mask_back(logits)
    x1, y1, x2, y2 = np.round(box.back(inner[None])[0]).astype(int)
    inside = np.zeros_like(mask)
    part = slice(max(y1, 0), max(y2, 0)), slice(max(x1, 0), max(x2, 0))
    inside[part] = mask[part]
    return inside
