"""IP-Adapters (Ye, 2023): a UNet's cross-attention also attends to a picture, by keys and values of its own."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.families import configs
from pipeline.families.checkpoint import Checkpoint, Part, Stored, build_modules, count, shape
from pipeline.families.configs import PartKind
from pipeline.families.controls import Control, Controls, Features, LoadedNetwork, of_another_kind
from pipeline.families.placement import Placement
from pipeline.weights import Weights

PROJECTION, LAYERS = "image_proj.", "ip_adapter."
TOKENS = 4
"""That the plain kind turns a picture into."""
HEAD = 64
"""Channels of each head of the kind "plus"."""
FACE = 512
"""The width of a face's features by InsightFace."""


class AdapterNetwork(nn.Module):
    """Its weights: features → tokens, and each attention layer's keys and values for them."""

    def __init__(self, projection: nn.Module, cross: int, widths: list[int]):
        super().__init__()
        self.projection = projection
        self.keys, self.values = (nn.ModuleList(nn.Linear(cross, width, bias=False) for width in widths) for _ in range(2))


def build(config: dict[str, Any]) -> AdapterNetwork:
    from diffusers.models import embeddings

    kind, width, cross = config["kind"], config["width"], config["cross"]
    if kind == "plus":
        projection = embeddings.IPAdapterPlusImageProjection(width, cross, config["hidden"], config["depth"], HEAD, config["heads"], config["tokens"])
    elif kind == "full":
        projection = embeddings.IPAdapterFullImageProjection(width, cross)
    else:
        projection = embeddings.ImageProjection(width, cross, config["tokens"])
    return AdapterNetwork(projection, cross, config["widths"])


PARTS = {"ip_adapter": PartKind(configs.IP_ADAPTER, build)}


@dataclass(frozen=True)
class IPAdapter(LoadedNetwork):
    """A loaded IP-Adapter."""

    module: AdapterNetwork
    reads: Features
    union: bool = False
    types: int = 0

    def check(self, unet: nn.Module, model: str) -> None:
        """Raise InvalidRequest if it was made for another kind of UNet."""
        widths = [(layer.in_features, layer.out_features) for layer in self.module.keys]
        wanted = [(attention.to_k.in_features, attention.to_k.out_features) for attention in cross_attentions(unet)]
        if widths != wanted:
            kinds = {768: "SD 1", 1024: "SD 2", 2048: "SDXL"}
            own, other = kinds.get(widths[0][0]), kinds.get(wanted[0][0])
            why = f": it is for {own}, the checkpoint is {other}" if own and other and own != other else ""
            raise of_another_kind(self.name, model, why)


def cross_attentions(unet: nn.Module) -> list[nn.Module]:
    """A UNet's layers that attend to the prompt, in the order that IP-Adapters number them in: downwards, upwards, middle."""
    return [module.attn2 for module in unet.modules() if hasattr(module, "attn1") and hasattr(module, "attn2")]


# --- reading

def read(weights: Weights, name: str, place: Placement) -> IPAdapter:
    """The adapter in a file with the original names. Raises ModelError."""
    refuse_faces(weights)
    tensors = dict(pair for key in weights for pair in renamed(weights, key))
    config = config_of(weights.path, tensors)
    module = build_modules(Checkpoint(weights.path, {"ip_adapter": Part(config, tensors)}), PARTS, place)["ip_adapter"]
    return IPAdapter(name, module, Features(config["width"], deep=config["kind"] != "plain"))


def refuse_faces(weights: Weights) -> None:
    """Raise ModelError for adapters that take a face's features instead of a picture's."""
    faces = any(f"{PROJECTION}perceiver_resampler" in key or "_lora." in key for key in weights) \
        or {f"{PROJECTION}proj.0.weight", f"{PROJECTION}norm.weight"} <= set(weights)
    entry = f"{PROJECTION}proj_in.weight"
    if faces or (entry in weights and weights.shape(entry)[1] == FACE):
        raise ModelError(f'"{weights.path.name}" is a FaceID or InstantID adapter, which needs InsightFace to recognise faces; that is not '
                         "supported here. The face adapters that work are ip-adapter-plus-face and ip-adapter-full-face")


NAMES = (  # original → diffusers
    (re.compile(r"layers\.(\d+)\.0\.norm1\."), r"layers.\1.ln0."), (re.compile(r"layers\.(\d+)\.0\.norm2\."), r"layers.\1.ln1."),
    (re.compile(r"layers\.(\d+)\.0\.to_out\."), r"layers.\1.attn.to_out.0."), (re.compile(r"layers\.(\d+)\.0\.to_"), r"layers.\1.attn.to_"),
    (re.compile(r"layers\.(\d+)\.1\.0\."), r"layers.\1.ff.0."), (re.compile(r"layers\.(\d+)\.1\.1\."), r"layers.\1.ff.1.net.0.proj."),
    (re.compile(r"layers\.(\d+)\.1\.3\."), r"layers.\1.ff.1.net.2."),
    (re.compile(r"proj\.0\."), "ff.net.0.proj."), (re.compile(r"proj\.2\."), "ff.net.2."), (re.compile(r"proj\.3\."), "norm."),
    (re.compile(r"proj\.(weight|bias)"), r"image_embeds.\1"),
)


def renamed(weights: Weights, key: str) -> Iterator[tuple[str, Stored]]:
    """The tensors of the network that one in the file holds."""
    if found := re.fullmatch(r"ip_adapter\.(\d+)\.to_([kv])_ip\.weight", key):
        # numbered among all attention layers, of which every second one attends to the prompt
        yield f"{'keys' if found[2] == 'k' else 'values'}.{int(found[1]) // 2}.weight", Stored(weights, key)
        return
    name = key.removeprefix(PROJECTION)
    for pattern, new in NAMES:
        if pattern.match(name):
            name = pattern.sub(new, name, count=1)
            break
    name = f"projection.{name}"
    if name.endswith(".to_kv.weight"):
        yield name.replace("to_kv", "to_k"), Stored(weights, key, lambda both: both.chunk(2)[0])
        yield name.replace("to_kv", "to_v"), Stored(weights, key, lambda both: both.chunk(2)[1])
    else:
        yield name, Stored(weights, key)


def config_of(path: Path, tensors: dict[str, Stored]) -> dict[str, Any]:
    """Its kind and sizes, by its shapes. Raises ModelError."""
    layers = count(tensors, r"keys\.(\d+)\.")
    widths = [shape(path, tensors, f"keys.{index}.weight")[0] for index in range(layers)]
    cross = shape(path, tensors, "keys.0.weight")[1]
    own = {"cross": cross, "widths": widths}
    if "projection.image_embeds.weight" in tensors:
        return own | {"kind": "plain", "width": shape(path, tensors, "projection.image_embeds.weight")[1], "tokens": TOKENS}
    if "projection.ff.net.0.proj.weight" in tensors:
        return own | {"kind": "full", "width": shape(path, tensors, "projection.ff.net.0.proj.weight")[1]}
    _, tokens, hidden = shape(path, tensors, "projection.latents")
    return own | {"kind": "plus", "width": shape(path, tensors, "projection.proj_in.weight")[1], "tokens": tokens, "hidden": hidden,
                  "depth": count(tensors, r"projection\.layers\.(\d+)\."),
                  "heads": shape(path, tensors, "projection.layers.0.attn.to_q.weight")[0] // HEAD}


# --- attending

@contextmanager
def attending(unet: nn.Module, controls: Controls) -> Iterator[None]:
    """Context in which a UNet attends to the pictures of the IP-Adapters among the controls too."""
    if not any(isinstance(control.network, IPAdapter) for control in controls.controls):
        yield
        return
    call = Call(controls)
    with ExitStack() as hooks:
        hooks.enter_context(unet.register_forward_pre_hook(call.begin, with_kwargs=True))
        for index, attention in enumerate(cross_attentions(unet)):
            layer = Layer(call, index, attention.heads)
            hooks.enter_context(attention.to_q.register_forward_hook(layer.keep))
            hooks.enter_context(attention.to_out[0].register_forward_pre_hook(layer.add))
        yield


@dataclass
class Call:
    """The current call of a UNet, for its layers."""

    controls: Controls
    active: list[Control] = field(default_factory=list)
    rows: Tensor | None = None
    """(B,): 0 for the rows that see the picture, 1 for those of the negative prompt."""
    size: tuple[int, int] = (0, 0)
    """(h, w) of the latent."""
    _tokens: dict[int, Tensor] = field(default_factory=dict)

    def begin(self, _unet: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs["sample"]
        self.active = [control for control in self.controls.active if isinstance(control.network, IPAdapter) and control.weight]
        self.rows = torch.tensor([int(negative) for negative in self.controls.negative]).to(x.device, non_blocking=True)
        self.size = tuple(x.shape[-2:])

    def tokens(self, control: Control, like: Tensor) -> Tensor:
        """(2, n, width): the picture's tokens, and those for no picture."""
        if id(control) not in self._tokens:
            self._tokens[id(control)] = control.network.module.projection(control.hint.to(like))
        return self._tokens[id(control)]


@dataclass
class Layer:
    """The hooks of one attention layer."""

    call: Call
    index: int
    heads: int
    _query: Tensor | None = None
    _known: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Keys and values (2, heads, n, d) by the control's id: the same at each call."""

    def keep(self, _to_q: nn.Module, _args: tuple, query: Tensor) -> None:
        self._query = query

    def add(self, _to_out: nn.Module, args: tuple) -> tuple | None:
        attended = args[0]  # (B, h*w, C), before the layer's last product
        if not self.call.active:
            return None
        query = self._split(self._query)
        for control in self.call.active:
            keys, values = self._keys_and_values(control, attended)
            seen = F.scaled_dot_product_attention(query, keys[self.call.rows], values[self.call.rows]).transpose(1, 2).flatten(2)
            share = control.weight if control.region is None else control.weight * self._region(control.region, seen)
            attended = attended + share * seen
        self._query = None
        return attended, *args[1:]

    def _keys_and_values(self, control: Control, like: Tensor) -> tuple[Tensor, Tensor]:
        known = self._known.get(id(control))
        if known is None:
            tokens, module = self.call.tokens(control, like), control.network.module
            known = self._known[id(control)] = self._split(module.keys[self.index](tokens)), self._split(module.values[self.index](tokens))
        return known

    def _region(self, region: Tensor, seen: Tensor) -> Tensor:
        """How strongly it acts for each token, (1, h*w, 1)."""
        height, width = self.call.size
        while height * width > seen.shape[1]:
            height, width = -(-height // 2), -(-width // 2)
        return F.interpolate(region.to(seen), (height, width), mode="bilinear").flatten(2).transpose(1, 2)

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)
