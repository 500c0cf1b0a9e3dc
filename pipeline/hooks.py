"""Where plug-ins act. This file is the list of hooks: a name, its arguments and one sentence each."""

from dataclasses import dataclass
from typing import Any, Iterable

from torch import Tensor

from pipeline.errors import Cancelled, HookError, Interrupted

Job = Any
"""The StableDiffusionProcessingImg2Img that is running; this file is below it and cannot import it."""


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


class Hooks:
    """Subclass and override. Every method is called on the engine's thread. All are optional.

    An exception stops the job with HookError naming the hook and the plug-in: a hook that failed quietly would
    change the picture without telling anyone.
    """

    def process_before_every_sampling(self, p: Job, *, x: Tensor, noise: Tensor,
                                      c: Any, uc: Any) -> None:
        """Before each sampling pass. x: init_latent, noise: start noise; both may be changed in place."""

    def on_mask_blend(self, p: Job, mba: MaskBlendArgs) -> None:
        """At each model call of an inpainting job, and once after sampling (mba.is_final_blend)."""


class HookList(Hooks):
    """Several hooks as one: each is called in order."""

    def __init__(self, hooks: Iterable[Hooks] = ()):
        self.hooks = tuple(hooks)

    def process_before_every_sampling(self, p: Job, *, x: Tensor, noise: Tensor,
                                      c: Any, uc: Any) -> None:
        self._each("process_before_every_sampling", p, x=x, noise=noise, c=c, uc=uc)

    def on_mask_blend(self, p: Job, mba: MaskBlendArgs) -> None:
        self._each("on_mask_blend", p, mba)

    def _each(self, name: str, *args: Any, **kwargs: Any) -> None:
        for hook in self.hooks:
            try:
                getattr(hook, name)(*args, **kwargs)
            except (Interrupted, Cancelled):
                raise
            except Exception as error:
                plugin = type(hook).__qualname__
                raise HookError(f"hook {name} of {plugin} failed: {type(error).__name__}: {error}") from error
