"""What an infotext asks for besides a request's fields: options, by A1111's labels."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from math import isfinite
from typing import Any

from pipeline.errors import PalimpsestError, UnknownName
from pipeline.options import Options

OPTIONS = {
    "Emphasis": "emphasis", "Clip skip": "CLIP_stop_at_last_layers", "RNG": "randn_source", "Tiling": "tiling", "VAE": "sd_vae",
    "VAE Encoder": "sd_vae_encode_method", "VAE Decoder": "sd_vae_decode_method",
    "Conditional mask weight": "inpainting_mask_weight", "Noise multiplier": "initial_noise_multiplier",
    "Extra noise": "img2img_extra_noise", "NGMS": "s_min_uncond", "NGMS all steps": "s_min_uncond_all",
    "Token merging ratio": "token_merging_ratio", "Pad conds": "pad_cond_uncond", "Pad conds v0": "pad_cond_uncond_v0",
    "Old prompt editing timelines": "use_old_scheduling", "Downcast alphas_cumprod": "use_downcasted_alpha_bar",
    "Refiner switch by sampling steps": "refiner_switch_by_sample_steps", "Eta DDIM": "eta_ddim", "Eta": "eta_ancestral",
    "Sigma churn": "s_churn", "Sigma tmin": "s_tmin", "Sigma tmax": "s_tmax", "Sigma noise": "s_noise",
    "Schedule min sigma": "sigma_min", "Schedule max sigma": "sigma_max", "Schedule rho": "rho",
    "ENSD": "eta_noise_seed_delta", "Discard penultimate sigma": "always_discard_next_to_last_sigma",
    "SGM noise multiplier": "sgm_noise_multiplier", "UniPC variant": "uni_pc_variant", "UniPC skip type": "uni_pc_skip_type",
    "UniPC order": "uni_pc_order", "UniPC lower order final": "uni_pc_lower_order_final", "Noise Schedule": "sd_noise_schedule",
    "Skip Early CFG": "skip_early_cond", "Beta scheduler alpha": "beta_dist_alpha", "Beta scheduler beta": "beta_dist_beta",
    "Step cache interval": "step_cache_interval", "Step cache threshold": "step_cache_threshold",
    "Guidance start": "guidance_start", "Guidance stop": "guidance_stop", "Edit reuse": "edit_reuse",
}


NO_FILE = ("", "Automatic", "auto", "None")
"""What stands for no file of one's own choice."""


def pasted_options(params: Mapping[str, str], current: Mapping[str, Any],
                   find_vae: Callable[[str], object]) -> tuple[dict[str, Any], list[str]]:
    """(the options that infotext speaks of and whose value would change, a sentence on each that cannot be used here).

    find_vae raises PalimpsestError where there is none of that name.
    """
    said = {name: typed(params[label], current[name]) for label, name in OPTIONS.items() if label in params and name in current}
    options, notes = {name: value for name, value in said.items() if value != current[name]}, []
    for name, value in list(options.items()):
        try:
            Options().override({name: value})
            if name == "sd_vae" and value not in NO_FILE:
                find_vae(value)
        except PalimpsestError as error:
            notes.append(f'The VAE {value} is not here; the one that was chosen stays.' if isinstance(error, UnknownName)
                         and name == "sd_vae" else f"{error}; it stays as it was.")
            del options[name]
    return options, notes


def typed(text: str, like: Any, *, strict: bool = False) -> Any:
    """Infotext's text as the kind of value that the option has; text that does not fit stays text, to be refused.

    strict: raises ValueError instead.
    """
    if isinstance(like, bool):
        return text != "False"
    try:
        return read_number(text, type(like)) if isinstance(like, int | float) else text
    except ValueError:
        if strict:
            raise
        return text


def read_number(text: str, kind: type) -> int | float:
    """The number that a text is, a fraction cut off where a whole one is wanted. Raises ValueError."""
    if kind is int:
        with suppress(ValueError):
            return int(text)  # not by way of a float, which has 53 bits
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text} is not finite")
    return kind(number)
