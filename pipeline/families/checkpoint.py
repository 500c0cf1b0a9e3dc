"""A checkpoint before its weights are read: its networks, how to build them, and where their tensors are."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.families import configs
from pipeline.families.configs import PartKind
from pipeline.families.packed import Packed, pack, packable
from pipeline.families.placement import Placement
from pipeline.small_files import read_json, shortened
from pipeline.weights import Weights, converted, refuse_pickle

LoadingCallback = Callable[[float], None]
"""Called with the fraction that is loaded, 0 to 1."""


def unchanged(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Stored:
    """A tensor in a file, with its conversion to the network's form."""

    weights: Weights
    name: str
    change: Callable[[Tensor], Tensor] = unchanged

    @property
    def shape(self) -> torch.Size:
        return self.change(torch.empty(self.weights.shape(self.name), device="meta")).shape

    def read(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        stored = self.weights.dtype(self.name)
        if not stored.is_floating_point:
            raise ModelError(f'"{self.weights.path.name}" is quantized, which is not supported: '
                             f'"{self.name}" is {str(stored).removeprefix("torch.")}')
        if self.scale is None:
            return converted(self.change(self.weights.passing(self.name)), device, dtype)
        scale = self.weights[self.scale].float()
        tensor = self.weights.passing(self.name).float()
        return converted(self.change(tensor * scale.reshape(-1, *[1] * (tensor.ndim - 1))), device, dtype)

    @cached_property
    def packing(self) -> str | None:
        """The kind of quantization with which it may stay in memory, see packed.py; None: it has none, or its change is no choice of rows."""
        kind = self.weights.packing(self.name)
        if kind is None or self.scale is not None and not self.scale_fits:
            return None
        return kind if self._rows is not None else None

    @cached_property
    def _rows(self) -> Tensor | None:
        """Which rows of the tensor in the file the network's has; None: it is changed in another way."""
        column = torch.arange(self.weights.shape(self.name)[0])[:, None]
        try:
            rows = self.change(column)
        except (RuntimeError, IndexError, ValueError):
            return None
        return rows[:, 0] if rows.shape == (len(rows), 1) and rows.dtype == column.dtype else None

    @property
    def packed_bytes(self) -> int:
        """What it takes in memory as quantized as it is; only where `packing` is not None."""
        return self.weights.packed_bytes(self.name) // self.weights.shape(self.name)[0] * len(self._rows) + (0 if self.scale is None else 4 * len(self._rows))

    def read_packed(self, device: torch.device) -> Packed:
        """The same, only where `packing` is not None."""
        scale = None if self.scale is None else self.weights[self.scale].float().reshape(-1, 1)
        if scale is not None and len(scale) > 1:
            scale = scale[self._rows]
        data = self.weights.packed(self.name)[self._rows]  # a copy
        return Packed(self.packing, data.to(device), scale if scale is None else scale.to(device))

    @property
    def scale(self) -> str | None:
        """The name of the tensor's scale: one number, or one per output; None: it has none."""
        names = (self.name.removesuffix("weight") + "scale_weight", self.name + "_scale") if self.name.endswith("weight") else ()
        return next((name for name in names if name in self.weights), None)

    @property
    def scale_fits(self) -> bool:
        """Whether the scale is one number or one per output; other quantizations have one per block."""
        shape, tensor = (self.weights.shape(name) for name in (self.scale, self.name))
        return shape.numel() == 1 or len(tensor) > 1 and shape[:1] == tensor[:1] and shape.numel() == tensor[0]


@dataclass(frozen=True)
class Part:
    """One network of a checkpoint."""

    config: dict
    """As in the config.json of a diffusers folder."""
    tensors: dict[str, Stored]
    """By name in the network, without "text_model."."""

    def size(self, packs: bool) -> "PartSize":
        """The memory of its tensors. packs: as in PartKind."""
        layers, packed, total = Counter(), 0, 0
        for name, stored in self.tensors.items():
            numbers = stored.shape.numel()
            layers[name.rpartition(".")[0]] += numbers
            if packs and stays_packed(name, stored):
                packed += stored.packed_bytes
            else:
                total += numbers
        return PartSize(total, max(layers.values(), default=0), packed)


@dataclass(frozen=True)
class PartSize:
    """The memory of a network's weights."""

    numbers: int
    """That take the precision which is chosen."""
    layer: int = 0
    """Numbers in the largest of its layers, unpacked."""
    packed: int = 0
    """Bytes of weights that stay quantized."""


def stays_packed(name: str, stored: Stored) -> bool:
    """Whether a network's tensor of that name may stay as quantized as its file holds it."""
    return name.endswith(".weight") and stored.packing is not None


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a file or folder."""

    path: Path
    parts: dict[str, Part]
    """By name in a diffusers folder."""
    prediction: str | None = None
    """epsilon or v_prediction; None: unspecified."""
    zero_snr: bool = False
    """Whether it was trained with zero terminal SNR (a schedule that ends in pure noise)."""
    betas: tuple[float, float] = (0.00085, 0.012)
    """(first, last)."""
    unknown: tuple[str, ...] = ()
    """Tensors that belong to no part and are not known to be irrelevant."""
    latent_scale: float | None = None
    shift: float | None = None
    """Of a flow's schedule."""
    edits: bool | None = None
    """Whether it edits by instruction, where its tensors do not show that; None: nothing says so."""
    extra: dict = field(default_factory=dict)
    """Further facts in our own models' palimpsest.json: native_size, latent_rgb_factors, latent_rgb_bias."""

    def config(self, part: str) -> dict:
        """A part's config; empty if there is no such part."""
        return self.parts[part].config if part in self.parts else {}

    @property
    def vae_downscale(self) -> int | None:
        """Pixels per cell of its VAE's latents; None: its config does not say."""
        levels = self.config("vae").get("block_out_channels")
        return 2 ** (len(levels) - 1) if isinstance(levels, list) and levels else None


@dataclass(frozen=True)
class Layout:
    """Reads files of related families, without their weights. All functions raise ModelError."""

    pipelines: str
    """Prefix of the diffusers pipeline classes."""
    read_folder: Callable[[Path], Checkpoint]
    """Reads a diffusers folder of one of these classes."""
    read_file: Callable[[Weights], Checkpoint | None]
    """Reads a single file, recognised by its tensors' names; None if it has another layout."""
    read_vae: Callable[[Path], Part]
    """Reads an autoencoder from its own file or folder, or from a whole checkpoint."""
    read_text_encoder: Callable[[Path], dict[str, Part]] | None = None
    """Reads a text encoder from its own file, under its name in a diffusers folder; None: these families take none."""


# --- reading names and shapes ----------------------------------------------------------------------------------------

def count(names: Iterable[str], pattern: str) -> int:
    """How many different numbers the pattern's group matches, at the start of names."""
    return len({found[1] for found in map(re.compile(pattern).match, names) if found})


def shape(path: Path, tensors: dict[str, Stored], name: str) -> torch.Size:
    """A tensor's shape. Raises ModelError if it is missing."""
    if name not in tensors:
        raise ModelError(f'"{path.name}" is incomplete, or of a kind that is not supported: '
                         f'it lacks the tensor that diffusers calls "{name}"')
    return tensors[name].shape


# --- building -------------------------------------------------------------------------------------------------------

def build_modules(checkpoint: Checkpoint, kinds: Mapping[str, PartKind], place: Placement,
                  progress: LoadingCallback = lambda share: None) -> dict[str, nn.Module]:
    """The networks with their weights, each tensor read straight into place in its final precision.

    Raises ModelError, before reading anything, if a tensor is missing or has the wrong shape.
    """
    modules = {name: empty_module(checkpoint.path, name, part.config, kinds[name]) for name, part in checkpoint.parts.items()}
    for name, part in checkpoint.parts.items():
        check_tensors(checkpoint.path, name, part, modules[name])
    total = sum(module_size(module) for module in modules.values())
    done = 0
    for name, part in checkpoint.parts.items():
        if kinds[name].packs:
            done += pack_layers(modules[name], part, place.home_of(name), place.dtype_of(name))
        state = {}
        for key, parameter in modules[name].state_dict().items():
            if parameter.device.type != "meta":  # it is packed
                state[key] = parameter
                continue
            state[key] = part.tensors[bare(key)].read(place.home_of(name), place.dtype_of(name))
            done += parameter.numel()
            progress(done / total)
        modules[name].load_state_dict(state, assign=True)
        fill_positions(modules[name], place.home_of(name))
        modules[name].requires_grad_(False).eval()
    return modules


def pack_layers(module: nn.Module, part: Part, device: torch.device, dtype: torch.dtype) -> int:
    """Read the quantized weights of a network's layers into place; returns how many numbers they are."""
    found = [(path, layer) for path, layer in module.named_modules(remove_duplicate=False) if packable(layer)]
    packed: dict[nn.Module, nn.Module] = {}  # one layer may have several places
    for path, layer in found:
        stored = part.tensors.get(bare(f"{path}.weight"))
        if stored is not None and stays_packed(f"{path}.weight", stored):
            if layer not in packed:
                packed[layer] = pack(layer, stored.read_packed(device), dtype)
            owner, _, name = path.rpartition(".")
            setattr(module.get_submodule(owner), name, packed[layer])
    return sum(layer.weight.numel() for layer in packed)


def empty_module(path: Path, name: str, config: dict, kind: PartKind) -> nn.Module:
    """The network of a config, without memory for weights. Raises ModelError for an invalid config."""
    config = configs.valid_values(f'the {name} of "{path.name}"', config, kind.rules)
    with torch.device("meta"):
        return kind.build(config)


MEANINGLESS = re.compile(r"""(?x) (?:.*\.)? (?:
      position_ids | logit_scale | attn_mask         # of CLIP: constants, and for training
    | text_projection (?:\.weight)?                  # of a text encoder whose pooled output is unused
    | (?:vision_model | visual)\..* | visual_projection\.weight
    | scaled_fp8 | scale_input | input_scale | comfy_quant  # for float8 multiplication, which is not used here
    | (?:loss | model_ema)\..* | logvar )            # for training""")
"""Tensor names within a network that do not affect pictures."""


def check_tensors(path: Path, name: str, part: Part, module: nn.Module) -> None:
    """Raise ModelError if a tensor is missing or misshapen, or if the file holds one that the network does not take."""
    expected = {bare(key): tensor.shape for key, tensor in module.state_dict().items()}
    missing = [key for key in expected if key not in part.tensors]
    if missing:
        others = f" and {len(missing) - 1} more tensors" if len(missing) > 1 else ""
        raise ModelError(f'"{path.name}" is incomplete: its {name} lacks "{missing[0]}"{others}')
    for key, shape in expected.items():
        if part.tensors[key].shape != shape:
            raise ModelError(f'"{path.name}" is inconsistent: "{part.tensors[key].name}" has the shape '
                             f"{tuple(part.tensors[key].shape)} but its {name} needs {tuple(shape)}")
    scaled = {stored.scale: stored for key, stored in part.tensors.items() if key in expected and stored.scale}
    for scale, stored in scaled.items():
        if not stored.scale_fits:
            raise ModelError(f'"{path.name}" is quantized in a way that is not supported: "{scale}" has the shape '
                             f"{tuple(stored.weights.shape(scale))} for a weight of {tuple(stored.weights.shape(stored.name))}")
    for key, stored in part.tensors.items():
        if key not in expected and stored.name not in scaled and not MEANINGLESS.fullmatch(stored.name):
            raise ModelError(f'"{path.name}" cannot be used: its {name} holds "{stored.name}", whose effect on pictures '
                             "is unknown")


def bare(key: str) -> str:
    """A tensor's name without the prefix that some versions of transformers add."""
    return key.removeprefix("text_model.")


def module_size(module: nn.Module) -> int:
    return sum(tensor.numel() for tensor in module.state_dict().values())


def fill_positions(module: nn.Module, device: torch.device) -> None:
    """Fill CLIP's positions 0, 1, 2, …, which files do not hold."""
    for owner in module.modules():
        if "position_ids" in owner._buffers:
            owner.position_ids = torch.arange(owner.position_ids.shape[-1], device=device)[None]


# --- diffusers folders ----------------------------------------------------------------------------------------------

def pipeline_class(folder: Path) -> str:
    """The diffusers pipeline class of a folder. Raises ModelError if it is not a diffusers folder."""
    index = read_json(folder / "model_index.json")
    if index is None:
        raise ModelError(f'model "{folder}" is not a diffusers folder: it has no model_index.json')
    return shortened(str(index.get("_class_name") or "model without a _class_name"), configs.MAX_SHOWN)


def read_folder(folder: Path, names: Iterable[str], also: Callable[[str, Part], Part] = lambda name, part: part) -> Checkpoint:
    """The parts of those names in a diffusers folder. Raises ModelError.

    also: what else there is to do with a part that was read.
    """
    parts = {name: also(name, read_part(folder / name)) for name in names if (folder / name / "config.json").exists()}
    schedule = read_config(folder / "scheduler" / "scheduler_config.json", configs.SCHEDULER)
    vae = configs.valid_values(f'the vae of "{folder.name}"', parts["vae"].config, configs.VAE) if "vae" in parts else {}
    return Checkpoint(
        path=folder, parts=parts, prediction=schedule.get("prediction_type"),
        zero_snr=bool(schedule.get("rescale_betas_zero_snr")),
        betas=(schedule.get("beta_start", 0.00085), schedule.get("beta_end", 0.012)),
        latent_scale=vae.get("scaling_factor"), shift=schedule.get("shift"), extra=read_config(folder / "palimpsest.json", configs.EXTRA))


def read_config(path: Path, rules: Mapping[str, configs.Rule]) -> dict:
    """A config's values for the keys with rules; empty if the file does not exist. Raises ModelError."""
    return configs.valid_values(f'"{path.parent.name}/{path.name}"', read_json(path) or {}, rules)


def read_part(folder: Path) -> Part:
    """One network in the layout of diffusers or transformers."""
    config = read_json(folder / "config.json")
    if config is None:
        raise ModelError(f'"{folder.name}" has no config.json')
    stored = {}
    for file in weight_files(folder):
        weights = Weights(file)
        stored |= {current_name(name): Stored(weights, name) for name in weights}
    return Part(config, stored)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of one network, whole or sharded, without other variants."""
    variants: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        variants.setdefault(re.sub(r"-\d+-of-\d+", "", file.name), []).append(file)
    if not variants:
        for pickle in sorted(folder.glob("*.bin")):
            refuse_pickle(pickle)
        raise ModelError(f'"{folder}" has no .safetensors file')
    return variants[min(variants, key=lambda name: (".non_ema" in name, len(name)))]


OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names that diffusers used in an autoencoder's attention until 2023."""


def current_name(name: str) -> str:
    """The current diffusers or transformers name of a tensor in a folder."""
    old = re.fullmatch(r"(.*\.attentions\.\d+)\.(query|key|value|proj_attn)(\..*)", name)
    return bare(f"{old[1]}.{OLD_ATTENTION[old[2]]}{old[3]}" if old else name)
