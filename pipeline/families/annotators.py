"""Networks of transformers that annotate pictures: how far away things are, what they are, and people's poses. Read from folders with a config.json.

Pictures are prepared here: transformers' own image processors need torchvision for some of these networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.families import one_sentence, poses
from pipeline.families.checkpoint import weight_files
from pipeline.small_files import read_json

DEPTH, OBJECTS, POSES = ("depth_anything", "dpt"), ("upernet", "segformer"), ("vitpose",)
"""Values of model_type in config.json."""
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
"""(mean, standard deviation) of the pictures that networks were trained on."""
COLOURS = np.array([tuple(bytes.fromhex(colour)) for colour in (
    "787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07 e005ff ebff07 96053d 787846 08ff33 ff0652 8fff8c ccff04 "
    "ff3307 cc4603 0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc ff095c 7009ff 08ffd6 07ffe0 ffb806 0aff47 ff290a 07ffff "
    "e0ff08 6608ff ff3d06 ffc207 ff7a08 00ff14 ff0829 ff0599 0633ff eb0cff a09614 00a3ff 8c8c8c fa0a0f 14ff00 1fff00 ff1f00 ffe000 "
    "99ff00 0000ff ff4700 00ebff 00adff 1f00ff 0bc8c8 ff5200 00fff5 003dff 00ff70 00ff85 ff0000 ffa300 ff6600 c2ff00 008fff 33ff00 "
    "0052ff 00ff29 00ffad 0a00ff adff00 00ff99 ff5c00 ff00ff ff00f5 ff0066 ffad00 ff0014 ffb8b8 001fff 00ff3d 0047ff ff00cc 00ffc2 "
    "00ff52 000aff 0070ff 3300ff 00c2ff 007aff 00ffa3 ff9900 00ff0a ff7000 8fff00 5200ff a3ff00 ffeb00 08b8aa 8500ff 00ff5c b800ff "
    "ff001f 00b8ff 00d6ff ff0070 5cff00 00e0ff 70e0ff 46b8a0 a300ff 9900ff 47ff00 ff00a3 ffcc00 ff008f 00ffeb 85ff00 ff00eb f500ff "
    "ff007a fff500 0abed4 d6ff00 00ccff 1400ff ffff00 0099ff 0029ff 00ffcc 2900ff 29ff00 ad00ff 00f5ff 4700ff 7a00ff 00ffb8 005cff "
    "b8ff00 0085ff ffd600 19c2c2 66ff00 5c00ff "
).split()], np.uint8)
"""Of ADE20K's 150 classes, by the scene parsing benchmark of MIT, on which control networks for segmentations were trained."""


Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Annotator:
    """A loaded network in main memory."""

    kind: str
    """One of DEPTH, OBJECTS or POSES."""
    module: nn.Module

    @torch.inference_mode()
    def annotate(self, picture: np.ndarray, parts: tuple[str, ...] = (), people: Sequence[Box] = ()) -> np.ndarray:
        """The map of a picture (h, w, 3) uint8 RGB, of its size: distances (h, w), near is white; classes by COLOURS (h, w, 3); or poses.

        parts: of people those that are drawn; people: their boxes (x1, y1, x2, y2), none: the picture is of one person. Raises ModelError
        for parts of which a network knows none.
        """
        if self.kind in POSES:
            return self._poses(picture, parts, people)
        if self.kind in OBJECTS:
            return self._objects(picture)
        config, size = self.module.config, self._seen(*picture.shape[:2])
        depth = self.module(as_input(picture, *(HALVES if self.kind == "dpt" else IMAGENET), size)).predicted_depth[:, None]
        depth = F.interpolate(depth, picture.shape[:2], mode="bilinear")[0, 0]
        if getattr(config, "depth_estimation_type", "relative") == "metric":  # metres, so far is more
            depth = -depth
        depth = depth - depth.min()
        return (depth / depth.max().clamp(min=1e-12) * 255).clamp(0, 255).numpy().astype(np.uint8)

    def _objects(self, picture: np.ndarray) -> np.ndarray:
        logits = self.module(as_input(picture, *IMAGENET)).logits
        return COLOURS[F.interpolate(logits, picture.shape[:2], mode="bilinear")[0].argmax(0).numpy()]

    def _poses(self, picture: np.ndarray, parts: tuple[str, ...], people: Sequence[Box]) -> np.ndarray:
        height, width = picture.shape[:2]
        if self.module.config.num_labels < poses.WHOLE_BODY and poses.BODY not in parts:
            raise ModelError(f"this network knows only bodies; {' and '.join(parts)} take one with {poses.WHOLE_BODY} points")
        found = poses.find(self.module, picture, list(people) or [(0.0, 0.0, float(width), float(height))])
        return poses.drawn(found, height, width, parts)

    def _seen(self, height: int, width: int) -> tuple[int, int]:
        """(width, height) at which a network for distances sees a picture."""
        config = self.module.config
        if self.kind == "dpt":
            return config.image_size, config.image_size
        side, patch = config.backbone_config.image_size, config.patch_size
        scale = side / min(height, width)  # the shorter side, then whole patches
        return tuple(max(round(length * scale / patch), 1) * patch for length in (width, height))


def as_input(picture: np.ndarray, mean: tuple[float, ...], deviation: tuple[float, ...], size: tuple[int, int] | None = None) -> Tensor:
    """A picture as (1, 3, H, W), normalised; size: (width, height), None: its own."""
    pixels = picture.astype(np.float32) / 255
    if size is not None:
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
    return torch.from_numpy((pixels - np.array(mean, np.float32)) / np.array(deviation, np.float32)).permute(2, 0, 1)[None].contiguous()


def kind_of(folder: Path) -> str | None:
    """A folder's model_type, if it is one of those above. Raises ModelError for an unreadable config."""
    name = (read_json(folder / "config.json") or {}).get("model_type")
    return name if name in (*DEPTH, *OBJECTS, *POSES) else None


def load(folder: Path) -> Annotator:
    """The network in a folder, in float32 in main memory. Raises ModelError."""
    with one_sentence(folder):
        config, kind = read_json(folder / "config.json") or {}, kind_of(folder)
        if kind is None:
            raise ModelError(f'"{folder.name}" is not an annotator: its config.json has the model_type "{str(config.get("model_type"))[:40]}"; '
                             f"valid: {', '.join((*DEPTH, *OBJECTS, *POSES))}")
        refuse_downloads(folder, config)
        weight_files(folder)  # refuses pickles
        module, report = class_of(kind).from_pretrained(folder, local_files_only=True, use_safetensors=True, trust_remote_code=False,
                                                        dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True)
        lacks = [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]
        if lacks:
            raise ModelError(f'"{folder.name}" is incomplete: it lacks the tensor "{sorted(lacks)[0]}"')
        if kind in OBJECTS and module.config.num_labels != len(COLOURS):
            raise ModelError(f'"{folder.name}" knows {module.config.num_labels} classes; only those of ADE20K, {len(COLOURS)}, have colours')
        if kind in POSES and module.config.num_labels not in (poses.COCO, poses.WHOLE_BODY):
            raise ModelError(f'"{folder.name}" knows {module.config.num_labels} points of a person; only {poses.COCO} or {poses.WHOLE_BODY} can be drawn')
        return Annotator(kind, module.requires_grad_(False).eval())


def class_of(kind: str) -> Any:
    """Its class in transformers."""
    import transformers

    return {"depth_anything": transformers.DepthAnythingForDepthEstimation, "dpt": transformers.DPTForDepthEstimation,
            "upernet": transformers.UperNetForSemanticSegmentation, "segformer": transformers.SegformerForSemanticSegmentation,
            "vitpose": transformers.VitPoseForPoseEstimation}[kind]


def refuse_downloads(folder: Path, config: dict[str, Any]) -> None:
    """Raise ModelError for a config whose backbone would be fetched, or built by other code."""
    if any(config.get(name) for name in ("backbone", "use_timm_backbone", "use_pretrained_backbone")):
        raise ModelError(f'"{folder.name}" names a backbone elsewhere; it must hold its own, as backbone_config')
