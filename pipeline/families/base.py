"""What a model family is: small records and one protocol. No network library is imported here but torch."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from torch import Tensor, nn

from pipeline.families.cond import Cond, Encoding
from pipeline.families.configs import PartKind
from pipeline.families.latents import LatentFormat
from pipeline.families.placement import Placement
from pipeline.families.prediction import Prediction
from pipeline.families.reuse import Reuse, Reused
from pipeline.geometry import Size

if TYPE_CHECKING:
    from pipeline.embeddings import Embedding, EmbeddingTable
    from pipeline.families.autoencoder import Autoencoder
    from pipeline.families.offload import Offload
    from pipeline.families.tiny import TinyDecoder


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
