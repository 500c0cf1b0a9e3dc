"""A checkpoint before its weights are read: which networks it holds, how they are built and where their tensors lie."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.families import configs
from pipeline.families.configs import PartKind
from pipeline.families.placement import Placement
from pipeline.small_files import read_json, shortened
from pipeline.weights import Weights, converted, refuse_pickle

LoadingCallback = Callable[[float], None]
"""Told how much is loaded, 0 to 1."""


def unchanged(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Stored:
    """A tensor in a file, and how it becomes a network's."""

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

    @property
    def scale(self) -> str | None:
        """The name of what the tensor has to be multiplied by: one number, or one for each output."""
        names = (self.name.removesuffix("weight") + "scale_weight", self.name + "_scale") if self.name.endswith("weight") else ()
        return next((name for name in names if name in self.weights), None)

    @property
    def scale_fits(self) -> bool:
        """Whether that is a number, or one for each output; in other quantizations it is one for each block."""
        shape, tensor = (self.weights.shape(name) for name in (self.scale, self.name))
        return shape.numel() == 1 or len(tensor) > 1 and shape[:1] == tensor[:1] and shape.numel() == tensor[0]


@dataclass(frozen=True)
class Part:
    """One network of a checkpoint."""

    config: dict
    """As in the config.json of a diffusers folder."""
    tensors: dict[str, Stored]
    """By their names in the network, without "text_model."."""

    @property
    def size(self) -> int:
        """How many numbers its tensors hold."""
        return sum(stored.shape.numel() for stored in self.tensors.values())


@dataclass(frozen=True)
class Checkpoint:
    """What a file or a folder holds."""

    path: Path
    parts: dict[str, Part]
    """By their names in a diffusers folder."""
    prediction: str | None = None
    """epsilon or v_prediction; None: it is not said."""
    zero_snr: bool = False
    """Whether it was trained with a schedule that ends in pure noise."""
    betas: tuple[float, float] = (0.00085, 0.012)
    """The first and the last."""
    unknown: tuple[str, ...] = ()
    """The tensors that are of none of its parts, and of which it is not known that they do not matter."""
    latent_scale: float | None = None
    extra: dict = field(default_factory=dict)
    """What our own models say besides, in palimpsest.json: native_size, latent_rgb_factors, latent_rgb_bias."""

    def config(self, part: str) -> dict:
        """A part's config; empty where there is no such part."""
        return self.parts[part].config if part in self.parts else {}

    @property
    def vae_downscale(self) -> int | None:
        """Pixels per cell of its VAE's latents, as far as its config says."""
        levels = self.config("vae").get("block_out_channels")
        return 2 ** (len(levels) - 1) if isinstance(levels, list) and levels else None


@dataclass(frozen=True)
class Layout:
    """How the files of related families are read, their weights untouched. All raise ModelError."""

    pipelines: str
    """How the classes of diffusers that run them begin."""
    read_folder: Callable[[Path], Checkpoint]
    """A diffusers folder of one of these classes."""
    read_file: Callable[[Weights], Checkpoint | None]
    """A single file, recognised by its tensors' names; None where it is of another layout."""
    read_vae: Callable[[Path], Part]
    """An autoencoder in a file or folder of its own, or in a whole checkpoint."""


# --- building -------------------------------------------------------------------------------------------------------

def build_modules(checkpoint: Checkpoint, kinds: Mapping[str, PartKind], place: Placement,
                  progress: LoadingCallback = lambda share: None) -> dict[str, nn.Module]:
    """The networks with their weights, each tensor read straight into its place in the precision that it is used in.

    Raises ModelError before anything is read when a tensor is missing or has another shape than it should.
    """
    modules = {name: empty_module(checkpoint.path, name, part.config, kinds[name]) for name, part in checkpoint.parts.items()}
    for name, part in checkpoint.parts.items():
        check_tensors(checkpoint.path, name, part, modules[name])
    total = sum(module_size(module) for module in modules.values())
    done = 0
    for name, part in checkpoint.parts.items():
        state = {}
        for key, parameter in modules[name].state_dict().items():
            state[key] = part.tensors[bare(key)].read(place.home, place.dtype_of(name))
            done += parameter.numel()
            progress(done / total)
        modules[name].load_state_dict(state, assign=True)
        fill_positions(modules[name], place.home)
        modules[name].requires_grad_(False).eval()
    return modules


def empty_module(path: Path, name: str, config: dict, kind: PartKind) -> nn.Module:
    """The network of a config, without memory for its weights. Raises ModelError for a config out of bounds."""
    config = configs.checked(f'the {name} of "{path.name}"', config, kind.rules)
    with torch.device("meta"):
        return kind.build(config)


MEANINGLESS = re.compile(r"""(?x) (?:.*\.)? (?:
      position_ids | logit_scale | attn_mask         # CLIP's: what every computation of it starts with, and its training's
    | text_projection (?:\.weight)?                  # of a text encoder whose pooled features nobody takes
    | (?:vision_model | visual)\..* | visual_projection\.weight
    | scaled_fp8 | scale_input | input_scale | comfy_quant  # how to multiply in float8, which is not done here
    | (?:loss | model_ema)\..* | logvar )            # of the training""")
"""Names of tensors in a network that do not matter to a picture."""


def check_tensors(path: Path, name: str, part: Part, module: nn.Module) -> None:
    """Raise ModelError where a network would not get all its tensors, or where the file's say more than it would take."""
    expected = {bare(key): tensor.shape for key, tensor in module.state_dict().items()}
    missing = [key for key in expected if key not in part.tensors]
    if missing:
        others = f" and {len(missing) - 1} more tensors" if len(missing) > 1 else ""
        raise ModelError(f'"{path.name}" is incomplete: its {name} lacks "{missing[0]}"{others}')
    for key, shape in expected.items():
        if part.tensors[key].shape != shape:
            raise ModelError(f'"{path.name}" does not fit together: "{part.tensors[key].name}" has the shape '
                             f"{tuple(part.tensors[key].shape)} where its {name} needs {tuple(shape)}")
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
    """A tensor's name without what transformers puts before it in some versions."""
    return key.removeprefix("text_model.")


def module_size(module: nn.Module) -> int:
    return sum(tensor.numel() for tensor in module.state_dict().values())


def fill_positions(module: nn.Module, device: torch.device) -> None:
    """CLIP's 0, 1, 2, …, which no file holds."""
    for owner in module.modules():
        if "position_ids" in owner._buffers:
            owner.position_ids = torch.arange(owner.position_ids.shape[-1], device=device)[None]


# --- diffusers folders ----------------------------------------------------------------------------------------------

def pipeline_class(folder: Path) -> str:
    """Which class of diffusers runs a folder's model. Raises ModelError where it is no diffusers folder."""
    index = read_json(folder / "model_index.json")
    if index is None:
        raise ModelError(f'model "{folder}" is not a diffusers folder: it has no model_index.json')
    return shortened(str(index.get("_class_name") or "model without a _class_name"), configs.MAX_SHOWN)


def read_folder(folder: Path, names: Iterable[str]) -> Checkpoint:
    """What a diffusers folder holds of the parts of those names. Raises ModelError."""
    parts = {name: read_part(folder / name) for name in names if (folder / name / "config.json").exists()}
    schedule = read_checked(folder / "scheduler" / "scheduler_config.json", configs.SCHEDULER)
    vae = configs.checked(f'the vae of "{folder.name}"', parts["vae"].config, configs.VAE) if "vae" in parts else {}
    return Checkpoint(
        path=folder, parts=parts, prediction=schedule.get("prediction_type"),
        zero_snr=bool(schedule.get("rescale_betas_zero_snr")),
        betas=(schedule.get("beta_start", 0.00085), schedule.get("beta_end", 0.012)),
        latent_scale=vae.get("scaling_factor"), extra=read_checked(folder / "palimpsest.json", configs.EXTRA))


def read_checked(path: Path, rules: Mapping[str, configs.Rule]) -> dict:
    """What a config says of the keys that have rules; empty where there is no such file. Raises ModelError."""
    return configs.checked(f'"{path.parent.name}/{path.name}"', read_json(path) or {}, rules)


def read_part(folder: Path) -> Part:
    """One network in diffusers' or transformers' own layout."""
    config = read_json(folder / "config.json")
    if config is None:
        raise ModelError(f'"{folder.name}" has no config.json')
    stored = {}
    for file in weight_files(folder):
        weights = Weights(file)
        stored |= {current_name(name): Stored(weights, name) for name in weights}
    return Part(config, stored)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of one network: the whole one or its shards, without other variants of the same."""
    variants: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        variants.setdefault(re.sub(r"-\d+-of-\d+", "", file.name), []).append(file)
    if not variants:
        for pickle in sorted(folder.glob("*.bin")):
            refuse_pickle(pickle)
        raise ModelError(f'"{folder}" has no .safetensors file')
    return variants[min(variants, key=lambda name: (".non_ema" in name, len(name)))]


OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""What diffusers called the parts of an autoencoder's attention until 2023."""


def current_name(name: str) -> str:
    """The name that today's diffusers and transformers have for a tensor in a folder."""
    old = re.fullmatch(r"(.*\.attentions\.\d+)\.(query|key|value|proj_attn)(\..*)", name)
    return bare(f"{old[1]}.{OLD_ATTENTION[old[2]]}{old[3]}" if old else name)
