"""Models whose UNet and VAE are replaced by recordings of their inputs and outputs.

A recording holds a fingerprint of each input, to detect wrong ones, and the outputs to 14 bits. Text encoders are real, with
only the vocabulary rows that the golden prompts use.
"""

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from api import build_app
from api.backend import Backend
from pipeline.caches import Cache
from pipeline.embeddings import EmbeddingShelf
from pipeline.engine import local_engine
from pipeline.errors import ModelError
from pipeline.families import placement, sd, sdxl
from pipeline.families.base import Calls, ModelInfo
from pipeline.families.cond import Cond, Encoding
from pipeline.families.layer_names import LayerNames
from pipeline.families.prediction import DiscreteSchedule, Eps, V
from pipeline.families.reuse import Reuse, Reused
from pipeline.geometry import Size
from pipeline.models import Catalog
from pipeline.networks import LoraNames, Networks
from pipeline.options import Options
from pipeline.settings import Settings
from pipeline.styles import StyleDatabase

FOLDER = Path(__file__).parent
PROBES = 8
"""Random directions that an input is projected on."""
TOLERANCE = 0.004
"""Relative to an input's root mean square. Rounding of outputs accounts for about a tenth of it."""
MANTISSA = 14
"""Bits kept of an output's numbers; float32 has 23."""

TEXT = dict(vocab_size=49408, hidden_size=64, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
            projection_dim=64, bos_token_id=49406, eos_token_id=49407)
CHECKPOINTS = {  # name: (facts, prediction, the UNet's input channels, hash)
    "tiny-sd1": (sd.SD1, Eps, sd.PLAIN, "86d7d2d1e1"),
    "tiny-sd1-v": (sd.SD1, V, sd.PLAIN, "70651c3e6a"),
    "tiny-sd1-inpaint": (sd.SD1, Eps, sd.INPAINTING, "9aecf05de0"),
    "tiny-sd1-ip2p": (sd.SD1, Eps, sd.EDIT, "fc388cf11c"),
    "tiny-sdxl": (sdxl.BASE, Eps, sd.PLAIN, "8685841c86"),
}


# --- recordings

def fingerprint(tensor: Tensor) -> np.ndarray:
    """Per row of (n, …): its root mean square, and its products with PROBES random directions, (n, 1 + PROBES)."""
    rows = tensor.detach().float().flatten(1)
    directions = torch.randn(rows.shape[1], PROBES, generator=torch.Generator().manual_seed(rows.shape[1]))
    size = rows.square().mean(dim=1, keepdim=True).sqrt()
    return torch.cat([size, rows @ directions / rows.shape[1] ** 0.5], dim=1).numpy()


def to_bytes(answer: Tensor) -> np.ndarray:
    """float32 of any shape (…) rounded to MANTISSA bits, as (3, …) bytes that compress well."""
    kept = answer.contiguous().numpy().view(np.uint32) + np.uint32(1 << 22 - MANTISSA) >> np.uint32(23 - MANTISSA)
    kept <<= np.uint32(15 - MANTISSA)
    return np.stack([kept >> np.uint32(shift) & np.uint32(255) for shift in (16, 8, 0)]).astype(np.uint8)


def from_bytes(planes: np.ndarray) -> Tensor:
    bits = sum(plane.astype(np.uint32) << np.uint32(shift) for plane, shift in zip(planes, (24, 16, 8)))
    return torch.from_numpy(bits.view(np.float32))


def lossless(pixels: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) as the bytes of a WebP file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "WEBP", lossless=True, method=6, exact=True)
    return np.frombuffer(stream.getvalue(), np.uint8)


class Tape:
    """A case's inputs and outputs, in order; written by record(), read by replay()."""

    def __init__(self, entries: dict[str, np.ndarray] | None = None):
        self.entries = entries if entries is not None else {}
        self._calls = 0

    def record(self, kind: str, questions: dict[str, Tensor], answer: Tensor) -> None:
        call = f"{self._calls}.{kind}"
        for name, question in questions.items():
            self.entries[f"{call}.{name}"] = fingerprint(question)
        if kind == "decode":
            unit = ((answer.float() + 1.0) / 2.0).clamp(0.0, 1.0)
            self.entries[f"{call}.answer"] = (unit * 255.0).permute(0, 2, 3, 1).numpy().astype(np.uint8)
        else:
            self.entries[f"{call}.answer"] = to_bytes(answer.float())
        self._calls += 1

    def replay(self, kind: str, questions: dict[str, Tensor]) -> Tensor:
        """The output of the next call. Raises ModelError if its input differs from the recording."""
        call = f"{self._calls}.{kind}"
        for name, question in questions.items():
            recorded, asked = self.entries.get(f"{call}.{name}"), fingerprint(question)
            if recorded is None:
                raise ModelError(f"call {self._calls} is {kind} of {name}, which is not in the recording")
            if recorded.shape != asked.shape:
                raise ModelError(f"call {self._calls}, {kind}: {name} has {len(asked)} rows instead of the recording's {len(recorded)}")
            error = np.abs(asked - recorded).max() / max(recorded[:, 0].max(), 1e-6)
            if error > TOLERANCE:
                raise ModelError(f"call {self._calls}, {kind}: {name} differs from the recording by {error:.4f} of its size")
        self._calls += 1
        answer = self.entries[f"{call}.answer"]
        # the middle of the range that truncates to this value
        return (torch.from_numpy(answer) + 0.5).permute(0, 3, 1, 2) / 127.5 - 1.0 if kind == "decode" else from_bytes(answer)

    def finish(self) -> None:
        """Raise ModelError if the recording has more calls."""
        recorded = 1 + max((int(key.split(".")[0]) for key in self.entries), default=-1)
        if self._calls != recorded:
            raise ModelError(f"{self._calls} calls were made, but the recording has {recorded}")

    def save(self, path: Path, outputs: list[Path]) -> None:
        """Write it. Decoded pictures are stored as differences from the most similar finished one in `outputs`."""
        packed = dict(self.entries)
        for key, pictures in self.entries.items():
            if key.endswith("decode.answer"):
                del packed[key]
                for row, picture in enumerate(pictures):
                    packed |= {f"{key}.{row}.{name}": part for name, part in pack(picture, outputs).items()}
        np.savez_compressed(path, **packed)

    @classmethod
    def load(cls, path: Path) -> "Tape":
        with np.load(path) as stored:
            packed = dict(stored)
        rows: dict[str, list[np.ndarray]] = {}
        for key in [key for key in packed if key.endswith(".picture")]:  # in order
            beside = packed.pop(key.removesuffix("picture") + "beside")
            rows.setdefault(key.rsplit(".", 2)[0], []).append(unpack(packed.pop(key), str(beside), path.parent))
        return cls(packed | {key: np.stack(pictures) for key, pictures in rows.items()})


def pack(picture: np.ndarray, outputs: list[Path]) -> dict[str, np.ndarray]:
    """A uint8 picture (H, W, 3) as its difference from a similar output of its size, if there is one, else as a file."""
    for path in outputs:
        other = np.asarray(Image.open(path).convert("RGB"))
        if other.shape == picture.shape and (other != picture).mean() < 0.1:
            return {"picture": picture - other, "beside": np.array(path.name)}  # modulo 256
    return {"picture": lossless(picture), "beside": np.array("")}


def unpack(stored: np.ndarray, beside: str, folder: Path) -> np.ndarray:
    if beside:
        return stored + np.asarray(Image.open(folder / beside).convert("RGB"))
    return np.asarray(Image.open(io.BytesIO(stored.tobytes())).convert("RGB"))


# --- models

class NoUNet(nn.Module):
    """A stand-in for the UNet, for networks to look into."""

    down_blocks = up_blocks = ()


class ReplayedModel:
    """A Family that answers from a tape."""

    takes_guidance = False
    takes_negative_prompt = True
    tiny = approx = None

    def __init__(self, name: str, weights: dict[str, Tensor]):
        facts, prediction, channels, digest = CHECKPOINTS[name]
        self.tape = Tape()
        self.name, self.latent_format, self.notes = facts.name, facts.latent_format, []
        self.info = ModelInfo(name, name, digest, native_size=facts.native_size, family=facts.name)
        self.placement = placement.choose("cpu", "float32")
        self._prediction = prediction(sd.scaled_linear_alphas())
        self.autoencoder = SimpleNamespace(module=nn.Linear(1, 1))  # identifies the model to caches
        self.sees = sd.SEES[channels]
        self._clip_skip, self.knows_old_emphasis = facts.clip_skip, facts.old_emphasis
        self._prompts = sdxl.StableDiffusionXL if facts is sdxl.BASE else sd.StableDiffusion
        self.modules = {"unet": NoUNet(), **{part: text_encoder(part, weights) for part in facts.text_encoders}}
        self.text_encoders = sd.prompt_readers(facts, self.modules, sd.read_tokenizer(FOLDER))

    def prediction(self, size: Size) -> DiscreteSchedule:
        return self._prediction

    def encode_prompts(self, texts: list[str], how: Encoding) -> Cond:
        return self._prompts.encode_prompts(self, texts, how)

    def _picture(self, how: Encoding) -> list[float]:
        return sdxl.StableDiffusionXL._picture(self, how)

    def layers(self) -> LayerNames:
        return LayerNames(self.modules)

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self.tape.replay("encode", {"pixels": pixels})

    def image_conditioning(self, pixels: Tensor, latent: Tensor, mask: Tensor | None, *, mask_weight: float) -> Tensor:
        if self.sees == "nothing":
            return latent[:, :0]
        return self.tape.replay("condition", condition_questions(pixels, mask, mask_weight))

    def denoise(self, x: Tensor, t: Tensor, cond: Cond, image_cond: Tensor) -> Tensor:
        return self.tape.replay("denoise", denoise_questions(x, t, cond, image_cond))

    def decode(self, latent: Tensor) -> Tensor:
        return self.tape.replay("decode", {"latent": latent})

    def merging_tokens(self, ratio: float) -> AbstractContextManager[None]:
        return nullcontext()

    def reusing(self, reuse: Reuse) -> AbstractContextManager[Reused]:
        return nullcontext(Reused())

    def compiled(self, wanted: bool) -> AbstractContextManager[Calls]:
        return nullcontext(Calls())


def denoise_questions(x: Tensor, t: Tensor, cond: Cond, image_cond: Tensor) -> dict[str, Tensor]:
    image_cond = image_cond if image_cond.shape[1] else image_cond.new_zeros(len(x), 5, 1, 1)  # as it was recorded
    asked = {"x": x, "t": t[:, None], "prompt": cond.tokens, "image_cond": image_cond}
    return asked | ({"vector": torch.cat([cond.extra["text_embeds"], cond.extra["time_ids"]], dim=1)} if cond.extra else {})


def condition_questions(pixels: Tensor, mask: Tensor | None, mask_weight: float) -> dict[str, Tensor]:
    mask = torch.ones(1, 1) if mask is None else mask
    return {"pixels": pixels, "mask": mask, "weight": torch.tensor([[mask_weight]])}


def text_encoder(part: str, weights: dict[str, Tensor]) -> nn.Module:
    """One of the tiny text encoders; words that no golden prompt uses are zeros."""
    first = part == "text_encoder"
    config = CLIPTextConfig(**TEXT, hidden_act="quick_gelu" if first else "gelu")
    model = (CLIPTextModel if first else CLIPTextModelWithProjection)(config)
    state = {name.removeprefix(f"{part}."): tensor.float() for name, tensor in weights.items() if name.startswith(f"{part}.")}
    rows, ids = state.pop("rows"), weights["ids"]
    table = next(name for name in model.state_dict() if name.endswith("token_embedding.weight"))
    state[table] = torch.zeros(TEXT["vocab_size"], TEXT["hidden_size"]).index_copy(0, ids, rows)
    model.load_state_dict(state, strict=True)
    return model.requires_grad_(False).eval()


# --- the application around them

@contextmanager
def application(models: Path, load, find_checkpoint, styles: Path, outputs: Path) -> Iterator[TestClient]:
    """The API with models from `load`, and the LoRAs and embeddings of a models folder."""
    catalog = Catalog(models, cache=outputs / "hashes.json")
    engine = local_engine(load, networks=Networks(LoraNames(catalog).find), embeddings=EmbeddingShelf(catalog.embedding_paths),
                    styles=StyleDatabase(styles), cache=Cache(0))  # the tape has every call, so none may be cached
    store = SimpleNamespace(catalog=SimpleNamespace(find_checkpoint=find_checkpoint, find_files=catalog.find_files,
                                                    root=catalog.root))
    try:
        with TestClient(build_app(None, None, backend=Backend(engine, store, Settings(), outputs)),
                        base_url="http://127.0.0.1") as client:
            yield client
    finally:
        engine.close()


class Replay:
    """The golden cases of this folder, run over the API with recordings in place of the large networks."""

    def __init__(self, folder: Path = FOLDER):
        self.folder = folder
        weights = load_file(folder / "text-encoders.safetensors")
        self.models = {name: ReplayedModel(name, weights) for name in CHECKPOINTS}
        self._current = next(iter(self.models))

    def load(self, options: Options) -> ReplayedModel:
        return self.models[options.sd_model_checkpoint or self._current]

    @contextmanager
    def running(self, outputs: Path) -> Iterator["Replay"]:
        models, styles = self.folder / "models", self.folder / "styles.csv"
        with application(models, self.load, self.models.__getitem__, styles, outputs) as self._client:
            yield self

    def post(self, case: str, checkpoint: str, body: dict[str, Any]) -> Any:
        """The API's response. Raises ModelError if the recording was not used up."""
        self._current = checkpoint
        tape = Tape.load(self.folder / "cases" / case / "networks.npz")
        for model in self.models.values():
            model.tape = tape
        response = self._client.post("/sdapi/v1/img2img", json=body)
        if response.status_code == 200:
            tape.finish()
        return response
