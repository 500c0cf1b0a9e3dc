"""The infotext of a picture: its request, model and results of the run, in A1111's keys and order."""


from pipeline import __version__
from pipeline.bound import StableDiffusionProcessing
from pipeline.families.base import Family, ModelInfo
from pipeline.infotext import infotext, ordered
from pipeline.models import without_suffix
from pipeline.options import Options, infotext_name
from pipeline.samplers import SAMPLERS, schedule_label
from pipeline.samplers.sampler import token_merging_ratio


def create_infotext(p: StableDiffusionProcessing, index: int, options: Options | None = None) -> str:
    """The infotext of picture `index` of the running batch. options: whose values to write; None: the request's."""
    options, info = options or p.options, p.sd_model.info
    varied, resized = p.subseed_strength != 0, p.seed_resize_from_w > 0 and p.seed_resize_from_h > 0
    eta = p.options.eta_ancestral if p.eta is None else p.eta
    ensd = options.eta_noise_seed_delta if SAMPLERS[p.sampler_name].uses_ensd and eta != 0 else 0
    inpainting = p.sd_model.sees == "masked source"
    core = {
        "Steps": p.steps,
        "Sampler": p.sampler_name,
        "Schedule type": schedule_label(p.sampler_name, p.scheduler),
        "CFG scale": p.cfg_scale,
        "Distilled CFG Scale": p.distilled_cfg_scale if p.sd_model.takes_guidance else None,
        "Image CFG scale": p.image_cfg_scale if p.sd_model.sees == "source" else None,
        "Seed": p.seeds[index],
        "Size": f"{p.width}x{p.height}",
        "Model hash": info.hash if options.add_model_hash_to_info else None,
        "Model": info.name if options.add_model_name_to_info else None,
        "VAE hash": info.vae_hash if options.add_vae_hash_to_info else None,
        infotext_name("sd_vae"): info.vae if options.add_vae_name_to_info else None,
        infotext_name("sd_text_encoders"): ", ".join(name for name, _ in info.text_encoders) or None,
        infotext_name("sd_model_kind"): options.sd_model_kind if info.may_edit and options.sd_model_kind != "Automatic" else None,
        **modules(info),
        "Variation seed": p.subseeds[index] if varied else None,
        "Variation seed strength": p.subseed_strength if varied else None,
        "Seed resize from": f"{p.seed_resize_from_w}x{p.seed_resize_from_h}" if resized else None,
        "Denoising strength": p.denoising_strength,
        infotext_name("inpainting_mask_weight"): options.inpainting_mask_weight if inpainting else None,
        infotext_name("CLIP_stop_at_last_layers"): options.CLIP_stop_at_last_layers if options.CLIP_stop_at_last_layers > 1 else None,
        infotext_name("eta_noise_seed_delta"): ensd or None,
        infotext_name("token_merging_ratio"): token_merging_ratio(p, options) or None,
        infotext_name("token_merging_ratio_hr"): p.second_merging or None,
        infotext_name("randn_source"): options.randn_source if options.randn_source != "GPU" else None,
        infotext_name("tiling"): True if p.tiles else None,
    }
    version = f"Palimpsest {__version__}" if options.add_version_to_infotext else None
    tail = {"Precision": precision(p.sd_model), "Version": version}
    prompt = p.all_prompts[p.iteration * p.batch + index]  # with its <lora:...> tags; p.prompts lacks them
    return infotext(prompt, p.negative_prompts[index], ordered(core, p.infotext_params(index), tail))


def modules(info: ModelInfo) -> dict[str, str]:
    """Forge's keys for the files that complete a model which is not one file: its VAE and text encoders, without extension."""
    names = [name for name in (info.vae, *(name for name, _ in info.text_encoders)) if name] if info.text_encoders else []
    return {f"Module {number}": without_suffix(name) for number, name in enumerate(names, 1)}


def precision(model: Family) -> str | None:
    """The precision the model computed in; None for float32, the precision of A1111's own CPU mode."""
    name = str(model.placement.dtype).removeprefix("torch.")
    return None if name == "float32" else name
