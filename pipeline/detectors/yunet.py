"""YuNet, a small network that finds faces, run by OpenCV's FaceDetectorYN."""

import cv2
import numpy as np

from pipeline.detectors import Find, within
from pipeline.detectors.onnx_header import Header
from pipeline.errors import ModelError

OUTPUTS = frozenset(f"{what}_{stride}" for what in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32))
"""By which its files are recognised."""
LONGEST = 640
"""Pixels of the longer side that it sees; it misses faces of more than half of that, so larger pictures are reduced."""
OVERLAP = 0.3
MOST = 5000


class YuNet:
    """A detector of faces."""

    classes = ("face",)

    def __init__(self, content: bytes, header: Header, name: str):
        self._content = np.frombuffer(content, np.uint8)
        self._net = None

    @classmethod
    def classes_of(cls, header: Header, name: str) -> tuple[str, ...]:
        return cls.classes

    def find(self, picture: np.ndarray, confidence: float) -> list[Find]:
        height, width = picture.shape[:2]
        scale = min(1.0, LONGEST / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        seen = picture if scale == 1 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        try:
            if self._net is None:
                self._net = cv2.FaceDetectorYN.create("onnx", self._content, np.empty(0, np.uint8), size, confidence, OVERLAP, MOST)
            self._net.setInputSize(size)
            self._net.setScoreThreshold(confidence)
            _, faces = self._net.detect(np.ascontiguousarray(seen[..., ::-1]))  # BGR
        except cv2.error as error:
            raise ModelError("OpenCV cannot run this network") from error
        across, down = width / size[0], height / size[1]
        finds = [Find(within((x * across, y * down, (x + w) * across, (y + h) * down), width, height), float(score), "face")
                 for x, y, w, h, *_, score in (() if faces is None else faces)]
        return sorted(finds, key=lambda find: -find.score)
