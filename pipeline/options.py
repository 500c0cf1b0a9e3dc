"""The settings that change pixels or outputs, as one frozen value with A1111's names.

Nothing reads an option but from the `Options` that a request carries, and nothing is written back: an override makes
a new value.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Mapping

from PIL import ImageColor

from pipeline.errors import InvalidRequest, UnknownName
from pipeline.fonts import font_name
from pipeline.upscaling import find_upscaler


def option(default: Any, sentence: str, *, low: float | None = None, high: float | None = None,
           choices: tuple[str, ...] | None = None, check: Callable[[str, Any], Any] | None = None) -> Any:
    """A field of `Options` with its range and the sentence that explains it.

    check: gives the value as it should be, or raises InvalidRequest with the field's name, where the type says too little.
    """
    return field(default=default, metadata={"sentence": sentence, "low": low, "high": high, "choices": choices, "check": check})


def color(name: str, value: Any) -> str:
    """`value` as a colour that Pillow knows. Raises InvalidRequest naming the field."""
    try:
        ImageColor.getrgb(value)
    except (TypeError, ValueError, AttributeError):
        raise InvalidRequest(name, f'{name} must be a colour such as "#ffffff", got {value!r}') from None
    return value


def upscaler(name: str, value: Any) -> str | None:
    """`value` as the name of an upscaler, or None. Raises UnknownName."""
    if value in (None, "None"):
        return value
    find_upscaler(value, name)
    return value


def file_name(name: str, value: Any) -> str:
    """`value` as the name of a model file; which there are is known where it is looked up."""
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(name, f"{name} must be a name, got {value!r}")
    return value or ""


@dataclass(frozen=True)
class Options:
    """Settings of one request; the engine holds the default ones. Ranges are inclusive."""

    # model
    sd_model_checkpoint: str = option("", "The checkpoint, by its title, name, file name or hash; empty: the one from the start.", check=file_name)
    sd_vae: str = option("Automatic", "The VAE: Automatic takes the file that goes by the checkpoint's name, None the checkpoint's own.", check=file_name)

    # prompt
    CLIP_stop_at_last_layers: int = option(1, "Clip skip: use the text encoder's output this many layers from its end; 0 is as 1.", low=0, high=12)
    emphasis: str = option("Original", "How (word:1.2) acts on the text encoding.", choices=("None", "Ignore", "Original", "No norm"))
    comma_padding_backtrack: int = option(20, "Tokens to look back for a comma where a 75-token chunk is cut.", low=0, high=1000)
    use_old_scheduling: bool = option(False, "Read [a:b:0.5] as A1111 did before 1.6.")
    use_old_emphasis_implementation: bool = option(False, "Weigh words of SD1 prompts as A1111 did in 2022: by brackets, at most 75 tokens.")
    enable_prompt_comments: bool = option(True, "Drop everything after # in a prompt line.")

    # SDXL
    sdxl_crop_top: int = option(0, "Tell SDXL that its picture was cropped by so many pixels at the top.", low=0, high=1024)
    sdxl_crop_left: int = option(0, "Tell SDXL that its picture was cropped by so many pixels at the left.", low=0, high=1024)
    sdxl_refiner_low_aesthetic_score: float = option(2.5, "What the SDXL refiner is told of how the negative prompt's picture looks.", low=0, high=10)
    sdxl_refiner_high_aesthetic_score: float = option(6.0, "What the SDXL refiner is told of how the prompt's picture looks.", low=0, high=10)
    sdxl_clip_l_skip: bool = option(False, "Let clip skip act on SDXL's first text encoder.")

    # noise
    randn_source: str = option("GPU", "Where noise is drawn: GPU follows the device, CPU and NV are the same on all machines.", choices=("GPU", "CPU", "NV"))
    eta_noise_seed_delta: int = option(0, "ENSD: added to the seed for the noise drawn during sampling.")
    initial_noise_multiplier: float = option(1.0, "Multiplies the start noise of img2img.", low=0, high=10)
    img2img_extra_noise: float = option(0.0, "Noise added to the start latent on top of the schedule's.", low=0, high=10)

    # img2img
    img2img_fix_steps: bool = option(False, "Do exactly the number of steps asked for, whatever the denoising strength.")
    img2img_color_correction: bool = option(False, "Match the result's colours to the source's.")
    upscaler_for_img2img: str | None = option(None, "Enlarges a source that is smaller than the picture; null is plain Lanczos.", check=upscaler)
    img2img_background_color: str = option("#ffffff", "Shown through transparent parts of a source.", check=color)
    inpainting_mask_weight: float = option(1.0, "Conditioning mask strength of inpainting checkpoints.", low=0, high=1)
    overlay_inpaint: bool = option(True, "Put the source's unmasked pixels back over the result.")
    return_mask: bool = option(False, "Give the mask beside each inpainted picture.")
    return_mask_composite: bool = option(False, "Give the masked part alone beside each inpainted picture.")
    return_grid: bool = option(True, "Give a grid where there are several pictures.")
    grid_only_if_multiple: bool = option(True, "Give no grid of a single picture.")
    grid_prevent_empty_spots: bool = option(False, "Give grids as many rows as leave no place empty.")
    grid_background_color: str = option("#ffffff", "Fills what a grid's pictures leave free.", check=color)
    grid_text_active_color: str = option("#000000", "The colour of a grid's legends.", check=color)
    grid_text_inactive_color: str = option("#999999", "The colour of legends of what a prompt matrix leaves out.", check=color)
    font: str = option("", "The font of a grid's legends: the path of a file, or a file's name among the system's fonts; empty: Roboto, and a system's font for what that lacks.", check=font_name)
    n_rows: int = option(-1, "Rows of a grid; 0 is the batch size, -1 as many as make it about square.", low=-1, high=16)
    keep_source_exif: bool = option(False, "Write the EXIF of a source, such as camera, day and place, into its results.")
    tiling: bool = option(False, "Make pictures that can be laid side by side.")
    sd_vae_encode_method: str = option("Full", "How sources become latents; all of these encode in full, infotext names the others.", choices=("Full", "Approx NN", "Approx cheap"))
    sd_vae_decode_method: str = option("Full", "How latents become pictures: Approx cheap gives an eighth of the size.", choices=("Full", "Approx cheap"))

    # infotext
    add_model_hash_to_info: bool = option(True, "Write the checkpoint's hash into infotext.")
    add_model_name_to_info: bool = option(True, "Write the checkpoint's name into infotext.")
    add_vae_hash_to_info: bool = option(True, "Write the VAE's hash into infotext.")
    add_vae_name_to_info: bool = option(True, "Write the VAE's name into infotext.")
    add_version_to_infotext: bool = option(True, "Write the program's version into infotext.")

    # networks
    sd_lora: str = option("None", "A LoRA that every prompt gets.", check=file_name)
    extra_networks_default_multiplier: float = option(1.0, "With which weight it gets that.", low=0, high=2)
    lora_add_hashes_to_infotext: bool = option(True, "Write the hashes of LoRAs into infotext.")
    textual_inversion_add_hashes_to_infotext: bool = option(True, "Write the hashes of embeddings into infotext.")

    # sampling
    eta_ancestral: float = option(1.0, "Noise multiplier of the stochastic samplers.", low=0, high=10)
    eta_ddim: float = option(0.0, "Noise multiplier of DDIM and DDIM CFG++.", low=0, high=1)
    s_churn: float = option(0.0, "Sigma churn of Euler, Heun and DPM2.", low=0, high=1000)
    s_tmin: float = option(0.0, "Lowest sigma at which churn acts.", low=0, high=1000)
    s_tmax: float = option(0.0, "Highest sigma at which churn acts; 0 is no limit.", low=0)
    s_noise: float = option(1.0, "Scale of the noise that churn and the SDE samplers add.", low=0, high=10)
    sigma_min: float = option(0.0, "Last sigma of the schedule; 0 is the model's own.", low=0, high=1000)
    sigma_max: float = option(0.0, "First sigma of the schedule; 0 is the model's own.", low=0, high=1000)
    rho: float = option(0.0, "Rho of the Karras and Polyexponential schedules; 0 is their own.", low=0, high=30)
    beta_dist_alpha: float = option(0.6, "Alpha of the Beta schedule.", low=0.01, high=1)
    beta_dist_beta: float = option(0.6, "Beta of the Beta schedule.", low=0.01, high=1)
    use_old_karras_scheduler_sigmas: bool = option(False, "Run schedules from sigma 10 to 0.1.")
    always_discard_next_to_last_sigma: bool = option(False, "Drop the schedule's last sigma but one.")
    sd_noise_schedule: str = option("Default", "The noise levels of the network: its own, or stretched to end in pure noise.", choices=("Default", "Zero Terminal SNR"))
    use_downcasted_alpha_bar: bool = option(False, "Compute the network's noise levels in half precision, as A1111 did before 1.8.")
    enable_quantization: bool = option(False, "Round each sigma to the nearest training timestep for the network.")
    sgm_noise_multiplier: bool = option(False, "Start noise as in Stability's code; acts in txt2img only.")
    no_dpmpp_sde_batch_determinism: bool = option(False, "DPM++ SDE samplers draw one noise for a whole batch, so a picture depends on its batch.")
    uni_pc_variant: str = option("bh1", "Variant of UniPC.", choices=("bh1", "bh2", "vary_coeff"))
    uni_pc_skip_type: str = option("time_uniform", "How UniPC spaces its steps.", choices=("time_uniform", "time_quadratic", "logSNR"))
    uni_pc_order: int = option(3, "Order of UniPC; it needs as many steps.", low=1, high=50)
    uni_pc_lower_order_final: bool = option(True, "Lower UniPC's order in the last steps.")
    refiner_switch_by_sample_steps: bool = option(False, "Switch to the refiner by the share of steps done, not by the noise level.")
    s_min_uncond: float = option(0.0, "NGMS: on every other step skip the negative prompt below this sigma.", low=0, high=1000)
    s_min_uncond_all: bool = option(False, "NGMS on all steps.")
    skip_early_cond: float = option(0.0, "Skip the negative prompt in this share of the first steps.", low=0, high=1)
    pad_cond_uncond: bool = option(False, "Pad the shorter of prompt and negative prompt with the empty prompt.")
    pad_cond_uncond_v0: bool = option(False, "Pad or cut the negative prompt to the prompt's length, as A1111 did before 1.6.")
    batch_cond_uncond: bool = option(True, "Compute prompt and negative prompt in one batch.")
    token_merging_ratio: float = option(0.0, "Token merging: share of the tokens that attention treats as others; faster, less detail.", low=0, high=0.9)
    token_merging_ratio_img2img: float = option(0.0, "Token merging in img2img; 0 is the ratio above.", low=0, high=0.9)

    # fast: other pixels for less time
    step_cache_interval: int = option(1, "Step caching: so many model calls share one pass through the network's depth; 1 is exact.", low=1, high=10)
    step_cache_threshold: float = option(0.0, "Step caching by need: calls share it while the first layer has changed by less than this; 0 is off.", low=0, high=1)
    guidance_start: float = option(0.0, "Use the negative prompt only from this share of the noise levels on; 0 is exact.", low=0, high=1)
    guidance_stop: float = option(1.0, "And only up to this share; 1 is exact.", low=0, high=1)
    edit_reuse: bool = option(False, "Edit-aware reuse: where the same picture is inpainted again, compute only around the mask. Needs memory.")

    # picture files, as the API gives them
    samples_format: str = option("png", "The format of the pictures in an answer.", choices=("png", "jpg", "jpeg", "webp"))
    jpeg_quality: int = option(80, "Quality of JPEG and WebP.", low=1, high=100)
    enable_pnginfo: bool = option(True, "Write infotext into the pictures of an answer.")

    # watching
    live_previews_enable: bool = option(True, "Show the picture while it forms.")
    show_progress_type: str = option("Approx cheap", "How previews are made: a quick approximation, the small decoder in models/VAE-approx/taesd where it is there, or the full one.", choices=("Approx cheap", "TAESD", "Full"))
    live_previews_image_format: str = option("png", "The format of the previews that the API gives.", choices=("jpeg", "png", "webp"))
    show_progress_every_n_steps: int = option(1, "Steps between two previews.", low=1, high=32)

    def override(self, settings: Mapping[str, Any] | None) -> "Options":
        """These options with some replaced. Raises InvalidRequest for an unknown name or a value out of range."""
        if not settings:
            return self
        known = {f.name: f for f in fields(self)}
        for name in settings:
            if name not in known:
                raise UnknownName("override_settings", "option", name, known)
        given = {name: checked(known[name], value) for name, value in settings.items()}
        # A1111: an equal value does not replace the old one, which may be 1.0 where the new one is 1
        return replace(self, **{name: value for name, value in given.items() if value != getattr(self, name)})


def checked(spec: Any, value: Any) -> Any:
    """`value` as the option's type, in its range. Raises InvalidRequest."""
    low, high, choices, check = (spec.metadata[key] for key in ("low", "high", "choices", "check"))
    if check is not None:
        return check(spec.name, value)
    if choices is not None:
        if value not in choices:
            raise UnknownName(spec.name, "value", value, choices)
        return value
    if isinstance(spec.default, bool):
        if value not in (True, False):
            raise InvalidRequest(spec.name, f"{spec.name} must be true or false, got {value!r}")
        return bool(value)
    result = number(spec.name, value, type(spec.default), low, high)
    return value if isinstance(value, int) else result  # infotext prints a whole number as it came


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
