"""SAM and SAM 2: they find an object in a picture by points and a box. Read from a folder as transformers saves it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.families.checkpoint import weight_files
from pipeline.geometry import Box
from pipeline.small_files import read_json
from pipeline.weights import Weights

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's mean and standard deviation, which both models use: pixel_mean and pixel_std in facebookresearch/segment-anything,
mean and std in facebookresearch/sam2."""
KINDS = {"sam": "sam", "sam2": "sam2", "sam2_video": "sam2"}
"""By model_type in config.json. SAM 2 is published as a video model, which contains the image model."""
PARTS = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
LARGEST = 1 << 14
"""Largest number allowed in a config; real ones reach 5120."""
OF_VIDEOS = ("memory_", "mask_downsample", "object_pointer_proj", "temporal_positional_encoding", "no_memory_positional_encoding",
             "no_object_pointer", "occlusion_spatial_embedding_parameter")
"""Prefixes of SAM 2's tensors that only videos need."""
POSITIONS = "shared_image_embedding.positional_embedding"
"""SAM's files store it under one of two names."""


@dataclass(frozen=True)
class Prompt:
    """What to segment, in pixels of the picture."""

    points: tuple[tuple[float, float, bool], ...] = ()
    """(x, y, True inside the object and False outside)."""
    box: Box | None = None
    """Around the object."""


class Segmenter:
    """A model in main memory, for one thread at a time.

    The embedding takes most of the time and depends only on the picture; a mask from it takes a moment.
    """

    def __init__(self, kind: str, model: nn.Module):
        self._kind, self._model = kind, model
        self._side = model.config.prompt_encoder_config.image_size

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return sum(tensor.nbytes for tensor in self._model.state_dict().values())

    @property
    def working(self) -> int:
        """Bytes needed besides the weights for an embedding, roughly; SAM's attention is quadratic in its tokens."""
        if self._kind == "sam2":
            return 4 * 256 * self._side**2
        vision = self._model.config.vision_config
        return 4 * 2 * vision.num_attention_heads * (self._side // vision.patch_size) ** 4

    @torch.inference_mode()
    def embed(self, picture: np.ndarray, device: torch.device) -> list[Tensor]:
        """A picture's embedding, in main memory. picture: (h, w, 3) uint8. The weights are on the device only meanwhile."""
        try:
            self._model.to(device)
            found = self._model.get_image_embeddings(pixel_values(picture, self._kind, self._side).to(device))
            return [level.cpu() for level in (found if isinstance(found, list) else [found])]
        finally:
            self._model.to("cpu")

    @torch.inference_mode()
    def segment(self, embedding: list[Tensor], prompt: Prompt, width: int, height: int) -> np.ndarray:
        """The mask of the object, (h, w) uint8, 255 inside. width, height: of the picture."""
        scale = torch.tensor(seen_size(self._kind, width, height, self._side)) / torch.tensor([width, height])
        asked: dict[str, Tensor] = {}
        if prompt.points:
            asked["input_points"] = (torch.tensor([[x, y] for x, y, _ in prompt.points]) * scale)[None, None]
            asked["input_labels"] = torch.tensor([int(wanted) for *_, wanted in prompt.points])[None, None]
        if prompt.box is not None:
            asked["input_boxes"] = (torch.tensor(prompt.box).reshape(2, 2) * scale).reshape(1, 1, 4).float()
        # a single point is ambiguous, so take the best of three masks, as in the published code
        several = len(prompt.points) == 1 and prompt.box is None
        found = self._model(image_embeddings=embedding if self._kind == "sam2" else embedding[0], multimask_output=several, **asked)
        best = int(found.iou_scores[0, 0].argmax())
        logits = found.pred_masks[:, 0, best:best + 1].float()
        if self._kind == "sam":  # cut off the padding
            seen = seen_size(self._kind, width, height, self._side)
            logits = F.interpolate(logits, (self._side, self._side), mode="bilinear")[..., :seen[1], :seen[0]]
        logits = F.interpolate(logits, (height, width), mode="bilinear")[0, 0]
        return (logits > 0).numpy().astype(np.uint8) * np.uint8(255)


def seen_size(kind: str, width: int, height: int, side: int) -> tuple[int, int]:
    """(width, height) of a model's input: a square for SAM 2; for SAM only the longer side is `side`."""
    if kind == "sam2":
        return side, side
    scale = side / max(width, height)
    return int(width * scale + 0.5), int(height * scale + 0.5)


def pixel_values(picture: np.ndarray, kind: str, side: int) -> Tensor:
    """A model's input, (1, 3, side, side): normalised, about -2 to 2, padded with 0 on the right and at the bottom."""
    size = seen_size(kind, picture.shape[1], picture.shape[0], side)
    seen = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR), dtype=np.float32) / 255
    seen = (seen - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
    return F.pad(torch.from_numpy(seen).permute(2, 0, 1), (0, side - size[0], 0, side - size[1]))[None]


# --- reading

def kind_of(folder: Path) -> str | None:
    """"sam" or "sam2" by a folder's config.json, or None for another model. Raises ModelError for an unreadable config."""
    config = read_json(folder / "config.json")
    name = config and config.get("model_type")
    return KINDS.get(name) if isinstance(name, str) else None


def size_of(folder: Path) -> int:
    """Bytes of a folder's weights in float32. Raises ModelError."""
    files = map(Weights, weight_files(folder))
    return sum(4 * weights.shape(name).numel() for weights in files for name in weights if not name.startswith(OF_VIDEOS))


def load(folder: Path) -> Segmenter:
    """The model in a folder, in float32 in main memory. Raises ModelError, or transformers' own errors for a wrong config."""
    config, kind = read_json(folder / "config.json"), kind_of(folder)
    if config is None or kind is None:
        raise ModelError(f'"{folder.name}" is not SAM or SAM 2: its config.json has the model_type '
                         f'"{str((config or {}).get("model_type"))[:40]}"; valid: {", ".join(KINDS)}')
    model = empty_model(kind, {part: plain(config.get(part) or {}) for part in PARTS})
    tensors: dict[str, Tensor] = {}
    for weights in map(Weights, weight_files(folder)):
        tensors |= {name: weights[name].float() for name in weights if not name.startswith(OF_VIDEOS)}
    same = f"prompt_encoder.{POSITIONS.replace('image_', '')}"
    for here, there in ((POSITIONS, same), (same, POSITIONS)):
        if here not in tensors and there in tensors:
            tensors[here] = tensors[there]
    check(folder, model, tensors)
    model.load_state_dict(tensors, assign=True)
    return Segmenter(kind, model.requires_grad_(False).eval())


def empty_model(kind: str, parts: dict[str, Any]) -> nn.Module:
    """The network, on the meta device."""
    from transformers import Sam2Config, Sam2Model, SamConfig, SamModel

    config = (Sam2Config if kind == "sam2" else SamConfig)(**parts)
    with torch.device("meta"):
        return (Sam2Model if kind == "sam2" else SamModel)(config)


def plain(value: Any) -> Any:
    """A config without settings that could load other code. Raises ValueError for numbers beyond LARGEST."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items() if not name.startswith("_") and "attn_impl" not in name}
    if isinstance(value, list):
        return list(map(plain, value))
    if isinstance(value, int | float) and not -LARGEST <= value <= LARGEST:
        raise ValueError(f"its config has the number {value}; at most {LARGEST} is read")
    return value


def check(folder: Path, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Raise ModelError unless the tensors are exactly the network's."""
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name, shape in expected.items():
        if name not in tensors:
            raise ModelError(f'"{folder.name}" is incomplete: it lacks the tensor "{name}"')
        if tensors[name].shape != shape:
            raise ModelError(f'"{folder.name}" does not fit together: "{name}" has the shape {tuple(tensors[name].shape)}, but '
                             f"its config needs {tuple(shape)}")
    if more := [name for name in tensors if name not in expected]:
        raise ModelError(f'"{folder.name}" cannot be used: it holds the tensor "{more[0]}", which its model does not have')
