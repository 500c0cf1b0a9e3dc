"""The widgets shared by all modes, each named after the keyword of img2img() or the option that it sets."""

import math
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import gradio as gr

from pipeline.errors import PalimpsestError
from pipeline.families import FAMILIES
from pipeline.families.base import Defaults, Facts, ModelInfo
from pipeline.families.placement import is_text_encoder
from pipeline.loading import ModelStore
from pipeline.options import FAST, SPECS, Options
from pipeline.samplers import SAMPLERS, SCHEDULES
from pipeline.styles import StyleDatabase
from ui.adetailer import DetailerControls, detector_menus
from ui.controlnet import ControlNetControls, menus_of
from ui.events import QUEUED, QUIET
from ui.fields import WHOLE, Seed, Slider, widget_for
from ui.references import FIELD, References, Takes
from ui.scripts import ScriptControls, build_script_menu

RESIZE_MODES = ["Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)"]
MASK_MODES = ["Inpaint masked", "Inpaint not masked"]
MASKED_CONTENT = ["fill", "original", "latent noise", "latent nothing"]
INPAINT_AREAS = ["Whole picture", "Only masked"]
SIZES = ["Resize to", "Resize by"]
RATIOS = [(1, 1), (4, 3), (3, 2), (16, 9)]
NO_REFINER = "None"
SMALLEST, LARGEST = 64, 2048
"""Range of the size sliders in pixels; the request accepts others."""

@dataclass
class Controls:
    """Labels, ranges and defaults are A1111's; names are options' or img2img()'s keywords, mostly request fields."""

    sd_model_checkpoint: gr.Dropdown
    sd_vae: gr.Dropdown
    sd_text_encoders: gr.Dropdown
    prompt: gr.Textbox
    negative_prompt: gr.Textbox
    styles: gr.Dropdown
    resize_mode: gr.Radio
    mask_blur: gr.Slider
    mask_alpha: gr.Slider
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
    distilled_cfg_scale: gr.Slider
    image_cfg_scale: gr.Slider
    denoising_strength: gr.Slider
    seed: Seed
    seed_enable_extras: gr.Checkbox
    subseed: Seed
    subseed_strength: gr.Slider
    seed_resize_from_w: gr.Slider
    seed_resize_from_h: gr.Slider
    refiner_checkpoint: gr.Dropdown
    refiner_switch_at: gr.Slider
    step_cache_interval: gr.Slider
    step_cache_threshold: gr.Slider
    guidance_start: gr.Slider
    guidance_stop: gr.Slider
    token_merging_ratio: gr.Slider
    edit_reuse: gr.Checkbox
    override_settings: gr.Dropdown
    show_progress_type: gr.Radio
    sd_model_kind: gr.Dropdown
    scripts: ScriptControls
    reference_images: References | None = None

    def named(self) -> dict[str, gr.components.Component]:
        """The widgets by field name; those of scripts by other names, which scripts.packed() reads."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("scripts", "reference_images")}
        return own | self.scripts.named()

    def asked(self) -> dict[str, gr.components.Component]:
        """What a request is made of: named(), the control pictures, which the browser does not keep, and the references, which
        it keeps by itself.
        """
        return self.named() | (self.scripts.controlnet.pictures() if self.scripts.controlnet else {}) | self.references()

    def references(self) -> dict[str, References]:
        return {} if self.reference_images is None else {FIELD: self.reference_images}


def build_model_menus(models: ModelStore) -> dict[str, gr.components.Component]:
    return {
        "sd_model_checkpoint": gr.Dropdown(checkpoint_choices(models), value=models.default.rel, container=False, num_choices_shown=WHOLE,
                                           label=SPECS["sd_model_checkpoint"].label, elem_id="checkpoint"),
        "sd_vae": gr.Dropdown(vae_choices(models), value="Automatic", container=False, num_choices_shown=WHOLE, label=SPECS["sd_vae"].label,
                              elem_id="vae"),
        # none chosen: the first that fit
        "sd_text_encoders": gr.Dropdown(models.catalog.text_encoder_names(), value=[], multiselect=True, container=False, num_choices_shown=WHOLE,
                                        label=SPECS["sd_text_encoders"].label, visible=takes_text_encoders(models, models.default.rel), elem_id="text-encoders"),
    }


def checkpoint_choices(models: ModelStore) -> list[tuple[str, str]]:
    """(title, value in a request): a title changes once its hash is known."""
    return [(file.title, file.rel) for file in models.catalog.checkpoints()]


def vae_choices(models: ModelStore) -> list[str]:
    return ["Automatic", "None", *(name for name, _ in models.catalog.vae_names())]


def refiner_choices(models: ModelStore) -> list[tuple[str, str]]:
    return [(NO_REFINER, ""), *checkpoint_choices(models)]


def changing_menus(models: ModelStore, styles: StyleDatabase) -> dict[str, list[tuple[str, str]]]:
    """Choices (label, value) of the menus that list files and styles, which change while the program runs."""
    return {"sd_model_checkpoint": checkpoint_choices(models), "sd_vae": [(name, name) for name in vae_choices(models)],
            "sd_text_encoders": [(name, name) for name in models.catalog.text_encoder_names()], **script_menus(models),
            "refiner_checkpoint": refiner_choices(models), "styles": [(name, name) for name in styles.styles]}


def script_menus(models: ModelStore) -> dict[str, list[tuple[str, str]]]:
    """The current choices of the scripts' menus that list files, by widget name."""
    return menus_of(models) | detector_menus(models.catalog)


def described(models: ModelStore, checkpoint: str, kind: str = "Automatic") -> ModelInfo | None:
    """None: there is no such checkpoint, or it cannot be read. kind: the option sd_model_kind."""
    try:
        return models.describe(Options(sd_model_checkpoint=checkpoint, sd_model_kind=kind))
    except PalimpsestError:
        return None


def takes_references(models: ModelStore, checkpoint: str, kind: str = "Automatic") -> Takes:
    """How many reference pictures a checkpoint can see."""
    info = described(models, checkpoint, kind)
    return Takes(info.references if info else 0)


def takes_text_encoders(models: ModelStore, checkpoint: str) -> bool:
    """Whether a checkpoint's text encoders may be files of their own."""
    info = described(models, checkpoint)
    return info is not None and info.family in FAMILIES and any(map(is_text_encoder, FAMILIES[info.family].facts.separate))


def sees_source(models: ModelStore, checkpoint: str) -> bool:
    """Whether a checkpoint is also guided by the source picture, like InstructPix2Pix."""
    info = described(models, checkpoint)
    return info is not None and info.sees_source


def may_edit(models: ModelStore, checkpoint: str) -> bool:
    """Whether only a person can say what kind of model a checkpoint is."""
    info = described(models, checkpoint)
    return info is not None and info.may_edit


def shown_for(models: ModelStore, checkpoint: str, kind: str = "Automatic") -> dict[str, bool]:
    """Fields of widgets that only some checkpoints have a use for → whether this one does."""
    return {"sd_text_encoders": takes_text_encoders(models, checkpoint), "image_cfg_scale": sees_source(models, checkpoint),
            "distilled_cfg_scale": takes_guidance(models, checkpoint, kind), "sd_model_kind": may_edit(models, checkpoint)}


def facts_of(models: ModelStore, checkpoint: str, kind: str = "Automatic") -> Facts | None:
    """What a checkpoint shares with its family; None: it cannot be read, or is of no family."""
    info = described(models, checkpoint, kind)
    return FAMILIES[info.family].facts if info and info.family in FAMILIES else None


def suited(models: ModelStore, checkpoint: str, kind: str = "Automatic") -> Defaults | None:
    """The settings that suit a checkpoint's family, where they are not the usual ones."""
    facts = facts_of(models, checkpoint, kind)
    return facts and facts.defaults


def suited_values(models: ModelStore, checkpoint: str, kind: str, width: int, height: int) -> dict[str, Any]:
    """The same as the widgets' values by field, with the size of that many pixels that keeps the proportions.

    Raises PalimpsestError if the checkpoint has none.
    """
    facts = facts_of(models, checkpoint, kind)
    if facts is None or facts.defaults is None:
        raise PalimpsestError("This model has no settings of its own.")
    suits, step = facts.defaults, size_step(facts)
    area, proportions = facts.native_size**2, (width or SMALLEST) / (height or SMALLEST)
    sides = math.sqrt(area * proportions), math.sqrt(area / proportions)
    values = {field.name: value for field in fields(Defaults) if field.name != "distilled" and (value := getattr(suits, field.name)) is not None}
    return values | dict(zip(("width", "height"), (min(max(round(side / step) * step, SMALLEST), LARGEST) for side in sides)))


def size_step(facts: Facts | None) -> int:
    """Pixels of which a checkpoint's width and height must be multiples."""
    return max(facts.latent_format.downscale if facts else 8, 8)


def takes_guidance(models: ModelStore, checkpoint: str, kind: str = "Automatic") -> bool:
    """Whether guidance is an input of a checkpoint's network."""
    suits = suited(models, checkpoint, kind)
    return suits is not None and suits.distilled_cfg_scale is not None


def advice(models: ModelStore, checkpoint: str, kind: str = "Automatic") -> str | None:
    """A sentence on settings that suit a checkpoint's family, where they are not the usual ones; None: none."""
    if (suits := suited(models, checkpoint, kind)) is None:
        return None
    name = models.describe(Options(sd_model_checkpoint=checkpoint)).name
    if suits.distilled_cfg_scale is not None:
        return (f"{name} is made for other settings than Stable Diffusion: {suits.sampler_name}, schedule type {suits.scheduler}, "
                f"{suits.steps} steps, CFG scale {suits.cfg_scale:g}, distilled CFG scale {suits.distilled_cfg_scale:g}.")
    return (f"{name} is made for other settings than Stable Diffusion: {suits.sampler_name}, schedule type {suits.scheduler}, "
            f"{suits.steps} steps, CFG scale {suits.cfg_scale:g}{' for distilled ones' if suits.distilled else ''}.")


def build_prompts() -> tuple[list[gr.HTML], gr.Button, dict[str, gr.components.Component]]:
    """(the token counters, the button that reads generation data, both prompts)."""
    with gr.Row(elem_classes="prompt"):
        counters = [gr.HTML("", elem_classes="tokens")]
        prompt = gr.Textbox(label="Prompt", lines=2, max_lines=8, placeholder="What the picture should show", elem_id="prompt")
        read = gr.Button("Read generation data", elem_id="read-data", elem_classes="sign")
    with gr.Row(elem_classes="prompt"):
        counters.append(gr.HTML("", elem_classes="tokens"))
        negative_prompt = gr.Textbox(label="Negative prompt", lines=1, max_lines=8, placeholder="What it should not show",
                                     elem_id="negative-prompt")
    return counters, read, {"prompt": prompt, "negative_prompt": negative_prompt}


def build_style_menu(styles: StyleDatabase) -> gr.Dropdown:
    return gr.Dropdown(list(styles.styles), value=[], multiselect=True, num_choices_shown=WHOLE, label="Styles", container=False, elem_id="styles")


def build_mask_controls() -> dict[str, gr.components.Component]:
    with gr.Row():
        mask_blur = Slider(0, 64, value=4, step=1, label="Mask blur")
        alpha = Slider(0, 100, value=0, step=1, label="Mask transparency", visible=False)
    with gr.Row():
        mask_mode = gr.Radio(MASK_MODES, value=MASK_MODES[0], type="index", label="Mask mode")
        content = gr.Radio(MASKED_CONTENT, value="original", type="index", label="Masked content")
    with gr.Row():
        area = gr.Radio(INPAINT_AREAS, value=INPAINT_AREAS[0], type="index", label="Inpaint area")
        padding = Slider(0, 256, value=32, step=4, label="Only masked padding, pixels", interactive=False)
    area.change(lambda only_masked: gr.Slider(interactive=bool(only_masked)), area, padding, **QUEUED)
    return {"mask_blur": mask_blur, "mask_alpha": alpha, "inpaint_full_res_padding": padding,
            "inpainting_mask_invert": mask_mode, "inpaint_full_res": area, "inpainting_fill": content}


def build_strength() -> dict[str, gr.components.Component]:
    return {"denoising_strength": Slider(0, 1, value=0.75, step=0.01, label="Denoising strength", elem_id="denoising-strength")}


def build_generation_controls(models: ModelStore,
                              native_size: int) -> tuple[dict[str, gr.components.Component], gr.Button, gr.Button]:
    """(the other widgets, with the model's native width and height; the button that copies the picture's size; the one that takes
    the settings that suit the model)."""
    kind = widget_for("sd_model_kind", visible=may_edit(models, models.default.rel), elem_id="model-kind")
    suits = gr.Button("Use this model's defaults", visible=suited(models, models.default.rel) is not None, size="sm", elem_id="use-defaults")
    with gr.Row(elem_classes="pair"):
        sampler_name = gr.Dropdown(list(SAMPLERS), value="DPM++ 2M", label="Sampling method")
        scheduler = gr.Dropdown([s.label for s in SCHEDULES.values()], value="Automatic", label="Schedule type")
    steps = Slider(1, 150, value=20, step=1, label="Sampling steps")
    resize_mode = gr.Radio(RESIZE_MODES, value=RESIZE_MODES[0], type="index", label="Resize mode")
    size, take_size = build_size(native_size)
    with gr.Row(elem_classes="pair"):
        n_iter = Slider(1, 100, value=1, step=1, label="Batch count")
        batch_size = Slider(1, 8, value=1, step=1, label="Batch size")
    with gr.Row():
        cfg_scale = Slider(1, 30, value=7, step=0.5, label="CFG Scale")
        distilled_cfg_scale = Slider(0, 30, value=3.5, step=0.1, label="Distilled CFG Scale", visible=False)
        image_cfg_scale = Slider(0, 3, value=1.5, step=0.05, label="Image CFG Scale", visible=False)
    seeds = build_seeds()
    with gr.Accordion("Refiner", open=False):
        with gr.Row():
            refiner = gr.Dropdown(refiner_choices(models), value="", num_choices_shown=WHOLE, label="Checkpoint", elem_id="refiner")
            switch_at = Slider(0.01, 1, value=0.8, step=0.01, label="Switch at")
    fast = build_fast()
    overrides = gr.Dropdown([], value=[], multiselect=True, allow_custom_value=True, label="Override settings",
                            info='Options for this picture only, such as "Clip skip: 2"; pasted infotext fills it',
                            elem_id="override-settings")
    previews = SPECS["show_progress_type"]
    preview = gr.Radio(list(previews.choices), value=previews.default, label=previews.label, info=previews.sentence)
    widgets = size | seeds | fast | {
        "sampler_name": sampler_name, "scheduler": scheduler, "steps": steps, "resize_mode": resize_mode, "n_iter": n_iter,
        "batch_size": batch_size, "cfg_scale": cfg_scale, "distilled_cfg_scale": distilled_cfg_scale, "image_cfg_scale": image_cfg_scale,
        "refiner_checkpoint": refiner, "refiner_switch_at": switch_at,
        "override_settings": overrides, "show_progress_type": preview, "sd_model_kind": kind}
    return widgets, take_size, suits


def build_size(native_size: int) -> tuple[dict[str, gr.components.Component], gr.Button]:
    """(width and height, or a factor on the picture's size; the button that copies the picture's size)."""
    by = gr.Radio(SIZES, value=SIZES[0], type="index", label="Size")
    with gr.Column() as resize_to:
        with gr.Row(elem_classes="pair"):
            width = Slider(SMALLEST, LARGEST, value=native_size, step=8, label="Width")
            height = Slider(SMALLEST, LARGEST, value=native_size, step=8, label="Height")
        with gr.Row(elem_id="size-buttons"):
            swap = gr.Button("Swap width and height", elem_id="swap-size", elem_classes="sign")
            take = gr.Button("The picture's size", elem_id="take-size", elem_classes="sign")
            ratios = {ratio: gr.Button(f"{ratio[0]}:{ratio[1]}", size="sm", min_width=40) for ratio in RATIOS}
    scale_by = Slider(0.05, 4, value=1, step=0.05, label="Scale", visible=False)
    by.change(lambda by: (gr.Column(visible=not by), gr.Slider(visible=bool(by))), by, [resize_to, scale_by], **QUEUED)
    both = [width, height]
    swap.click(None, both, both, js="(width, height) => [height, width]", **QUIET)
    for ratio, button in ratios.items():
        button.click(partial(with_ratio, ratio), both, both, **QUEUED)
    return {"selected_scale_tab": by, "width": width, "height": height, "scale_by": scale_by}, take


def with_ratio(ratio: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """The size with this aspect ratio and about as many pixels as before; portrait stays portrait."""
    long, short = (math.sqrt(width * height * part) for part in (ratio[0] / ratio[1], ratio[1] / ratio[0]))
    return within_range(short, long) if height > width else within_range(long, short)


def within_range(width: float, height: float) -> tuple[int, int]:
    """The size in multiples of 8, scaled to fit the sliders' range if necessary."""
    factor = max(SMALLEST / min(width, height), 1)
    if max(width, height) * factor > LARGEST:
        factor = min(LARGEST / max(width, height), 1)
    return tuple(max(round(side * factor / 8) * 8, SMALLEST) for side in (width, height))


def build_seeds() -> dict[str, gr.components.Component]:
    with gr.Row(elem_id="seeds"):
        seed = Seed(value="-1", max_lines=1, label="Seed", elem_id="seed")
        random = gr.Button("Random seed", elem_id="random-seed", elem_classes="sign")
        extra = gr.Checkbox(value=False, label="Extra", container=False, elem_id="extra-seed")
    random.click(None, None, seed, js="() => '-1'", **QUIET)
    with gr.Group(visible=False) as variations:
        with gr.Row(elem_classes="pair"):
            subseed = Seed(value="-1", max_lines=1, label="Variation seed")
            subseed_strength = Slider(0, 1, value=0, step=0.01, label="Variation strength")
        with gr.Row(elem_classes="pair"):
            from_width = Slider(0, 2048, value=0, step=8, label="Resize seed from width")
            from_height = Slider(0, 2048, value=0, step=8, label="Resize seed from height")
    extra.change(lambda shown: gr.Group(visible=shown), extra, variations, **QUEUED)
    return {"seed": seed, "seed_enable_extras": extra, "subseed": subseed, "subseed_strength": subseed_strength,
            "seed_resize_from_w": from_width, "seed_resize_from_h": from_height}


def build_fast() -> dict[str, gr.components.Component]:
    """Options that make pictures faster and slightly different; all off by default."""
    with gr.Accordion(FAST, open=False, elem_id="fast"):
        with gr.Row():
            interval = widget_for("step_cache_interval", step=1)
            threshold = widget_for("step_cache_threshold", step=0.01)
        with gr.Row():
            start = widget_for("guidance_start", step=0.05)
            stop = widget_for("guidance_stop", step=0.05)
        with gr.Row():
            merging = widget_for("token_merging_ratio", step=0.05)
            reuse = widget_for("edit_reuse", elem_id="edit-reuse")
        gr.Markdown("Run exactly, below a result, makes it again without these options and reports the time saved and the difference.")
    return {"step_cache_interval": interval, "step_cache_threshold": threshold, "guidance_start": start, "guidance_stop": stop,
            "token_merging_ratio": merging, "edit_reuse": reuse}


def build_scripts(always_on: dict[str, gr.components.Component], upscalers: list[str],
                  controlnet: ControlNetControls | None = None, adetailer: DetailerControls | None = None) -> ScriptControls:
    """The scripts' menu; always_on: widgets of the always-on scripts; upscalers: the names of all; controlnet: ControlNet's units;
    adetailer: ADetailer's passes.
    """
    menu = build_script_menu(upscalers)
    return ScriptControls(menu.script_name, menu.arguments | always_on, controlnet, adetailer)
