"""The common base of all loaded checkpoints: networks in place, and an autoencoder.

It also has default accelerations for families without any: they do nothing and say so.
"""

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn

from pipeline.errors import InvalidRequest
from pipeline.families.autoencoder import Autoencoder
from pipeline.families.base import Calls, ModelInfo, Sees, TextEncoder
from pipeline.families.compiled import Compilable, Compiler, compiling
from pipeline.families.controls import Controls
from pipeline.families.latents import LatentFormat
from pipeline.families.layout import arrange
from pipeline.families.offload import Offload
from pipeline.families.placement import Placement
from pipeline.families.reuse import Reuse, Reused
from pipeline.families.tiny import TinyDecoder
from pipeline.geometry import Size


class LoadedModel:
    """Families add text_encoders, prediction(), encode_prompts(), denoise() and layers(), and override the rest as needed."""

    text_encoders: list[TextEncoder]
    sees: Sees = "nothing"
    knows_old_emphasis = False
    takes_guidance = False
    takes_negative_prompt = True
    tiny: TinyDecoder | None = None
    approx: TinyDecoder | None = None
    compiler: Compiler | None = None

    def __init__(self, name: str, modules: dict[str, nn.Module], info: ModelInfo, placement: Placement, latent_format: LatentFormat):
        """modules: by name in a diffusers folder, including "vae"."""
        self.name, self.info, self.placement, self.latent_format = name, info, placement, latent_format
        self._modules, self.notes = modules, []
        self.offload = Offload(modules, placement.device, placement.offload)
        self.autoencoder = self._autoencoder(modules["vae"])

    @property
    def modules(self) -> dict[str, nn.Module]:
        self.offload.rest()
        return self._modules

    def take_vae(self, module: nn.Module, info: ModelInfo) -> None:
        self._modules["vae"], self.info = module, info
        self.autoencoder = self._autoencoder(module)
        self.offload.follow(self.placement.offload)

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self.latent_format.into(self.autoencoder.encode(pixels))

    def decode(self, latent: Tensor) -> Tensor:
        return self.autoencoder.decode(self.latent_format.out_of(latent))

    def image_conditioning(self, pixels: Tensor, latent: Tensor, mask: Tensor | None, *, mask_weight: float) -> Tensor:
        return latent[:, :0]

    def fit_reference(self, size: Size) -> tuple[Size, Size]:
        step = self.latent_format.downscale
        return size, Size(size.width // step * step, size.height // step * step)

    def fit_read(self, size: Size) -> Size | None:
        return None

    def merging_tokens(self, ratio: float) -> AbstractContextManager[None]:
        if ratio > 0:
            self.notes.append(f"Token merging has no effect with {self.info.name}.")
        return nullcontext()

    def reusing(self, reuse: Reuse) -> AbstractContextManager[Reused]:
        if reuse != Reuse():
            self.notes.append(f"Step cache and edit reuse have no effect with {self.info.name}.")
        return nullcontext(Reused())

    def controlled(self, controls: Controls) -> AbstractContextManager[None]:
        raise InvalidRequest("alwayson_scripts", f'alwayson_scripts: ControlNet does not work with "{self.info.name}" yet')

    def compiled(self, wanted: bool) -> AbstractContextManager[Calls]:
        return compiling(self._compilable(), self.compiler if wanted else None)

    def _compilable(self) -> list[Compilable]:
        """The networks that may be compiled."""
        return [self.autoencoder.decoder]

    def forget_edit(self) -> None:
        """Nothing to forget."""

    def _autoencoder(self, module: nn.Module) -> Autoencoder:
        arrange(module, self.placement)
        return Autoencoder(module, self.placement, self.notes, self.offload, self.latent_format.autoencoder_downscale)
