"""What an infotext asks for besides a request's fields: options, by A1111's labels."""

from collections.abc import Mapping
from typing import Any

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


def pasted_options(params: Mapping[str, str], current: Mapping[str, Any]) -> dict[str, Any]:
    """The options that infotext speaks of and whose value would change."""
    said = {name: typed(params[label], current[name]) for label, name in OPTIONS.items() if label in params and name in current}
    return {name: value for name, value in said.items() if value != current[name]}


def typed(text: str, like: Any) -> Any:
    """Infotext's text as the kind of value that the option has; text that does not fit stays text, to be refused."""
    if isinstance(like, bool):
        return text != "False"
    try:
        return type(like)(float(text)) if isinstance(like, int | float) else text
    except (ValueError, OverflowError):
        return text
