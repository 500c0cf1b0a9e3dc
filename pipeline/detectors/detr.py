"""DETR, RT-DETR, D-FINE, YOLOS and their kin: object detectors of transformers, from safetensors folders.

Pictures are prepared here: transformers' own image processors need torchvision for some of these models.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.detectors import Find, within
from pipeline.errors import ModelError
from pipeline.geometry import Size
from pipeline.small_files import read_json, reason

KINDS = ("conditional_detr", "d_fine", "deformable_detr", "detr", "rt_detr", "rt_detr_v2", "table-transformer", "yolos")
"""Values of model_type in config.json."""
WITH_NOTHING = ("detr", "table-transformer", "yolos")
"""Those whose last class means that there is nothing; the others score each class by itself."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHORTER, LONGER = 800, 1333
MOST_CLASSES = 10_000
CONFIG, PREPARATION = "config.json", "preprocessor_config.json"


class Detr:
    """A detector from a folder. Raises ModelError if it is not one."""

    def __init__(self, folder: Path):
        config = read_json(folder / CONFIG) or {}
        self._kind = config.get("model_type")
        if self._kind not in KINDS:
            raise ModelError(f"its {CONFIG} is for {self._kind!r}; detectors are {', '.join(KINDS)}")
        if not any(folder.glob("*.safetensors")):
            raise ModelError("it has no .safetensors file")
        self._preparation = read_json(folder / PREPARATION) or {}
        from transformers import AutoModelForObjectDetection  # takes seconds

        try:
            self._model = AutoModelForObjectDetection.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32).eval()
        except Exception as error:
            raise ModelError(reason(error)) from error
        self.classes = named_classes({"id2label": self._model.config.id2label})

    @torch.inference_mode()
    def find(self, picture: np.ndarray, confidence: float) -> list[Find]:
        height, width = picture.shape[:2]
        output = self._model(pixel_values=prepared(picture, self._preparation))
        logits, boxes = output.logits[0].float(), output.pred_boxes[0].float()
        scores = logits.softmax(-1)[:, :-1] if self._kind in WITH_NOTHING else logits.sigmoid()
        best, label = scores.max(-1)
        finds = []
        for index in torch.argsort(best, descending=True, stable=True).tolist():
            score = float(best[index])
            if score <= confidence:
                break
            x, y, w, h = boxes[index].tolist()  # centre and size, as fractions of the picture
            box = within(((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height), width, height)
            at = int(label[index])
            finds.append(Find(box, score, self.classes[at] if at < len(self.classes) else ""))
        return finds


def named_classes(config: dict[str, Any]) -> tuple[str, ...]:
    """The classes in a config, by their number; "" for numbers without one."""
    labels = config.get("id2label")
    try:
        named = {int(index): str(name) for index, name in labels.items()} if isinstance(labels, dict) else {}
    except (TypeError, ValueError):
        return ()
    return tuple(named.get(index, "") for index in range(min(max(named, default=-1) + 1, MOST_CLASSES)))


def prepared(picture: np.ndarray, told: dict[str, Any]) -> torch.Tensor:
    """(h, w, 3) uint8 → (1, 3, H, W) as the model wants it; told: its preprocessor_config.json."""
    image = Image.fromarray(picture)
    size = size_for(Size(*image.size), told.get("size"))
    pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR), np.float32) * float(told.get("rescale_factor", 1 / 255))
    if told.get("do_normalize", True):
        pixels = (pixels - np.array(told.get("image_mean", MEAN), np.float32)) / np.array(told.get("image_std", DEVIATION), np.float32)
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())


def size_for(picture: Size, wanted: Any) -> Size:
    """The size at which a model sees a picture: a fixed one, or the shorter side's, unless the longer one becomes too long."""
    wanted = wanted if isinstance(wanted, dict) else {}
    if "height" in wanted and "width" in wanted:
        return Size(int(wanted["width"]), int(wanted["height"]))
    shorter, longer = int(wanted.get("shortest_edge", SHORTER)), int(wanted.get("longest_edge") or LONGER)
    low, high = sorted(picture)
    short = min(float(shorter), longer * low / high)  # not rounded before the longer side follows from it, as in transformers
    sides = {low: round(short), high: int(short * high / low)}
    return Size(sides[picture.width], sides[picture.height]) if low != high else Size(round(short), round(short))
