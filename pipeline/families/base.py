"""What a model family must provide: small records and one protocol. Imports no network library except torch."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor, nn

from pipeline.families.checkpoint import Checkpoint, Part, PartSize
from pipeline.families.cond import Cond, Encoding
from pipeline.families.configs import PartKind
from pipeline.families.controls import Controls
from pipeline.families.latents import LatentFormat
from pipeline.families.placement import Placement
from pipeline.families.prediction import Prediction
from pipeline.families.reuse import Reuse, Reused
from pipeline.geometry import Size

if TYPE_CHECKING:
    from pipeline.embeddings import Embedding, EmbeddingTable
    from pipeline.families.autoencoder import Autoencoder
    from pipeline.families.compiled import Compiler
    from pipeline.families.offload import Offload
    from pipeline.families.tiny import TinyDecoder


class TextEncoder(Protocol):
    """Turns texts into features, with its own tokenizer."""

    name: str
    """Selects its vectors in an embedding for several encoders."""
    width: int
    """Numbers per vector."""
    embeddings: "EmbeddingTable | None"
    """Embeddings that prompts may use; None: the encoder takes none."""

    def count(self, text: str, how: Encoding) -> int:
        """The text's number of tokens."""

    def find_embeddings(self, texts: list[str], how: Encoding) -> "tuple[list[Embedding], list[str]]":
        """The embeddings that texts name, and a sentence for each named one that cannot be used."""


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a checkpoint for infotext and menus."""

    name: str
    """File stem or folder name."""
    path: str
    hash: str | None = None
    """The first 10 hex digits of the weights' SHA-256."""
    sha256: str | None = None
    """The whole SHA-256 in hex."""
    native_size: int = 512
    """Side in pixels of the pictures that the network was trained on."""
    family: str = ""
    """A name in families.FAMILIES."""
    vae: str | None = None
    """File name of a separate VAE; None: the checkpoint's own."""
    vae_hash: str | None = None
    """Like `hash`, for that file."""
    vae_sha256: str | None = None
    text_encoders: tuple[tuple[str, str], ...] = ()
    """(name, SHA-256) of each text encoder's own file."""
    sees_source: bool = False
    """Whether the network takes the source picture and is guided by it, like InstructPix2Pix."""
    references: int = 0
    """How many reference pictures the network can see besides the source."""
    may_edit: bool = False
    """Whether its tensors do not show whether it edits by instruction."""
    own_latents: bool = False
    """Whether its latents differ from its family's, so that the family's decoders do not fit."""
    sizes: Mapping[str, PartSize] = field(default_factory=dict, compare=False)
    """Of each network's weights, by its name in a diffusers folder."""

    @property
    def title(self) -> str:
        return f"{self.name} [{self.hash}]" if self.hash else self.name


@dataclass(frozen=True)
class Layer:
    """Weights that a network (LoRA and the like) can change; equal for every name of the layer."""

    module: nn.Module
    rows: tuple[int, int] | None = None
    """The range of rows in its module's weight and bias; None: all. A fused module holds several layers, stacked."""
    is_text_encoder: bool = False
    below: tuple[nn.Module, ...] = ()
    """Modules with the rows that follow, where a network file fuses layers that the model holds one by one."""

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        return self.module, *self.below

    @property
    def weight(self) -> Tensor:
        if not self.below:
            return self.module.weight[self._rows]
        weights = [module.weight for module in self.modules]
        there = max(weights, key=lambda weight: weight.device.type != "cpu").device  # offloaded modules come one by one
        return torch.cat([weight.to(there) for weight in weights])

    @property
    def bias(self) -> Tensor | None:
        biases = [getattr(module, "bias", None) for module in self.modules]
        if any(bias is None for bias in biases):
            return None
        return biases[0][self._rows] if not self.below else torch.cat(biases)

    def places(self, value: Tensor) -> Iterator[tuple[nn.Module, slice, Tensor]]:
        """The rows of this layer's weight or bias by (module, the module's rows, values)."""
        if not self.below:
            yield self.module, self._rows, value
            return
        for module, part in zip(self.modules, value.split([getattr(module, "out_features", None) or len(module.weight) for module in self.modules])):
            yield module, slice(None), part

    @property
    def _rows(self) -> slice:
        return slice(None) if self.rows is None else slice(*self.rows)


class LayerFinder(Protocol):
    """Finds a model's layers by their names in network files."""

    def find(self, layer: str) -> Layer | None:
        """The layer of this name, which uses underscores only, as networks.keys.split_name() gives it."""


@dataclass(frozen=True)
class Facts:
    """What all checkpoints of a family share."""

    name: str
    native_size: int
    """Pixels."""
    latent_format: LatentFormat
    parts: Mapping[str, PartKind]
    """By name in a diffusers folder."""
    separate: Mapping[str, "Separate"] = field(default_factory=dict)
    """The parts that may be files of their own beside the checkpoint's, by name; besides a VAE in place of the checkpoint's."""
    defaults: "Defaults | None" = None
    """Settings that suit the family; None: A1111's."""
    references: int = 0
    """How many reference pictures the network can see besides the source; with may_edit, only if it edits."""
    prompt_tokens: int | None = None
    """The most tokens of a prompt; None: any number, in chunks of 75."""
    may_edit: bool = False
    """Whether of checkpoints with the same tensors some edit by instruction and others do not, so that people have to say which."""


@dataclass(frozen=True)
class Separate:
    """A part of a model that may be a file of its own."""

    called: str
    """For sentences: what it is."""
    folder: str
    """Where its file belongs, in the models folder."""
    suits: Callable[[Checkpoint, Part], bool]
    """Whether a part fits the others of the checkpoint, by its config."""


@dataclass(frozen=True)
class Defaults:
    """Settings that suit a family."""

    sampler_name: str
    scheduler: str
    steps: int
    cfg_scale: float
    distilled_cfg_scale: float | None = None
    """None: guidance is no input of its networks."""
    denoising_strength: float | None = None
    """None: any."""
    distilled: bool = True
    """Whether they are for those of its checkpoints that are distilled to few steps."""


Sees = Literal["nothing", "masked source", "source", "reference"]
"""What the network sees of the source: an inpainting network the unmasked part, InstructPix2Pix all of it, weighted by
image_cfg_scale; and one that edits by instruction all of it as a picture of its own, where there is one and options allow it."""


@dataclass
class Calls:
    """A count of networks' calls."""

    compiled: int = 0


class Family(Protocol):
    """A loaded checkpoint. Latents are float32 and at model scale everywhere outside encode and decode."""

    name: str
    info: ModelInfo
    placement: Placement
    latent_format: LatentFormat
    modules: dict[str, nn.Module]
    """diffusers and transformers modules, by name in a diffusers folder: unet, vae, text_encoder, text_encoder_2.

    Their weights may be changed until the family computes again.
    """
    offload: "Offload"
    text_encoders: list[TextEncoder]
    knows_old_emphasis: bool
    """Whether it supports the attention grammar of 2022."""
    autoencoder: "Autoencoder"
    compiler: "Compiler | None"
    """Compiles its networks; None: nothing does."""
    tiny: "TinyDecoder | None"
    """TAESD, which decodes quickly; None: its file is missing."""
    approx: "TinyDecoder | None"
    """The same for Approx NN."""
    sees: Sees
    """What the network sees of the source in addition to the noisy latent."""
    takes_guidance: bool
    """Whether guidance is an input of the network."""
    takes_negative_prompt: bool
    """False for networks distilled to work without guidance."""
    notes: list[str]
    """Sentences for the person who asked; the reader removes them."""

    def prediction(self, size: Size) -> Prediction:
        """The meaning of the network's output when sampling pictures of that size, in pixels."""

    def encode_prompts(self, texts: list[str], how: Encoding) -> Cond:
        """Texts in A1111's attention grammar → one Cond with one row each. Raises InvalidRequest."""

    def take_vae(self, module: nn.Module, info: ModelInfo) -> None:
        """Use this autoencoder from now on; `info` replaces the model's."""

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → (B, C, h, w): the mean of the posterior, at model scale."""

    def image_conditioning(self, pixels: Tensor, latent: Tensor, mask: Tensor | None, *, mask_weight: float) -> Tensor:
        """What the network sees of the source: (B, channels, h, w), with zero channels if it sees nothing.

        pixels (B, 3, H, W) in [-1, 1]; mask (1, 1, H, W), 1 = regenerate; None: regenerate everything.
        """

    def fit_reference(self, size: Size) -> tuple[Size, Size]:
        """(the size to which a reference picture is resized, the size of the middle of it that is used then), in pixels."""

    def fit_read(self, size: Size) -> Size | None:
        """The size at which the text encoder sees a picture; None: it sees none."""

    def denoise(self, x: Tensor, t: Tensor, cond: Cond, image_cond: Tensor) -> Tensor:
        """The network's raw output for scaled input x (B, C, h, w) at timesteps t (B,), which may be fractional."""

    def layers(self) -> LayerFinder:
        """The layers that networks can change."""

    def merging_tokens(self, ratio: float) -> AbstractContextManager[None]:
        """Context in which denoise() merges this fraction of its self-attention tokens: faster, less detail."""

    def reusing(self, reuse: Reuse) -> AbstractContextManager[Reused]:
        """Context for one sampling, in which denoise() reuses results of earlier calls. Yields a count of them."""

    def controlled(self, controls: Controls) -> AbstractContextManager[None]:
        """Context for one sampling, in which pictures guide denoise(). Raises InvalidRequest if their networks do not fit."""

    def compiled(self, wanted: bool) -> AbstractContextManager[Calls]:
        """Context for one sampling or decoding, in which networks are compiled if that is wanted and pays. Yields a count."""

    def forget_edit(self) -> None:
        """Free the memory of the latest edit."""

    def decode(self, latent: Tensor) -> Tensor:
        """(B, C, h, w) → (B, 3, H, W) in [-1, 1], float32."""
