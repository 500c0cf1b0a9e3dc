"""The options: settings that change pixels or outputs, as one frozen value with A1111's names.

Each is described once, in its declaration: the page, the API, infotext, receipts, docs/options.md and the translations
read it from there. Code reads options only from the `Options` of a request and never writes them: an override makes a new
value.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from PIL import ImageColor

from pipeline.errors import InvalidRequest, UnknownName
from pipeline.fonts import font_name
from pipeline.upscaling import UPSCALERS

# groups, by their titles in Settings
MODEL, PROMPTS, SDXL, NOISE, IMG2IMG = "Model", "Prompts", "SDXL", "Noise", "img2img"
UPSCALING = "Upscaling"
DETAILS = "ADetailer"
GRIDS, INFOTEXT, NETWORKS, SAMPLING = "Grids", "Infotext", "LoRA and embeddings", "Sampling"
FAST = "Fast, with different pixels"
ANSWERS, WATCHING = "Pictures that the API returns", "Live previews"


@dataclass(frozen=True)
class OptionSpec:
    """Everything about an option. Ranges are inclusive."""

    name: str
    default: Any
    group: str
    label: str
    """Its name on the page."""
    sentence: str
    """What it does, in one sentence."""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Further accepted values (A1111's) → the choice each one means."""
    check: Callable[[str, Any], Any] | None = None
    """Returns the valid value or raises InvalidRequest naming the option; for options whose type is not enough."""
    infotext: str | None = None
    """Its name in infotext; None: infotext leaves it out."""
    also_read: tuple[str, ...] = ()
    """Further names that it is read by."""
    if_absent: str | None = None
    """What its absence from an infotext means; None: nothing."""
    on_make: bool = False
    """It is on the Make tab instead of in Settings."""
    in_picture: bool = True
    """False: it does not affect saved pictures."""
    visitors: bool = True
    """Whether visitors of a shared page may see the owner's value."""

    @property
    def names_in_infotext(self) -> tuple[str, ...]:
        """All its names in infotext, the usual one first."""
        return (*filter(None, [self.infotext]), *self.also_read)

    def checked(self, value: Any) -> Any:
        """`value` converted to the option's type, within its range. Raises InvalidRequest."""
        if self.check is not None:
            return self.check(self.name, value)
        if self.choices is not None:
            value = self.aliases.get(value, value) if isinstance(value, str) else value
            if value not in self.choices:
                raise UnknownName(self.name, "value", value, self.choices)
            return value
        if isinstance(self.default, bool):
            if value not in (True, False):
                raise InvalidRequest(self.name, f"{self.name} must be true or false, got {value!r}")
            return bool(value)
        result = number(self.name, value, type(self.default), self.low, self.high)
        return value if isinstance(value, int) else result  # infotext prints a whole number as it was given


def option(group: str, default: Any, label: str, sentence: str, **more: Any) -> Any:
    """A field of `Options`; `more` are further fields of OptionSpec."""
    return field(default=default, metadata={"group": group, "label": label, "sentence": sentence, **more})


def number(name: str, value: Any, kind: type, low: float | None, high: float | None) -> Any:
    """`value` as an int or a float in [low, high]; None: unbounded. Raises InvalidRequest naming the field."""
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


def color(name: str, value: Any) -> str:
    """`value`, if Pillow knows that colour. Raises InvalidRequest naming the field."""
    try:
        ImageColor.getrgb(value)
    except (TypeError, ValueError, AttributeError):
        raise InvalidRequest(name, f'{name} must be a colour such as "#ffffff", got {value!r}') from None
    return value


def upscaler(name: str, value: Any) -> str | None:
    """`value`, if it can be the name of an upscaler; None: no upscaler. Whether there is one is checked when it is looked up."""
    if value is not None and not isinstance(value, str):
        raise UnknownName(name, "upscaler", value, UPSCALERS)
    return value


def file_name(name: str, value: Any) -> str:
    """`value`, if it can be a model file's name; whether the file exists is checked when it is looked up."""
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(name, f"{name} must be a name, got {value!r}")
    return value or ""


def file_names(name: str, value: Any) -> str:
    """The same for several files: a list of names, or one text with commas."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value) or "Automatic"
    return file_name(name, value)


MODEL_FILES = ("sd_model_checkpoint", "sd_vae", "sd_text_encoders")
"""The options that name a model's files."""
MODEL_OPTIONS = (*MODEL_FILES, "sd_model_kind")
"""The options that say which model is used, and as what."""
EDITS, DRAWS = "Edits by instruction", "Draws"
KINDS = {"Automatic": None, DRAWS: False, EDITS: True}
"""Kinds of models → whether they edit by instruction; None: as their files say."""


@dataclass(frozen=True)
class Options:
    """Settings of one request; the engine holds the defaults."""

    sd_model_checkpoint: str = option(
        MODEL, "", "Stable Diffusion checkpoint", "The title, name, file name or hash of the checkpoint; empty: the one that the program started with.",
        check=file_name, on_make=True)
    sd_vae: str = option(
        MODEL, "Automatic", "SD VAE", "The VAE: Automatic takes the file named like the checkpoint, None the VAE inside the checkpoint.",
        check=file_name, infotext="VAE", on_make=True)
    sd_text_encoders: str = option(
        MODEL, "Automatic", "Text encoders", "The files of a model's text encoders, separated by commas: Automatic takes the first that fit.",
        check=file_names, infotext="Text encoders", on_make=True)
    sd_model_kind: str = option(
        MODEL, "Automatic", "Kind of model",
        "What a model is where its tensors do not show it: FLUX.1 dev draws, and Kontext edits by instruction; likewise Qwen-Image and Qwen-Image-Edit.",
        choices=tuple(KINDS), infotext="Kind of model", if_absent="Automatic", on_make=True)

    CLIP_stop_at_last_layers: int = option(
        PROMPTS, 1, "Clip skip", "Take the text encoder's output this many layers before its end; 0 means 1.", low=0, high=12,
        infotext="Clip skip", if_absent="1")
    emphasis: str = option(
        PROMPTS, "Original", "Emphasis", "How (word:1.2) changes the encoded text.", choices=("None", "Ignore", "Original", "No norm"),
        infotext="Emphasis")
    comma_padding_backtrack: int = option(
        PROMPTS, 20, "Comma search", "How many tokens to look back for a comma at which to end a 75-token chunk.", low=0, high=1000)
    use_old_scheduling: bool = option(
        PROMPTS, False, "Old prompt editing", "Read [a:b:0.5] as A1111 did before 1.6.", infotext="Old prompt editing timelines")
    use_old_emphasis_implementation: bool = option(
        PROMPTS, False, "Old emphasis", "Weight the words of SD1 prompts as A1111 did in 2022: by brackets, at most 75 tokens.")
    enable_prompt_comments: bool = option(PROMPTS, True, "Prompt comments", "Ignore everything after # in a line of the prompt.")

    sdxl_crop_top: int = option(
        SDXL, 0, "Crop at the top", "Tell SDXL that its picture was cropped by this many pixels at the top.", low=0, high=1024)
    sdxl_crop_left: int = option(
        SDXL, 0, "Crop at the left", "Tell SDXL that its picture was cropped by this many pixels at the left.", low=0, high=1024)
    sdxl_refiner_low_aesthetic_score: float = option(
        SDXL, 2.5, "Refiner's low aesthetic score", "The score that the SDXL refiner is given with the negative prompt.", low=0, high=10)
    sdxl_refiner_high_aesthetic_score: float = option(
        SDXL, 6.0, "Refiner's high aesthetic score", "The score that the SDXL refiner is given with the prompt.", low=0, high=10)
    sdxl_clip_l_skip: bool = option(SDXL, False, "Clip skip for SDXL", "Apply clip skip to SDXL's first text encoder.")

    randn_source: str = option(
        NOISE, "GPU", "Random number generator", "Where noise is drawn: GPU depends on the device, CPU and NV give the same on every machine.",
        choices=("GPU", "CPU", "NV"), infotext="RNG", if_absent="GPU")
    eta_noise_seed_delta: int = option(
        NOISE, 0, "Eta noise seed delta", "ENSD: added to the seed for the noise drawn during sampling.", infotext="ENSD")
    initial_noise_multiplier: float = option(
        NOISE, 1.0, "Noise multiplier", "Multiplies the start noise of img2img.", low=0, high=10, infotext="Noise multiplier")
    img2img_extra_noise: float = option(
        NOISE, 0.0, "Extra noise", "Noise added to the start latent on top of the schedule's.", low=0, high=10, infotext="Extra noise")

    img2img_fix_steps: bool = option(
        IMG2IMG, False, "Exact number of steps", "Run exactly the number of steps asked for, whatever the denoising strength.")
    strength_as_noise: bool = option(
        IMG2IMG, False, "Strength is the first noise level",
        "With flow models, start at this fraction of noise: their schedules put most steps near pure noise, where strengths hardly differ.",
        infotext="Strength as noise")
    source_as_reference: bool = option(
        IMG2IMG, True, "Source as reference", "Show models that edit by instruction the source beside the noise.", infotext="Source as reference")
    img2img_color_correction: bool = option(IMG2IMG, False, "Colour correction", "Match the result's colours to the source's.")
    upscaler_for_img2img: str | None = option(
        IMG2IMG, None, "Upscaler", "Enlarges a source that is smaller than the picture; empty: Lanczos.", check=upscaler)
    img2img_background_color: str = option(
        IMG2IMG, "#ffffff", "Background", "The colour behind transparent parts of a source.", check=color)
    inpainting_mask_weight: float = option(
        IMG2IMG, 1.0, "Conditioning mask strength", "How strongly inpainting checkpoints see the mask.", low=0, high=1,
        infotext="Conditional mask weight")
    edit_freely: bool = option(
        IMG2IMG, False, "Edit freely within a mask",
        "Let models that edit by instruction draw the whole picture; the masked part of it is put back, aligned.", infotext="Edit freely")
    fit_colors: bool = option(
        IMG2IMG, False, "Fit colours to the surroundings", "Give an inpainted part the colours that the source has around the mask.",
        infotext="Fit colours")
    overlay_inpaint: bool = option(IMG2IMG, True, "Overlay the original", "Put the source's unmasked pixels back over the result.")
    return_mask: bool = option(IMG2IMG, False, "Return the mask", "Return the mask with each inpainted picture.")
    return_mask_composite: bool = option(
        IMG2IMG, False, "Return the masked part", "Return the masked part by itself with each inpainted picture.")

    ESRGAN_tile: int = option(
        UPSCALING, 192, "Tile of upscalers", "Upscalers in the folders ESRGAN and RealESRGAN enlarge squares of this many pixels; 0 is the whole picture at once.",
        low=0, high=512)
    ESRGAN_tile_overlap: int = option(
        UPSCALING, 8, "Overlap of their tiles", "Pixels that neighbouring squares share; fewer can show seams.", low=0, high=48)
    DAT_tile: int = option(
        UPSCALING, 192, "Tile of DAT", "Upscalers in the folder DAT enlarge squares of this many pixels; 0 is the whole picture at once.",
        low=0, high=512)
    DAT_tile_overlap: int = option(
        UPSCALING, 8, "Overlap of DAT's tiles", "Pixels that neighbouring squares share; fewer can show seams.", low=0, high=48)

    return_grid: bool = option(GRIDS, True, "Return a grid", "Return a grid when there are several pictures.")
    grid_only_if_multiple: bool = option(GRIDS, True, "No grid of one picture", "Make no grid of a single picture.")
    grid_prevent_empty_spots: bool = option(
        GRIDS, False, "No empty cells", "Choose the number of rows so that no cell of the grid is empty.")
    grid_background_color: str = option(GRIDS, "#ffffff", "Grid background", "The colour of the parts of a grid without pictures.", check=color)
    grid_text_active_color: str = option(GRIDS, "#000000", "Legend colour", "The colour of a grid's legends.", check=color)
    grid_text_inactive_color: str = option(
        GRIDS, "#999999", "Inactive legend colour", "The colour of the prompt parts that a prompt matrix leaves out.", check=color)
    font: str = option(
        GRIDS, "", "Font of legends",
        "A font file's path, or the name of a system font; empty: Roboto, and system fonts for characters that it lacks.",
        check=font_name, visitors=False)
    n_rows: int = option(
        GRIDS, -1, "Rows", "Rows of a grid; 0 is the batch size, -1 makes it about square.", low=-1, high=16)

    keep_source_exif: bool = option(
        IMG2IMG, False, "Keep the source's EXIF", "Write the source's EXIF, such as camera, date and place, into its results.", in_picture=False)
    tiling: bool = option(
        IMG2IMG, False, "Tiling", "Make pictures that can be laid side by side without a seam.", infotext="Tiling")
    sd_vae_encode_method: str = option(
        IMG2IMG, "Full", "VAE for encoding", "How sources become latents. All choices encode in full; infotext records any other than Full.",
        choices=("Full", "Approx NN", "Approx cheap"), infotext="VAE Encoder", if_absent="Full")
    sd_vae_decode_method: str = option(
        IMG2IMG, "Full", "VAE for decoding", "How latents become pictures: TAESD and Approx NN need their files in models/VAE-approx; Approx NN gives a quarter of the size, Approx cheap an eighth.",
        choices=("Full", "TAESD", "Approx NN", "Approx cheap"), infotext="VAE Decoder", if_absent="Full")

    add_model_hash_to_info: bool = option(INFOTEXT, True, "Checkpoint's hash", "Write the checkpoint's hash into infotext.")
    add_model_name_to_info: bool = option(INFOTEXT, True, "Checkpoint's name", "Write the checkpoint's name into infotext.")
    add_vae_hash_to_info: bool = option(INFOTEXT, True, "VAE's hash", "Write the VAE's hash into infotext.")
    add_vae_name_to_info: bool = option(INFOTEXT, True, "VAE's name", "Write the VAE's name into infotext.")
    add_version_to_infotext: bool = option(INFOTEXT, True, "Program's version", "Write the program's version into infotext.")

    sd_lora: str = option(NETWORKS, "None", "LoRA for every prompt", "A LoRA that is added to every prompt.", check=file_name)
    extra_networks_default_multiplier: float = option(
        NETWORKS, 1.0, "Weight of that LoRA", "The weight of that LoRA.", low=0, high=2)
    lora_add_hashes_to_infotext: bool = option(NETWORKS, True, "Hashes of LoRAs", "Write the hashes of LoRAs into infotext.")
    textual_inversion_add_hashes_to_infotext: bool = option(
        NETWORKS, True, "Hashes of embeddings", "Write the hashes of embeddings into infotext.")

    eta_ancestral: float = option(
        SAMPLING, 1.0, "Eta", "Noise multiplier of the stochastic samplers.", low=0, high=10, infotext="Eta")
    eta_ddim: float = option(
        SAMPLING, 0.0, "Eta for DDIM", "Noise multiplier of DDIM and DDIM CFG++.", low=0, high=1, infotext="Eta DDIM")
    s_churn: float = option(
        SAMPLING, 0.0, "Sigma churn", "How much noise Euler, Heun and DPM2 add in each step.", low=0, high=1000, infotext="Sigma churn")
    s_tmin: float = option(
        SAMPLING, 0.0, "Sigma tmin", "The lowest sigma at which churn acts.", low=0, high=1000, infotext="Sigma tmin")
    s_tmax: float = option(
        SAMPLING, 0.0, "Sigma tmax", "The highest sigma at which churn acts; 0 is no limit.", low=0, infotext="Sigma tmax")
    s_noise: float = option(
        SAMPLING, 1.0, "Sigma noise", "Scale of the noise that churn and the SDE samplers add.", low=0, high=10, infotext="Sigma noise")
    sigma_min: float = option(
        SAMPLING, 0.0, "Schedule's lowest sigma", "The last sigma of the schedule; 0 is the model's own.", low=0, high=1000,
        infotext="Schedule min sigma", if_absent="0")
    sigma_max: float = option(
        SAMPLING, 0.0, "Schedule's highest sigma", "The first sigma of the schedule; 0 is the model's own.", low=0, high=1000,
        infotext="Schedule max sigma", if_absent="0")
    rho: float = option(
        SAMPLING, 0.0, "Schedule's rho", "Rho of the Karras and Polyexponential schedules; 0 is their own.", low=0, high=30,
        infotext="Schedule rho", if_absent="0")
    # A1111 writes these two under one name and reads them under another
    beta_dist_alpha: float = option(
        SAMPLING, 0.6, "Beta schedule alpha", "Alpha of the Beta schedule.", low=0.01, high=1,
        infotext="Beta schedule alpha", also_read=("Beta scheduler alpha",))
    beta_dist_beta: float = option(
        SAMPLING, 0.6, "Beta schedule beta", "Beta of the Beta schedule.", low=0.01, high=1,
        infotext="Beta schedule beta", also_read=("Beta scheduler beta",))
    use_old_karras_scheduler_sigmas: bool = option(SAMPLING, False, "Old Karras sigmas", "Run schedules from sigma 10 to 0.1.")
    always_discard_next_to_last_sigma: bool = option(
        SAMPLING, False, "Discard next-to-last sigma", "Leave out the next-to-last sigma of every schedule.",
        infotext="Discard penultimate sigma")
    flow_shift: float = option(
        SAMPLING, 0.0, "Shift", "How far a flow model's schedule is moved towards noise; 0 is the model's own.", low=0, high=100, infotext="Shift")
    sd_noise_schedule: str = option(
        SAMPLING, "Default", "Noise schedule", "The network's noise levels: its own, or rescaled to end in pure noise.",
        choices=("Default", "Zero Terminal SNR"), infotext="Noise Schedule")
    use_downcasted_alpha_bar: bool = option(
        SAMPLING, False, "Noise schedule in half precision", "Compute the network's noise levels in half precision, as A1111 did before 1.8.",
        infotext="Downcast alphas_cumprod")
    enable_quantization: bool = option(
        SAMPLING, False, "Quantize sigmas", "Round each sigma to the nearest timestep that the network was trained on.")
    sgm_noise_multiplier: bool = option(
        SAMPLING, False, "SGM noise multiplier", "Scale the start noise as Stability's code does; only in txt2img.",
        infotext="SGM noise multiplier")
    no_dpmpp_sde_batch_determinism: bool = option(
        SAMPLING, False, "DPM++ SDE depends on the batch",
        "DPM++ SDE samplers draw one noise for a whole batch, so a picture depends on its batch.")
    uni_pc_variant: str = option(
        SAMPLING, "bh1", "UniPC variant", "The variant of UniPC.", choices=("bh1", "bh2", "vary_coeff"), also_read=("UniPC variant",))
    uni_pc_skip_type: str = option(
        SAMPLING, "time_uniform", "UniPC steps", "How UniPC spaces its steps.", choices=("time_uniform", "time_quadratic", "logSNR"),
        also_read=("UniPC skip type",))
    uni_pc_order: int = option(
        SAMPLING, 3, "UniPC order", "The order of UniPC; it needs at least as many steps.", low=1, high=50, also_read=("UniPC order",))
    uni_pc_lower_order_final: bool = option(
        SAMPLING, True, "UniPC lower order at the end", "Lower UniPC's order in the last steps.", also_read=("UniPC lower order final",))
    refiner_switch_by_sample_steps: bool = option(
        SAMPLING, False, "Switch to the refiner by steps", "Switch to the refiner by the share of steps done, not by the noise level.",
        infotext="Refiner switch by sampling steps", if_absent="False")
    hires_fix_refiner_pass: str = option(
        SAMPLING, "second pass", "Refiner in hires fix", "The passes of hires fix in which the refiner takes part.",
        choices=("first pass", "second pass", "both passes"), infotext="Hires refiner")
    s_min_uncond: float = option(
        SAMPLING, 0.0, "Negative guidance minimum sigma", "NGMS: skip the negative prompt below this sigma in every other step.",
        low=0, high=1000, infotext="NGMS")
    s_min_uncond_all: bool = option(
        SAMPLING, False, "NGMS in all steps", "Skip the negative prompt in every step below that sigma.", infotext="NGMS all steps")
    skip_early_cond: float = option(
        SAMPLING, 0.0, "Skip early CFG", "Skip the negative prompt in this share of the first steps.", low=0, high=1, infotext="Skip Early CFG")
    pad_cond_uncond: bool = option(
        SAMPLING, False, "Pad prompts", "Pad the shorter of prompt and negative prompt with the empty prompt.", infotext="Pad conds")
    pad_cond_uncond_v0: bool = option(
        SAMPLING, False, "Pad prompts the old way", "Pad or cut the negative prompt to the prompt's length, as A1111 did before 1.6.",
        infotext="Pad conds v0")
    batch_cond_uncond: bool = option(
        SAMPLING, True, "Prompts in one batch", "Compute prompt and negative prompt in one batch.")

    token_merging_ratio: float = option(
        FAST, 0.0, "Token merging", "Fraction of the tokens to merge for attention; faster, with less detail.", low=0, high=0.9,
        infotext="Token merging ratio", on_make=True)
    token_merging_ratio_hr: float = option(
        FAST, 0.0, "Token merging in hires fix", "The ratio for hires fix's second pass; 0 uses the general one.", low=0, high=0.9,
        infotext="Token merging ratio hr")
    token_merging_ratio_img2img: float = option(
        FAST, 0.0, "Token merging in img2img", "The ratio for img2img requests that set none; 0 uses the general one.", low=0, high=0.9)
    step_cache_interval: int = option(
        FAST, 1, "Step cache interval", "How many model calls share one pass through the network's depth; 1 is exact.", low=1, high=10,
        infotext="Step cache interval", on_make=True)
    step_cache_threshold: float = option(
        FAST, 0.0, "Step cache threshold", "Share a pass while the first layer changes by less than this; 0 is off.", low=0, high=1,
        infotext="Step cache threshold", on_make=True)
    guidance_start: float = option(
        FAST, 0.0, "Guidance from", "No negative prompt before this share of the noise levels; 0 is exact.", low=0, high=1,
        infotext="Guidance start", on_make=True)
    guidance_stop: float = option(
        FAST, 1.0, "Guidance to", "No negative prompt after this share of the noise levels; 1 is exact.", low=0, high=1,
        infotext="Guidance stop", on_make=True)
    edit_reuse: bool = option(
        FAST, False, "Edit reuse", "When a picture is inpainted again, compute only around its mask; needs memory.",
        infotext="Edit reuse", on_make=True)

    compile_networks: bool = option(
        FAST, False, "Compiled networks",
        "Compile networks in the background for sizes that are used often, and use them where they prove faster; pixels differ by rounding. "
        "Only in bfloat16 on a processor, with a C++ compiler.", infotext="Compiled")

    ad_bbox_sortby: str = option(
        DETAILS, "None", "Order of finds", "The order in which ADetailer works on what it finds; None: the surest first.",
        choices=("None", "Position (left to right)", "Position (center to edge)", "Area (large to small)"))
    ad_same_seed_for_each_tab: bool = option(
        DETAILS, False, "Same seed for each find", "Give all finds of a picture its seed; otherwise each one has the next seed.")

    samples_format: str = option(
        ANSWERS, "png", "Format", "The format of the pictures.", choices=("png", "jpg", "jpeg", "webp"), in_picture=False)
    jpeg_quality: int = option(ANSWERS, 80, "Quality", "Quality of JPEG and WebP.", low=1, high=100, in_picture=False)
    enable_pnginfo: bool = option(ANSWERS, True, "Infotext in pictures", "Write infotext into the pictures.", in_picture=False)

    live_previews_enable: bool = option(
        WATCHING, True, "Show live previews", "Show the picture while it forms.", in_picture=False)
    show_progress_type: str = option(
        WATCHING, "Approx cheap", "Live preview",
        "Approx cheap is quick; Approx NN and TAESD are sharper and need their files in models/VAE-approx; Full decodes each step, which takes time.",
        choices=("Approx cheap", "Approx NN", "TAESD", "Full"), on_make=True, in_picture=False)
    live_previews_image_format: str = option(
        WATCHING, "png", "Preview format", "The format of the previews that the API returns.", choices=("jpeg", "png", "webp"), in_picture=False)
    show_progress_every_n_steps: int = option(
        WATCHING, 1, "Steps between previews", "Show a preview every this many steps.", low=1, high=32, in_picture=False)

    def override(self, settings: Mapping[str, Any] | None) -> "Options":
        """These options with some replaced. Raises InvalidRequest for an unknown name or a value out of range."""
        if not settings:
            return self
        for name in settings:
            if name not in SPECS:
                raise UnknownName("override_settings", "option", name, SPECS)
        given = {name: SPECS[name].checked(value) for name, value in settings.items()}
        # A1111: an equal value does not replace the old one, so 1.0 stays when 1 is given
        return replace(self, **{name: value for name, value in given.items() if value != getattr(self, name)})


SPECS: Mapping[str, OptionSpec] = MappingProxyType(
    {each.name: OptionSpec(each.name, each.default, **each.metadata) for each in fields(Options)})
"""Every option by its name, in the order shown."""
BY_INFOTEXT: Mapping[str, OptionSpec] = MappingProxyType({label: spec for spec in SPECS.values() for label in spec.names_in_infotext})
"""Every option that infotext records, by each of its names there."""


def infotext_name(name: str) -> str:
    """An option's name in infotext."""
    return SPECS[name].infotext
