"""The hooks of plug-ins: each one's name, arguments and one sentence."""

import logging
from dataclasses import dataclass
from typing import Any, Iterable

from PIL import Image
from torch import Tensor

from pipeline.errors import Cancelled, HookError, Interrupted, InvalidRequest, ModelError

logger = logging.getLogger(__name__)

Processing = Any
"""The running StableDiffusionProcessingImg2Img; this file is below it and cannot import it."""


@dataclass
class MaskBlendArgs:
    """One blend of the working latent with the source's. Latents are (B, C, h, w), masks (C, h, w)."""

    current_latent: Tensor
    nmask: Tensor
    """1 = regenerate."""
    init_latent: Tensor
    mask: Tensor
    """1 = preserve."""
    blended_latent: Tensor
    """Replace it to override the blend."""
    denoiser: Any = None
    """The CFGDenoiser, or None for the blend after sampling."""
    sigma: Tensor | None = None
    """(B,) noise level of this model call (the timestep for DDIM), or None for the blend after sampling."""

    @property
    def is_final_blend(self) -> bool:
        return self.denoiser is None


@dataclass
class ImageArgs:
    """A picture as the model drew it: not yet put back into its source. Assign `image` to change it."""

    index: int
    """The picture's index in its batch."""
    image: Image.Image
    """RGB."""


@dataclass
class OverlayArgs:
    """What is put back over a finished picture. Assign either to change it; None: nothing."""

    index: int
    """The picture's index in its batch."""
    mask_for_overlay: Image.Image | None
    """255 = show what the model drew."""
    overlay_image: Image.Image | None
    """The source as RGBA, transparent where what the model drew is shown."""


class Hooks:
    """Subclass and override. Every method is called on the engine's thread. All are optional.

    An exception stops the job with HookError naming the hook and the plug-in, as ignoring it would silently change the picture;
    InvalidRequest and ModelError stop it with their own sentence.
    """

    def process(self, p: Processing) -> None:
        """Once per run, after prompts and seeds are known and before init(). May change infotext and rounds_mask."""

    def process_before_every_sampling(self, p: Processing, *, x: Tensor, noise: Tensor,
                                      c: Any, uc: Any) -> None:
        """Before each sampling pass. x: init_latent, noise: start noise; both may be changed in place."""

    def on_mask_blend(self, p: Processing, mba: MaskBlendArgs) -> None:
        """At each model call of an inpainting job, and once after sampling (mba.is_final_blend)."""

    def post_sample(self, p: Processing, samples: Tensor) -> None:
        """After each sampling pass, before decoding. samples: (B, C, h, w), may be changed in place."""

    def postprocess_image(self, p: Processing, ia: ImageArgs) -> None:
        """For each decoded picture, before its colours are corrected and the source is put back over it."""

    def postprocess_maskoverlay(self, p: Processing, oa: OverlayArgs) -> None:
        """For each decoded picture, before the source is put back over it."""


class HookList(Hooks):
    """Several hooks as one: each is called in order."""

    def __init__(self, hooks: Iterable[Hooks] = ()):
        self.hooks = tuple(hooks)

    def process(self, p: Processing) -> None:
        self._each("process", p)

    def process_before_every_sampling(self, p: Processing, *, x: Tensor, noise: Tensor,
                                      c: Any, uc: Any) -> None:
        self._each("process_before_every_sampling", p, x=x, noise=noise, c=c, uc=uc)

    def on_mask_blend(self, p: Processing, mba: MaskBlendArgs) -> None:
        self._each("on_mask_blend", p, mba)

    def post_sample(self, p: Processing, samples: Tensor) -> None:
        self._each("post_sample", p, samples)

    def postprocess_image(self, p: Processing, ia: ImageArgs) -> None:
        self._each("postprocess_image", p, ia)

    def postprocess_maskoverlay(self, p: Processing, oa: OverlayArgs) -> None:
        self._each("postprocess_maskoverlay", p, oa)

    def _each(self, name: str, *args: Any, **kwargs: Any) -> None:
        for hook in self.hooks:
            try:
                getattr(hook, name)(*args, **kwargs)
            except (Interrupted, Cancelled, InvalidRequest, ModelError):
                raise
            except Exception as error:
                plugin = type(hook).__qualname__
                logger.error("hook %s of %s failed", name, plugin, exc_info=error)
                raise HookError(f"hook {name} of {plugin} failed ({type(error).__name__}); see the program's log") from error
