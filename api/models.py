"""The form of requests and answers, as in A1111: names, types and defaults.

A request's field takes whatever A1111's takes ("20" and 20.7 for the integer 20, null for everything); the pipeline checks
whether the value makes sense, and its message is the answer. Ranges are shown in /docs and come from the pipeline's own
tables.
"""

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipeline.request import NUMBERS, WHOLE_NUMBERS
from pipeline.upscaling import MAX_SIDE

RANGES = WHOLE_NUMBERS | NUMBERS


def truncated(value: Any) -> Any:
    """A float truncated to an integer, as in pydantic 1."""
    return int(value) if isinstance(value, float) and math.isfinite(value) else value


def spelled(value: Any) -> Any:
    """A number as text, as in pydantic 1."""
    return str(value) if isinstance(value, int | float) else value


def mapped(value: Any) -> Any:
    """An empty text or list, or a list of pairs, as an object, as in pydantic 1; some programs' empty objects are lists."""
    def is_pair(item: Any) -> bool:
        return isinstance(item, list) and len(item) == 2 and isinstance(item[0], str)

    return dict(value) if isinstance(value, list | str) and all(map(is_pair, value)) else value


Int = Annotated[int, BeforeValidator(truncated)]
Text = Annotated[str, BeforeValidator(spelled)]
Object = Annotated[dict[str, Any], BeforeValidator(mapped)]


def field(name: str, default: Any, sentence: str) -> Any:
    """A request's field with its description and, if the pipeline has one, its range."""
    low, high = RANGES.get(name, (None, None))
    schema = {key: bound for key, bound in (("minimum", low), ("maximum", high)) if bound is not None}
    return Field(default, description=sentence, json_schema_extra=schema)


class Shape(BaseModel):
    """Unknown fields are ignored; names may start with model_, as A1111's do."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


IDLE = "Without effect"
"""Descriptions of fields without effect start with this."""


class Request(Shape):
    """A request in which empty values count as left out, since other programs send every field of a form."""

    @model_validator(mode="before")
    @classmethod
    def without_empty_fields(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if name not in cls.model_fields or not cls.says_nothing(name, value)}

    @classmethod
    def says_nothing(cls, name: str, value: Any) -> bool:
        """Whether it is "" where that is not a valid value, or null where null has no meaning."""
        spec = cls.model_fields[name]
        if spec.is_required():
            return False
        takes_null = type(None) in (getattr(spec.annotation, "__args__", ()))
        if value is None:
            return not takes_null or spec.description.startswith(IDLE)
        return value == "" and not isinstance(spec.default, str)


# --- making pictures

class GenerationRequest(Request):
    """The fields that img2img and txt2img share."""

    prompt: Text | None = field("prompt", "", "What the picture should show, in A1111's prompt grammar.")
    negative_prompt: Text | None = field("negative_prompt", "", "What it should not show.")
    styles: list[Text] | None = field("styles", None, "Names of prompt styles to add.")
    seed: Int | None = field("seed", -1, "The seed of the first picture; -1 draws one.")
    subseed: Int | None = field("subseed", -1, "The seed to vary the noise towards; -1 draws one.")
    subseed_strength: float | None = field("subseed_strength", 0, "From the seed's noise (0) to the subseed's (1).")
    seed_resize_from_h: Int | None = field("seed_resize_from_h", -1,
                                           "Use the noise of a picture of this height; 0 or less is off.")
    seed_resize_from_w: Int | None = field("seed_resize_from_w", -1,
                                           "Use the noise of a picture of this width; 0 or less is off.")
    sampler_name: Text | None = field("sampler_name", None, "A name from /sdapi/v1/samplers; an unknown one means DPM++ 2M.")
    scheduler: Text | None = field("scheduler", None,
                                   "A name or label from /sdapi/v1/schedulers; an unknown one means Automatic.")
    batch_size: Int | None = field("batch_size", 1, "Pictures per batch.")
    n_iter: Int | None = field("n_iter", 1, "Number of batches.")
    steps: Int | None = field("steps", 50, "Sampling steps of the whole schedule.")
    cfg_scale: float | None = field("cfg_scale", 7.0, "How strongly the prompt guides.")
    distilled_cfg_scale: float | None = field("distilled_cfg_scale", 3.5, "The same as an input of networks distilled with it, such as FLUX.1 dev.")
    width: Int | None = field("width", 512, "Pixels; rounded down to a multiple of 8.")
    height: Int | None = field("height", 512, "Pixels; rounded down to a multiple of 8.")
    restore_faces: bool | None = field("restore_faces", None,
                                       "Restore faces afterwards; null follows the option face_restoration.")
    tiling: bool | None = field("tiling", None, "Make the picture tile seamlessly; null follows the option tiling.")
    do_not_save_samples: bool | None = field("do_not_save_samples", False, "Without effect: save_images decides.")
    do_not_save_grid: bool | None = field("do_not_save_grid", False, "Without effect: save_images decides.")
    eta: float | None = field("eta", None,
                              "Noise multiplier of stochastic samplers; null follows the options eta_ancestral and eta_ddim.")
    s_min_uncond: float | None = field("s_min_uncond", None,
                                       "Below this sigma every other step skips the negative prompt; null follows the option.")
    s_churn: float | None = field("s_churn", None, "Sigma churn; null follows the option.")
    s_tmax: float | None = field("s_tmax", None, "Highest sigma at which churn acts, 0 for no limit; null follows the option.")
    s_tmin: float | None = field("s_tmin", None, "Lowest sigma at which churn acts; null follows the option.")
    s_noise: float | None = field("s_noise", None,
                                  "Scale of the noise that churn and SDE samplers add; null follows the option.")
    override_settings: Object | None = field("override_settings", None,
                                             "Options to change for this request, by name.")
    override_settings_restore_afterwards: bool | None = field(
        "override_settings_restore_afterwards", True, "false keeps the overridden options for later requests.")
    refiner_checkpoint: Text | None = field("refiner_checkpoint", None, "A checkpoint that takes over during sampling.")
    refiner_switch_at: float | None = field("refiner_switch_at", None, "Where in the schedule it takes over, 0 to 1.")
    disable_extra_networks: bool | None = field("disable_extra_networks", False, "Leave out the <lora:…> tags of the prompt.")
    firstpass_image: Text | None = field("firstpass_image", None, "Without effect, as in A1111.")
    comments: Object | None = field("comments", None, "Without effect, as in A1111.")
    force_task_id: Text | None = field("force_task_id", None,
                                       "The id to ask progress for and to interrupt by; null generates one.")
    sampler_index: Text | None = field("sampler_index", "Euler", "The sampler if sampler_name is null or empty.")
    reference_images: list[Any] | None = field("reference_images", None, "Up to four further pictures, as base64 or as data: URIs, for models "
                                                                         "that see several.")
    script_name: Text | None = field("script_name", None, "The title of a script from /sdapi/v1/scripts to run.")
    script_args: list[Any] | None = field("script_args", [], "All arguments of that script, in order.")
    send_images: bool | None = field("send_images", True, "Return the pictures.")
    save_images: bool | None = field("save_images", False, "Save the pictures in the server's outputs folder.")
    alwayson_scripts: Object | None = field("alwayson_scripts", {},
                                            'Arguments of scripts that always run: {"title": {"args": […]}}.')
    infotext: Text | None = field("infotext", None, "A picture's infotext, used for fields missing in this request.")


class Img2ImgRequest(GenerationRequest):
    init_images: list[Any] | None = field("init_images", None, "One picture, or up to batch_size, as base64 or as data: URIs.")
    resize_mode: Int | None = field("resize_mode", 0,
                                    "0 just resize, 1 crop and resize, 2 resize and fill, 3 just resize (latent upscale).")
    denoising_strength: float | None = field("denoising_strength", 0.75, "How much of the picture to change, 0 to 1.")
    image_cfg_scale: float | None = field("image_cfg_scale", None,
                                          "How strongly the source guides InstructPix2Pix models.")
    mask: Text | list[Text] | None = field("mask", None, "A picture, white (opaque, if it has alpha) where the source should "
                                                         "change; or a list, one per init image.")
    mask_blur_x: Int | None = field("mask_blur_x", 4, "Horizontal blur of the mask: sigma in pixels.")
    mask_blur_y: Int | None = field("mask_blur_y", 4, "Vertical blur of the mask: sigma in pixels.")
    mask_blur: Int | None = field("mask_blur_x", None, "Sets both of these, if not null.")
    mask_round: bool | None = field("mask_round", True, "Threshold the mask when it comes from alpha, and in latent space.")
    inpainting_fill: Int | None = field("inpainting_fill", 0,
                                        "Masked content: 0 fill, 1 original, 2 latent noise, 3 latent nothing.")
    inpaint_full_res: bool | None = field("inpaint_full_res", True,
                                          "Process only the masked area, at the full width and height.")
    inpaint_full_res_padding: Int | None = field("inpaint_full_res_padding", 0, "Pixels around the masked area to include.")
    inpainting_mask_invert: Int | None = field("inpainting_mask_invert", 0, "1: change the unmasked area.")
    initial_noise_multiplier: float | None = field("initial_noise_multiplier", None,
                                                   "Multiplies the start noise; null follows the option.")
    latent_mask: Text | None = field("latent_mask", None, "A different mask picture for latent space only.")
    include_init_images: bool | None = field("include_init_images", False,
                                             "Repeat init_images and mask in the answer's parameters.")


class Txt2ImgRequest(GenerationRequest):
    denoising_strength: float | None = field("denoising_strength", 0, "How much hires fix changes; 0.75 if left out.")
    enable_hr: bool | None = field("enable_hr", False, "Hires fix: enlarge the picture and redraw it. The hr_ fields act only then.")
    firstphase_width: Int | None = field("firstphase_width", 0, "Replaces width, if not 0.")
    firstphase_height: Int | None = field("firstphase_height", 0, "Replaces height, if not 0.")
    hr_scale: float | None = field("hr_scale", 2.0, "Scale factor, unless hr_resize_x or hr_resize_y is given.")
    hr_upscaler: Text | None = field("hr_upscaler", None, "A name from /sdapi/v1/latent-upscale-modes or /sdapi/v1/upscalers; null is Latent.")
    hr_second_pass_steps: Int | None = field("hr_second_pass_steps", 0, "Steps of the second pass; 0 is as many as steps.")
    hr_resize_x: Int | None = field("hr_resize_x", 0, "Width of the result; 0 follows from hr_resize_y.")
    hr_resize_y: Int | None = field("hr_resize_y", 0, "Height of the result; 0 follows from hr_resize_x. With both, the picture is cropped.")
    hr_checkpoint_name: Text | None = field("hr_checkpoint_name", None, "The checkpoint of the second pass; null is the same.")
    hr_sampler_name: Text | None = field("hr_sampler_name", None, "The sampler of the second pass; null is the same.")
    hr_scheduler: Text | None = field("hr_scheduler", None, "The schedule of the second pass; null is the same.")
    hr_cfg: float | None = field("hr_cfg", None, "cfg_scale of the second pass; null is the same.")
    hr_distilled_cfg: float | None = field("hr_distilled_cfg", None, "distilled_cfg_scale of the second pass; null is the same.")
    hr_prompt: Text | None = field("hr_prompt", "", "The prompt of the second pass; empty is the same.")
    hr_negative_prompt: Text | None = field("hr_negative_prompt", "", "The negative prompt of the second pass; empty is the same.")


class ImagesAnswer(Shape):
    images: list[str] = Field(description="Base64 of each picture: a grid first, a mask directly after its picture.")
    parameters: dict[str, Any] = Field(description="The request as understood.")
    info: str = Field(description="JSON: seeds, prompts, infotexts and further facts about the pictures.")


class InterruptedJob(Shape):
    id_task: str = Field(description="The job's id.")
    prompt: str = Field(description="Its prompt.")
    created: float = Field(description="When it was asked for, in seconds since 1970.")
    pictures: int = Field(description="How many of its pictures are saved.")


class ContinueRequest(Shape):
    id_task: Text = Field(description="The interrupted job's id.")
    send_images: bool = Field(True, description="Send the pictures in the answer.")


# --- watching and stopping

class State(Shape):
    skipped: bool = Field(description="The current batch was skipped.")
    interrupted: bool = Field(description="The job was interrupted.")
    stopping_generation: bool = Field(description="Always false.")
    job: str = Field(description="The job's id; empty: none is running.")
    job_count: int = Field(description="Batches of the job; 0: none is running.")
    job_timestamp: str = Field(description="When the job started, such as 20260131235959.")
    job_no: int = Field(description="Finished batches.")
    sampling_step: int = Field(description="Finished steps of this batch.")
    sampling_steps: int = Field(description="Steps of this batch.")


class ProgressAnswer(Shape):
    progress: float = Field(description="Fraction done, 0 to 1.")
    eta_relative: float = Field(description="Estimated seconds to go.")
    state: State = Field(description="The job's state in numbers.")
    current_image: str | None = Field(description="Base64 of the newest preview.")
    textinfo: str | None = Field(description="The place in the queue, or another message.")


class PageProgressRequest(Shape):
    id_task: Text | None = Field(None, description="The job's id.")
    id_live_preview: Int | None = Field(-1, description="The newest preview already received.")
    live_preview: bool | None = Field(True, description="Whether previews are wanted.")


class PageProgressAnswer(Shape):
    active: bool = Field(description="The job is running.")
    queued: bool = Field(description="The job is waiting.")
    completed: bool = Field(description="The job is done.")
    progress: float | None = Field(None, description="Fraction done, 0 to 1.")
    eta: float | None = Field(None, description="Estimated seconds to go.")
    live_preview: str | None = Field(None, description="The newest preview as a data: URI, if it has not been received yet.")
    id_live_preview: int | None = Field(None, description="The number of that preview.")
    textinfo: str | None = Field(None, description="The place in the queue, or another message.")


class PendingTasks(Shape):
    size: int = Field(description="Number of waiting jobs.")
    tasks: list[str] = Field(description="Their ids, in order.")


# --- picture files and extras

class PictureRequest(Shape):
    image: Text = Field(description="A picture as base64 or as a data: URI.")


class PngInfoAnswer(Shape):
    info: str = Field(description="The infotext in the picture; empty: none.")
    items: dict[str, Any] = Field(description="Other data in the file.")
    parameters: dict[str, Any] = Field(description="The infotext's values by key.")
    comments: list[str] = Field([], description="A sentence on each part of the file that could not be read; not in A1111.")


class InterrogateRequest(Request):
    image: Text = Field("", description="A picture as base64 or as a data: URI.")
    model: Text = Field("clip", description="clip or deepdanbooru; neither is available.")


class ExtrasRequest(Request):
    resize_mode: Int = Field(0, ge=0, le=1,
                             description="0 enlarges by upscaling_resize, 1 to upscaling_resize_w × upscaling_resize_h.")
    show_extras_results: bool = Field(True, description="Without effect, as in A1111.")
    gfpgan_visibility: float = Field(0, ge=0, le=1, description="Face restoration is not supported, as there are only pickles of its models: 0 only.")
    codeformer_visibility: float = Field(0, ge=0, le=1, description="Like gfpgan_visibility: 0 only.")
    codeformer_weight: float = Field(0, ge=0, le=1, description="Without effect.")
    upscaling_resize: float = Field(2, gt=0, le=16, description="Scale factor.")
    upscaling_resize_w: Int = Field(512, ge=1, le=MAX_SIDE, description="Pixels, for resize_mode 1.")
    upscaling_resize_h: Int = Field(512, ge=1, le=MAX_SIDE, description="Pixels, for resize_mode 1.")
    upscaling_crop: bool = Field(True, description="In resize_mode 1, crop the excess.")
    upscaler_1: Text = Field("None", description="A name from /sdapi/v1/upscalers; None leaves the picture unchanged.")
    upscaler_2: Text = Field("None", description="A second one, blended over the first.")
    extras_upscaler_2_visibility: float = Field(0, ge=0, le=1, description="The opacity of the second.")
    upscale_first: bool = Field(False, description="Without effect, as in A1111.")


class ExtrasImageRequest(ExtrasRequest):
    image: Text = Field("", description="A picture as base64 or as a data: URI.")


class NamedPicture(Shape):
    data: Text = Field(description="A picture as base64 or as a data: URI.")
    name: Text = Field(description="Its name; ignored.")


class ExtrasBatchRequest(ExtrasRequest):
    imageList: list[NamedPicture] = Field(description="The pictures.")


class ExtrasImageAnswer(Shape):
    html_info: str = Field(description="What was done, as HTML.")
    image: str | None = Field(None, description="The picture in base64.")


class ExtrasBatchAnswer(Shape):
    html_info: str = Field(description="What was done, as HTML.")
    images: list[str] = Field(description="The pictures in base64.")


class SeamRequest(Request):
    image: Text = Field("", description="The inpainted picture as base64 or as a data: URI.")
    source: Text = Field("", description="What it was made from, at its size; clear parts get the colour img2img_background_color.")
    mask: Text = Field("", description="The mask as it was used, at its size: white where the picture is the model's. With the option "
                                       "return_mask, img2img returns it behind each picture.")
    blend: Text = Field("", description="poisson or soft to blend the seam; empty to measure it only.")


class SeamItem(Shape):
    word: str = Field(description="none, faint or visible.")
    ratio: float = Field(description="The jump divided by the contrast beside it; faint from 1.75, visible from 3.2.")
    jump: float = Field(description="The CIELAB difference across the mask's edge that a fifth of the edge exceeds.")
    contrast: float = Field(description="The picture's own CIELAB difference over the same distance beside the edge.")
    edge: int = Field(description="Length of the edge in pixels, at 1024 pixels for larger pictures; 0: the mask has no edge.")


class SeamAnswer(Shape):
    seam: SeamItem = Field(description="The seam of the picture that was sent.")
    blended: SeamItem | None = Field(None, description="The seam after blending.")
    image: str | None = Field(None, description="The blended picture in base64.")
    outside: int | None = Field(None, description="Number of pixels changed where the mask is black.")


# --- lists

class Named(Shape):
    name: str = Field(description="The name to use in requests.")


class SamplerItem(Named):
    aliases: list[str] = Field(description="Other names, not valid in requests.")
    options: dict[str, str] = Field(description="Its special features, as text.")


class SchedulerItem(Named):
    label: str = Field(description="The name that people see, also valid in requests.")
    aliases: list[str] | None = Field(description="Other names, not valid in requests.")
    default_rho: float = Field(description="Its rho if the option rho is 0; -1: it has none.")
    need_inner_model: bool = Field(description="It uses the model's noise levels.")


class UpscalerItem(Named):
    model_name: str | None = Field(description="A network's file name without extension; null for other methods.")
    model_path: str | None = Field(description="A network's file; null for other methods.")
    model_url: str | None = Field(description="Always null.")
    scale: float | None = Field(description="Its own scale factor.")


class CheckpointItem(Shape):
    title: str = Field(description="The path in the models folder and, once known, the short hash.")
    model_name: str = Field(description="That path without extension, with _ for /.")
    hash: str | None = Field(description="The first 10 digits of the SHA-256, null until known.")
    sha256: str | None = Field(description="The SHA-256 of the file, null until known.")
    filename: str = Field(description="The file.")
    config: str | None = Field(description="The .yaml file beside it, if there is one.")


class VaeItem(Shape):
    model_name: str = Field(description="The name that the option sd_vae takes.")
    filename: str = Field(description="The file.")


class LoraItem(Named):
    alias: str = Field(description="The name that its trainer gave it, also valid in prompts.")
    path: str = Field(description="The file.")
    metadata: dict[str, Any] = Field(description="The metadata in the file.")


class EmbeddingItem(Shape):
    step: int | None = Field(description="How many steps it was trained for.")
    sd_checkpoint: str | None = Field(description="The hash of the checkpoint it was trained on.")
    sd_checkpoint_name: str | None = Field(description="The name of that checkpoint.")
    shape: int = Field(description="Numbers per vector; 0: unknown.")
    vectors: int = Field(description="Number of vectors, each replacing a token; 0: unknown.")


class EmbeddingsAnswer(Shape):
    loaded: dict[str, EmbeddingItem] = Field(description="By name: those usable in prompts.")
    skipped: dict[str, EmbeddingItem] = Field(description="By name: those that are not.")


class StyleItem(Named):
    prompt: str | None = Field(description="Text added to the prompt, or wrapped around it at {prompt}.")
    negative_prompt: str | None = Field(description="The same for the negative prompt.")


class PathItem(Named):
    path: str | None = Field(description="The file.")


class FaceRestorerItem(Named):
    cmd_dir: str | None = Field(description="Its folder.")


class RealesrganItem(Named):
    path: str | None = Field(description="The file or its address.")
    scale: int | None = Field(description="Its scale factor.")


class ScriptsAnswer(Shape):
    txt2img: list[str] = Field(description="Lower-case titles of the scripts that txt2img can run.")
    img2img: list[str] = Field(description="Lower-case titles of the scripts that img2img can run.")


class ScriptArgument(Shape):
    label: str | None = Field(None, description="Its name on the page.")
    value: Any = Field(None, description="Its default.")
    minimum: Any = Field(None, description="The lowest number, if it is a number.")
    maximum: Any = Field(None, description="The highest number, if it is a number.")
    step: Any = Field(None, description="Step of the page's slider.")
    choices: list[Any] | None = Field(None, description="The choices.")


class ScriptItem(Named):
    is_alwayson: bool = Field(description="It is used through alwayson_scripts, not script_name.")
    is_img2img: bool = Field(description="It belongs to img2img, otherwise to txt2img.")
    args: list[ScriptArgument] = Field(description="Its arguments, in order.")


class ExtensionItem(Named):
    remote: str = Field(description="Where it comes from.")
    branch: str = Field(description="Its git branch.")
    commit_hash: str = Field(description="Its git commit.")
    commit_date: int = Field(description="When that commit was made, in seconds since 1970.")
    version: str = Field(description="Its version.")
    enabled: bool = Field(description="Whether it is enabled.")


class WorkerItem(Shape):
    name: str = Field(description="Its device; empty for an engine's only worker.")
    model: str = Field(description="Name of the model in its memory; empty: none.")
    job: str | None = Field(description="Id of the job that it runs; null: none.")
    loading: bool = Field(description="It is loading a model.")
    pictures_per_minute: float = Field(description="Over its last jobs, while it worked; 0: unknown.")
    in_service: bool = Field(description="It takes jobs.")


class ServiceRequest(Shape):
    name: Text = Field(description="The worker's name.")
    in_service: bool = Field(description="Whether it takes jobs; one put out of service finishes its job first.")


class MemoryAnswer(Shape):
    ram: dict[str, Any] = Field(description="Bytes of main memory free, used by this program, and total; or an error.")
    cuda: dict[str, Any] = Field(description="The same for the graphics card, plus PyTorch's counters; or an error.")


class MemoryPlanAnswer(Shape):
    offload: str = Field(description="none: all weights are on the device; encoders: the text encoders' wait in main memory, and each layer is on "
                                     "the device while it computes; model, sequential: all wait there, and each network or layer comes.")
    device: str = Field(description="The device that computes.")
    on_device: dict[str, int] = Field(description="Bytes of each network's weights that stay on the device.")
    in_main_memory: dict[str, int] = Field(description="Bytes of each network's weights that wait in main memory.")
    needed: int = Field(description="Bytes that the device needs at most, with a picture of the model's native size.")
    free: int | None = Field(description="Bytes free on the device without this model; null: unknown.")
    line: str = Field(description="The plan in a few words.")


# --- ADetailer

class DetailerVersionAnswer(Shape):
    version: str = Field(description="The version of the extension whose fields and infotext these are.")


class DetailerModelsAnswer(Shape):
    ad_model: list[str] = Field(description="Values for ad_model: the extension's own names that stand for a detector that is there, then the detectors.")


class DetailerSchemaAnswer(Shape):
    title: str = Field(description="ADetailerArgs.")
    type: str = Field(description="object.")
    properties: dict[str, Any] = Field(description="Each field of a pass: its type, default and range.")


# --- ControlNet

class DetectRequest(Request):
    controlnet_module: Text | None = Field("none", description="A preprocessor's name from /controlnet/module_list.")
    controlnet_input_images: list[Any] = Field([], description="Pictures in base64.")
    controlnet_images: list[Any] = Field([], description="The same, under the name that older clients use.")
    controlnet_processor_res: Int = Field(-1, description="The shorter side at which it sees them; -1: its default.")
    controlnet_threshold_a: float = Field(-1, description="Its first setting; -1: its default.")
    controlnet_threshold_b: float = Field(-1, description="Its second setting; -1: its default.")
    controlnet_masks: list[Any] = Field([], description="A mask for each picture, for preprocessors that need one.")
    low_vram: bool | None = Field(False, description="Without effect.")


class DetectAnswer(Shape):
    images: list[str] = Field(description="The maps as PNG in base64.")
    info: str = Field(description='Always "Success".')


class ControlVersionAnswer(Shape):
    version: int = Field(description="The version of the extension's API.")


class ControlSettingsAnswer(Shape):
    control_net_unit_count: int = Field(description="Units on the page.")


class ControlModelsAnswer(Shape):
    model_list: list[str] = Field(description="Names with the short hash, as units take them.")


class ControlModulesAnswer(Shape):
    module_list: list[str] = Field(description="The preprocessors' names.")
    module_detail: dict[str, dict[str, Any]] = Field(description="By name: its settings.")


class ControlTypesAnswer(Shape):
    control_types: dict[str, dict[str, Any]] = Field(description="By kind: its preprocessors and networks, and the default of each.")


# --- errors

class ErrorAnswer(Shape):
    """An error, in A1111's form."""

    error: str = Field(description="The kind of error.")
    detail: str = Field(description="One sentence on what came and what is valid.")
    body: str = Field(description="Always empty.")
    errors: str = Field(description="The same sentence if A1111 has it here, or empty.")


class InvalidField(Shape):
    loc: list[str | int] = Field(description='Where: "body" or "query", then the field and the position inside it.')
    msg: str = Field(description="What is wrong.")
    type: str = Field(description="The kind of problem, as in pydantic 1.")


class InvalidBody(Shape):
    """A body or query that does not match the schema."""

    detail: list[InvalidField] = Field(description="All problems.")
