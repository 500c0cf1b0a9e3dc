"""The widgets that all modes share, each named after the keyword of img2img() or the option that it fills."""

from dataclasses import dataclass, fields

import gradio as gr

from pipeline.loading import ModelStore
from pipeline.options import Options
from pipeline.samplers import SAMPLERS, SCHEDULES

RESIZE_MODES = ["Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)"]
MASK_MODES = ["Inpaint masked", "Inpaint not masked"]
MASKED_CONTENT = ["fill", "original", "latent noise", "latent nothing"]
INPAINT_AREAS = ["Whole picture", "Only masked"]
SIZES = ["Resize to", "Resize by"]
PREVIEW_METHODS = next(f.metadata["choices"] for f in fields(Options) if f.name == "show_progress_type")

QUIET = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""For events that only change the page: at once, without a spinner, not offered as an endpoint."""
QUEUED = QUIET | {"queue": True, "concurrency_limit": None}
"""The same for those that may have something to tell: gr.Info and gr.Warning reach the page through the queue only."""


@dataclass
class Controls:
    """Labels, ranges and defaults are A1111's; names are options, or img2img()'s keywords, mostly the request's fields."""

    sd_model_checkpoint: gr.Dropdown
    sd_vae: gr.Dropdown
    prompt: gr.Textbox
    negative_prompt: gr.Textbox
    resize_mode: gr.Radio
    mask_blur: gr.Slider
    inpainting_mask_invert: gr.Radio
    inpainting_fill: gr.Radio
    inpaint_full_res: gr.Radio
    inpaint_full_res_padding: gr.Slider
    sampler_name: gr.Dropdown
    scheduler: gr.Dropdown
    steps: gr.Slider
    selected_scale_tab: gr.Radio
    width: gr.Slider
    height: gr.Slider
    scale_by: gr.Slider
    n_iter: gr.Slider
    batch_size: gr.Slider
    cfg_scale: gr.Slider
    denoising_strength: gr.Slider
    seed: gr.Number
    seed_enable_extras: gr.Checkbox
    subseed: gr.Number
    subseed_strength: gr.Slider
    seed_resize_from_w: gr.Slider
    seed_resize_from_h: gr.Slider
    override_settings: gr.Dropdown
    show_progress_type: gr.Radio

    def named(self) -> dict[str, gr.components.Component]:
        """The widgets by field name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def build_model_menus(models: ModelStore) -> dict[str, gr.components.Component]:
    return {
        "sd_model_checkpoint": gr.Dropdown(checkpoint_choices(models), value=models.default.rel, scale=4, min_width=220,
                                           label="Stable Diffusion checkpoint", elem_id="checkpoint"),
        "sd_vae": gr.Dropdown(vae_choices(models), value="Automatic", scale=2, min_width=140, label="SD VAE", elem_id="vae"),
    }


def checkpoint_choices(models: ModelStore) -> list[tuple[str, str]]:
    """(title, what a request sends): a title changes once its hash is known."""
    return [(file.title, file.rel) for file in models.catalog.checkpoints()]


def vae_choices(models: ModelStore) -> list[str]:
    return ["Automatic", "None", *(file.path.name for file in models.catalog.vaes())]


def build_prompts() -> dict[str, gr.components.Component]:
    return {
        "prompt": gr.Textbox(label="Prompt", lines=2, max_lines=8, placeholder="What the picture should show",
                             elem_id="prompt"),
        "negative_prompt": gr.Textbox(label="Negative prompt", lines=1, max_lines=8,
                                      placeholder="What it should not show", elem_id="negative-prompt"),
    }


def build_mask_controls() -> dict[str, gr.components.Component]:
    with gr.Row():
        mask_blur = gr.Slider(0, 64, value=4, step=1, label="Mask blur")
        padding = gr.Slider(0, 256, value=32, step=4, label="Only masked padding, pixels")
    with gr.Row():
        mask_mode = gr.Radio(MASK_MODES, value=MASK_MODES[0], type="index", label="Mask mode")
        area = gr.Radio(INPAINT_AREAS, value=INPAINT_AREAS[0], type="index", label="Inpaint area")
    content = gr.Radio(MASKED_CONTENT, value="original", type="index", label="Masked content")
    return {"mask_blur": mask_blur, "inpaint_full_res_padding": padding, "inpainting_mask_invert": mask_mode,
            "inpaint_full_res": area, "inpainting_fill": content}


def build_generation_controls(native_size: int) -> dict[str, gr.components.Component]:
    """The rest, with width and height at what the model was trained on."""
    with gr.Row():
        sampler_name = gr.Dropdown(list(SAMPLERS), value="DPM++ 2M", label="Sampling method")
        scheduler = gr.Dropdown([s.label for s in SCHEDULES.values()], value="Automatic", label="Schedule type")
    steps = gr.Slider(1, 150, value=20, step=1, label="Sampling steps")
    denoising_strength = gr.Slider(0, 1, value=0.75, step=0.01, label="Denoising strength", elem_id="denoising-strength")
    resize_mode = gr.Radio(RESIZE_MODES, value=RESIZE_MODES[0], type="index", label="Resize mode")
    scale_tab = gr.Radio(SIZES, value=SIZES[0], type="index", label="Size")
    with gr.Row() as resize_to:
        width = gr.Slider(64, 2048, value=native_size, step=8, label="Width")
        height = gr.Slider(64, 2048, value=native_size, step=8, label="Height")
    scale_by = gr.Slider(0.05, 4, value=1, step=0.05, label="Scale", visible=False)
    scale_tab.change(lambda by: (gr.Row(visible=not by), gr.Slider(visible=bool(by))), scale_tab, [resize_to, scale_by],
                     **QUIET)
    with gr.Row():
        n_iter = gr.Slider(1, 100, value=1, step=1, label="Batch count")
        batch_size = gr.Slider(1, 8, value=1, step=1, label="Batch size")
    cfg_scale = gr.Slider(1, 30, value=7, step=0.5, label="CFG Scale")
    with gr.Row():
        seed = gr.Number(value=-1, precision=0, label="Seed", info="-1 is a random one", elem_id="seed")
        extra = gr.Checkbox(value=False, label="Extra", info="Variations of a seed")
    with gr.Group(visible=False) as variations:
        with gr.Row():
            subseed = gr.Number(value=-1, precision=0, label="Variation seed")
            subseed_strength = gr.Slider(0, 1, value=0, step=0.01, label="Variation strength")
        with gr.Row():
            from_width = gr.Slider(0, 2048, value=0, step=8, label="Resize seed from width")
            from_height = gr.Slider(0, 2048, value=0, step=8, label="Resize seed from height")
    extra.change(lambda shown: gr.Group(visible=shown), extra, variations, **QUIET)
    overrides = gr.Dropdown([], value=[], multiselect=True, allow_custom_value=True, label="Override settings",
                            info='Options for this picture only, such as "Clip skip: 2"; pasted infotext fills it',
                            elem_id="override-settings")
    preview = gr.Radio(list(PREVIEW_METHODS), value=PREVIEW_METHODS[0], label="Live preview",
                       info="Full decodes each step: sharper, but it takes time")
    return {"sampler_name": sampler_name, "scheduler": scheduler, "steps": steps, "resize_mode": resize_mode,
            "selected_scale_tab": scale_tab, "width": width, "height": height, "scale_by": scale_by,
            "n_iter": n_iter, "batch_size": batch_size, "cfg_scale": cfg_scale,
            "denoising_strength": denoising_strength, "seed": seed, "seed_enable_extras": extra, "subseed": subseed,
            "subseed_strength": subseed_strength, "seed_resize_from_w": from_width, "seed_resize_from_h": from_height,
            "override_settings": overrides, "show_progress_type": preview}
