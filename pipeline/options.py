"""The settings that change pixels or outputs, as one frozen value with A1111's names.

Nothing reads an option but from the `Options` that a request carries, and nothing is written back: an override makes
a new value.
"""

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Mapping

from PIL import ImageColor

from pipeline.errors import InvalidRequest, UnknownName


def option(default: Any, sentence: str, *, low: float | None = None, high: float | None = None,
           choices: tuple[str, ...] | None = None) -> Any:
    """A field of `Options` with its range and the sentence that explains it."""
    return field(default=default, metadata={"sentence": sentence, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True)
class Options:
    """Settings of one request; the engine holds the default ones. Ranges are inclusive."""

    # prompt
    CLIP_stop_at_last_layers: int = option(1, "Clip skip: use the text encoder's output this many layers from its end.", low=1, high=12)
    emphasis: str = option("Original", "How (word:1.2) acts on the text encoding.", choices=("None", "Ignore", "Original", "No norm"))
    comma_padding_backtrack: int = option(20, "Tokens to look back for a comma where a 75-token chunk is cut.", low=0, high=74)
    use_old_scheduling: bool = option(False, "Read [a:b:0.5] as A1111 did before 1.6.")
    enable_prompt_comments: bool = option(True, "Drop everything after # in a prompt line.")

    # noise
    randn_source: str = option("GPU", "Where noise is drawn: GPU follows the device, CPU and NV are the same on all machines.", choices=("GPU", "CPU", "NV"))
    eta_noise_seed_delta: int = option(0, "ENSD: added to the seed for the noise drawn during sampling.")
    initial_noise_multiplier: float = option(1.0, "Multiplies the start noise of img2img.", low=0, high=1.5)
    img2img_extra_noise: float = option(0.0, "Noise added to the start latent on top of the schedule's.", low=0, high=1)

    # img2img
    img2img_fix_steps: bool = option(False, "Do exactly the number of steps asked for, whatever the denoising strength.")
    img2img_color_correction: bool = option(False, "Match the result's colours to the source's.")
    img2img_background_color: str = option("#ffffff", "Shown through transparent parts of a source.")
    inpainting_mask_weight: float = option(1.0, "Conditioning mask strength of inpainting checkpoints.", low=0, high=1)
    overlay_inpaint: bool = option(True, "Put the source's unmasked pixels back over the result.")
    return_mask: bool = option(False, "Give the mask beside each inpainted picture.")
    return_mask_composite: bool = option(False, "Give the masked part alone beside each inpainted picture.")
    return_grid: bool = option(True, "Give a grid where there are several pictures.")

    # sampling
    eta_ancestral: float = option(1.0, "Noise multiplier of the stochastic samplers.", low=0, high=1)
    eta_ddim: float = option(0.0, "Noise multiplier of DDIM.", low=0, high=1)
    s_churn: float = option(0.0, "Sigma churn of Euler, Heun and DPM2.", low=0, high=100)
    s_tmin: float = option(0.0, "Lowest sigma at which churn acts.", low=0, high=10)
    s_tmax: float = option(0.0, "Highest sigma at which churn acts; 0 is no limit.", low=0, high=999)
    s_noise: float = option(1.0, "Scale of the noise that churn and the SDE samplers add.", low=0, high=1.1)
    sigma_min: float = option(0.0, "Last sigma of the schedule; 0 is the model's own.", low=0, high=2)
    sigma_max: float = option(0.0, "First sigma of the schedule; 0 is the model's own.", low=0, high=60)
    rho: float = option(0.0, "Rho of the Karras schedule; 0 is 7.", low=0, high=30)
    use_old_karras_scheduler_sigmas: bool = option(False, "Run schedules from sigma 10 to 0.1.")
    always_discard_next_to_last_sigma: bool = option(False, "Drop the schedule's last sigma but one.")
    s_min_uncond: float = option(0.0, "NGMS: on every other step skip the negative prompt below this sigma.", low=0, high=15)
    s_min_uncond_all: bool = option(False, "NGMS on all steps.")
    skip_early_cond: float = option(0.0, "Skip the negative prompt in this share of the first steps.", low=0, high=1)
    pad_cond_uncond: bool = option(False, "Pad the shorter of prompt and negative prompt with the empty prompt.")
    pad_cond_uncond_v0: bool = option(False, "Pad or cut the negative prompt to the prompt's length, as A1111 did before 1.6.")
    batch_cond_uncond: bool = option(True, "Compute prompt and negative prompt in one batch.")

    # watching
    live_previews_enable: bool = option(True, "Show the picture while it forms.")
    show_progress_type: str = option("Approx cheap", "How previews are made: a quick approximation, or the full decoder.", choices=("Approx cheap", "Full"))
    show_progress_every_n_steps: int = option(1, "Steps between two previews.", low=1, high=32)

    def override(self, settings: Mapping[str, Any] | None) -> "Options":
        """These options with some replaced. Raises InvalidRequest for an unknown name or a value out of range."""
        if not settings:
            return self
        known = {f.name: f for f in fields(self)}
        for name in settings:
            if name not in known:
                raise UnknownName("override_settings", "option", name, known)
        return replace(self, **{name: checked(known[name], value) for name, value in settings.items()})


def checked(spec: Any, value: Any) -> Any:
    """`value` as the option's type, in its range. Raises InvalidRequest."""
    low, high, choices = (spec.metadata[key] for key in ("low", "high", "choices"))
    if choices is not None:
        if value not in choices:
            raise UnknownName(spec.name, "value", value, choices)
        return value
    if isinstance(spec.default, str):
        return color(spec.name, value)
    if isinstance(spec.default, bool):
        if value not in (True, False):
            raise InvalidRequest(spec.name, f"{spec.name} must be true or false, got {value!r}")
        return bool(value)
    return number(spec.name, value, type(spec.default), low, high)


def color(name: str, value: Any) -> str:
    """`value` as a colour that Pillow knows. Raises InvalidRequest naming the field."""
    try:
        ImageColor.getrgb(value)
    except (TypeError, ValueError, AttributeError):
        raise InvalidRequest(name, f'{name} must be a colour such as "#ffffff", got {value!r}') from None
    return value


def number(name: str, value: Any, kind: type, low: float | None, high: float | None) -> Any:
    """`value` as an int or a float in [low, high] (None is no bound). Raises InvalidRequest naming the field."""
    noun = "a whole number" if kind is int else "a number"
    if low is not None and high is not None:
        wanted = f"{noun} between {low} and {high}"
    else:
        wanted = noun if low is None else f"{noun} of at least {low}"
    try:
        result = kind(value)
        fits = math.isfinite(result) and (isinstance(value, str) or result == value) and not isinstance(value, bool)
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits or (low is not None and result < low) or (high is not None and result > high):
        raise InvalidRequest(name, f"{name} must be {wanted}, got {value!r}")
    return result
