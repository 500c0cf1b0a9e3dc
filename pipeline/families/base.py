"""What a model family is: small records and one protocol. No network library is imported here but torch."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.families.configs import Rule
from pipeline.families.prediction import Prediction
from pipeline.geometry import Size

if TYPE_CHECKING:
    from pipeline.embeddings import Embedding, EmbeddingTable
    from pipeline.families.autoencoder import Autoencoder
    from pipeline.families.offload import Offload
    from pipeline.families.tiny import TinyDecoder


RgbFactors = tuple[tuple[float, float, float], ...]
"""One row per channel: a model-scale latent times this is roughly RGB in [-1, 1]."""


@dataclass(frozen=True)
class LatentFormat:
    """How a family's latents relate to pixels, and to the latents that its autoencoder gives."""

    channels: int = 4
    downscale: int = 8
    """Pixels per latent cell, in each direction."""
    scale: float = 0.18215
    shift: float = 0.0
    """Model-scale latents are the autoencoder's less the shift, times the scale."""
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    """Per channel, in place of shift and 1 / scale."""
    patch: int = 1
    """Cells of the autoencoder's latents, in each direction, that one cell holds as channels."""
    rgb_factors: RgbFactors = ()
    rgb_bias: tuple[float, float, float] = (0.0, 0.0, 0.0)
    cheap_rgb_factors: RgbFactors = ()
    """As A1111 approximates pixels; none: rgb_factors."""
    tiny: str = ""
    """The diffusers folder in VAE-approx that holds its small decoder."""

    @property
    def autoencoder_downscale(self) -> int:
        """Pixels per cell of the autoencoder's latents."""
        return self.downscale // self.patch

    def into(self, latent: Tensor) -> Tensor:
        """The autoencoder's latents (B, c, h, w) → model scale (B, C, h / patch, w / patch)."""
        latent = F.pixel_unshuffle(latent, self.patch) if self.patch > 1 else latent
        if not self.mean:
            return (latent - self.shift) * self.scale
        return (latent - self._each(self.mean, latent)) / self._each(self.deviation, latent)

    def out_of(self, latent: Tensor) -> Tensor:
        """The way back."""
        latent = latent * self._each(self.deviation, latent) + self._each(self.mean, latent) if self.mean \
            else latent / self.scale + self.shift
        return F.pixel_shuffle(latent, self.patch) if self.patch > 1 else latent

    @staticmethod
    def _each(values: tuple[float, ...], latent: Tensor) -> Tensor:
        return latent.new_tensor(values)[:, None, None]


@dataclass(frozen=True)
class Cond:
    """What the network is conditioned on, for a batch of B prompts. Only the family that made it looks inside."""

    tokens: Tensor
    """(B, T, width) features of the prompts' tokens."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """What the network takes besides, by name; B rows each."""
    mask: Tensor | None = None
    """(B, T) bool: the tokens that count; None: all."""

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: slice) -> "Cond":
        return self._with(lambda tensor: tensor[rows])

    @property
    def length(self) -> int:
        """Tokens in each row."""
        return self.tokens.shape[1]

    @staticmethod
    def cat(conds: list["Cond"]) -> "Cond":
        """All their rows; shorter ones as padded() makes them."""
        conds = [cond.padded(max(cond.length for cond in conds)) for cond in conds]
        first = conds[0]
        return Cond(torch.cat([cond.tokens for cond in conds]),
                    {name: torch.cat([cond.extra[name] for cond in conds]) for name in first.extra},
                    None if first.mask is None else torch.cat([cond.mask for cond in conds]))

    def padded(self, length: int) -> "Cond":
        """With so many tokens at least: behind the last they do not count, or repeat it where all have to."""
        missing = length - self.length
        if missing <= 0:
            return self
        if self.mask is None:
            return replace(self, tokens=torch.hstack([self.tokens, self.tokens[:, -1:].expand(-1, missing, -1)]))
        return replace(self, tokens=F.pad(self.tokens, (0, 0, 0, missing)), mask=F.pad(self.mask, (0, missing)))

    def followed_by(self, other: "Cond", length: int) -> "Cond":
        """With so many tokens at least: as often as it takes, the tokens of `other`, which has one row."""
        times = max(length - self.length, 0) // other.length
        if times == 0:
            return self
        return replace(self, tokens=torch.hstack([self.tokens, *[other.tokens.expand(len(self), -1, -1)] * times]))

    def cut(self, length: int) -> "Cond":
        """The first so many tokens."""
        return replace(self, tokens=self.tokens[:, :length], mask=None if self.mask is None else self.mask[:, :length])

    def copied(self) -> "Cond":
        return self._with(Tensor.clone)

    def _with(self, change: Callable[[Tensor], Tensor]) -> "Cond":
        return Cond(change(self.tokens), {name: change(tensor) for name, tensor in self.extra.items()},
                    None if self.mask is None else change(self.mask))


@dataclass(frozen=True)
class Encoding:
    """How texts are read, and what the network is told besides them; a family takes of it what it knows."""

    emphasis: str = "Original"
    comma_backtrack: int = 20
    """How many tokens from the end of a chunk it may be cut behind a comma."""
    clip_skip: int = 1
    """The hidden layer to take, counted from the end."""
    clip_l_skip: bool = False
    """Whether that acts on SDXL's first text encoder."""
    old_emphasis: bool = False
    """The attention grammar of 2022, for the families that knew it."""
    negative: bool = False
    """A negative prompt."""
    size: Size = Size(1024, 1024)
    """Pixels that are asked for."""
    crop_top: int = 0
    crop_left: int = 0
    aesthetic_score: float = 6.0
    """For SDXL's refiner."""


class TextEncoder(Protocol):
    """Texts to features, by a tokenizer of its own."""

    name: str
    """Which vectors of an embedding for several encoders are this one's."""
    width: int
    """Numbers in each vector."""
    embeddings: "EmbeddingTable | None"
    """What may stand for words of a prompt; None: it takes no embeddings."""

    def count(self, text: str, how: Encoding) -> int:
        """How many tokens of the text count."""

    def find_embeddings(self, texts: list[str], how: Encoding) -> "tuple[list[Embedding], list[str]]":
        """The embeddings that texts name, and a sentence for each that they name but that cannot be used."""


@dataclass(frozen=True)
class Window:
    """A part of a map, in its cells; the lower and right bounds are outside."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def area(self) -> int:
        return self.height * self.width

    @property
    def rows(self) -> slice:
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        return slice(self.left, self.right)

    def aligned(self, cells: int, height: int, width: int) -> "Window":
        """The smallest window around this one whose bounds are multiples of `cells`, within a map of that size."""
        return Window(self.top // cells * cells, self.left // cells * cells,
                      min(-(-self.bottom // cells) * cells, height), min(-(-self.right // cells) * cells, width))

    def scaled(self, height: int, width: int) -> "Window":
        """The same part of a larger or smaller map, in which it has this size."""
        return Window(self.top * height // self.height, self.left * width // self.width,
                      self.bottom * height // self.height, self.right * width // self.width)


@dataclass(frozen=True)
class Edit:
    """What is edited, for a network that remembers its latest edit."""

    key: tuple
    """Edits with equal keys start from the same picture and take the same calls."""
    window: Window
    """The part of the latent that may change."""


@dataclass(frozen=True)
class Reuse:
    """What a network may take over from earlier calls in place of computing it: faster, and a little different."""

    interval: int = 1
    """Calls that share their deep features; 1: each has its own."""
    threshold: float = 0.0
    """They are shared while the first layer's output has changed by less than this share; 0: that is not asked."""
    edit: Edit | None = None
    """Where the same picture was edited before, only around its window; this goes before the others."""


@dataclass
class Reused:
    """How often a network did so."""

    calls: int = 0


OFFLOADS = ("none", "model", "sequential")
"""Which weights are on the device: all of them; those of the network that computes; those of its layer that computes. The
others wait in main memory."""


@dataclass(frozen=True)
class Placement:
    """Where a model lives and in which precision it computes."""

    device: torch.device
    dtype: torch.dtype
    """Text encoder and UNet. Latents, noise and solver arithmetic stay float32 whatever this is."""
    vae_dtype: torch.dtype
    offload: str = "none"
    """One of OFFLOADS."""

    @property
    def home(self) -> torch.device:
        """Where weights are while nothing computes."""
        return self.device if self.offload == "none" else torch.device("cpu")

    def dtype_of(self, part: str) -> torch.dtype:
        """The precision of a network by its name in a diffusers folder."""
        return self.vae_dtype if part == "vae" else self.dtype


@dataclass(frozen=True)
class ModelInfo:
    """What infotext and menus say of a loaded checkpoint."""

    name: str
    """File stem or folder name."""
    path: str
    hash: str | None = None
    """The first 10 hex digits of the weights' SHA-256."""
    sha256: str | None = None
    """All of them."""
    native_size: int = 512
    """Width and height, in pixels, that the network was trained on."""
    family: str = ""
    """A name in families.FAMILIES."""
    vae: str | None = None
    """The file of the VAE; None: it came with the checkpoint."""
    vae_hash: str | None = None
    """As `hash`, of that file."""
    vae_sha256: str | None = None
    sees_source: bool = False
    """Whether its network is shown the source picture and guided by it too, as InstructPix2Pix is."""
    own_latents: bool = False
    """Whether its latents mean something else than those of its family, whose decoders then do not fit."""
    sizes: Mapping[str, int] = field(default_factory=dict, compare=False)
    """Numbers in the weights of each network, by its name in a diffusers folder."""

    @property
    def title(self) -> str:
        return f"{self.name} [{self.hash}]" if self.hash else self.name


@dataclass(frozen=True)
class Layer:
    """Weights that a network (LoRA and its like) can change; the same ones under all their names."""

    module: nn.Module
    rows: tuple[int, int] | None = None
    """The part of its weight's and its bias's rows; None: all. A fused layer holds several layers below each other."""
    is_text_encoder: bool = False

    @property
    def weight(self) -> Tensor:
        return self.part_of(self.module.weight)

    @property
    def bias(self) -> Tensor | None:
        bias = getattr(self.module, "bias", None)
        return None if bias is None else self.part_of(bias)

    def part_of(self, tensor: Tensor) -> Tensor:
        """The rows of this layer."""
        return tensor if self.rows is None else tensor[slice(*self.rows)]


class LayerFinder(Protocol):
    """A model's layers by their names in the files of networks."""

    def find(self, layer: str) -> Layer | None:
        """The layer of this name, which has underscores only, as networks.keys.split_name() gives it."""


@dataclass(frozen=True)
class PartKind:
    """A kind of network: what its config may say, and how it is built from one."""

    rules: Mapping[str, Rule]
    build: Callable[[dict[str, Any]], nn.Module]
    """With the config; called where tensors take no memory."""


@dataclass(frozen=True)
class Facts:
    """What all checkpoints of a family have in common."""

    name: str
    native_size: int
    """Pixels."""
    latent_format: LatentFormat
    parts: Mapping[str, PartKind]
    """By their names in a diffusers folder."""


Sees = Literal["nothing", "masked source", "source"]
"""An inpainting network sees what is not masked; an InstructPix2Pix network all of it, and image_cfg_scale says how much it counts."""


class Family(Protocol):
    """A loaded checkpoint. Latents are float32 and at model scale everywhere outside encode and decode."""

    name: str
    info: ModelInfo
    placement: Placement
    latent_format: LatentFormat
    modules: dict[str, nn.Module]
    """diffusers and transformers modules by their names in a diffusers folder: unet, vae, text_encoder, text_encoder_2.

    Their weights may be changed until the family computes again.
    """
    offload: "Offload"
    text_encoders: list[TextEncoder]
    knows_old_emphasis: bool
    """Whether prompts can be read as in 2022."""
    autoencoder: "Autoencoder"
    tiny: "TinyDecoder | None"
    """Decodes previews, where its file is there."""
    sees: Sees
    """What the network sees of the source besides the noisy latent."""
    takes_negative_prompt: bool
    """Whether it is guided away from one; a network distilled to need no guidance is not."""
    notes: list[str]
    """Sentences for the person whose picture is made; who reads them takes them out."""

    def prediction(self, size: Size) -> Prediction:
        """What the network's output means where pictures of that size, in pixels, are sampled."""

    def encode_prompts(self, texts: list[str], how: Encoding) -> Cond:
        """Texts in A1111's attention grammar → one Cond with a row for each. Raises InvalidRequest."""

    def take_vae(self, module: nn.Module, info: ModelInfo) -> None:
        """Use this autoencoder from now on, and be known by that info."""

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → (B, C, h, w): the mean of the posterior, at model scale."""

    def image_conditioning(self, pixels: Tensor, latent: Tensor, mask: Tensor | None, *, mask_weight: float) -> Tensor:
        """What the network sees of the source: (B, channels, h, w), with no channels where it sees nothing.

        pixels (B, 3, H, W) in [-1, 1]; mask (1, 1, H, W), 1 = regenerate, or None for all of it.
        """

    def denoise(self, x: Tensor, t: Tensor, cond: Cond, image_cond: Tensor) -> Tensor:
        """The network's raw output for scaled input x (B, C, h, w) at timesteps t (B,), fractional allowed."""

    def layers(self) -> LayerFinder:
        """Where networks go."""

    def merging_tokens(self, ratio: float) -> AbstractContextManager[None]:
        """Within it, denoise() takes this share of the tokens of its self-attentions for others: faster, less detail."""

    def reusing(self, reuse: Reuse) -> AbstractContextManager[Reused]:
        """Within it, which is one sampling, denoise() takes over from earlier calls; what it gives counts them."""

    def forget_edit(self) -> None:
        """Let go of the memory of the latest edit."""

    def decode(self, latent: Tensor) -> Tensor:
        """(B, C, h, w) → (B, 3, H, W) in [-1, 1], float32."""
