"""One img2img or inpaint request: its fields under A1111's names, and what is valid in them."""

from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import Any

from PIL import Image

from pipeline.errors import InvalidRequest
from pipeline.geometry import Size
from pipeline.options import Options, number
from pipeline.samplers import resolve_names

NO_PICTURE = "init_images: no picture is given; an edit needs one to start from"
MAX_PROMPT = 100_000
"""Characters."""

WHOLE_NUMBERS = {  # field: lowest, highest
    "steps": (1, 1000), "width": (8, 8192), "height": (8, 8192), "batch_size": (1, 64), "n_iter": (1, 1000),
    "resize_mode": (0, 3), "inpainting_fill": (0, 3), "inpaint_full_res_padding": (0, 8192),
    "inpainting_mask_invert": (0, 1), "mask_blur_x": (0, 256), "mask_blur_y": (0, 256),
    "seed": (-(2**63), 2**64 - 1), "subseed": (-(2**63), 2**64 - 1),
    "seed_resize_from_h": (-1, 8192), "seed_resize_from_w": (-1, 8192),
}
NUMBERS = {
    "denoising_strength": (0, 1), "cfg_scale": (-100, 1000), "subseed_strength": (0, 1), "eta": (0, 10),
    "s_churn": (0, 1000), "s_tmin": (0, 1000), "s_tmax": (0, None), "s_noise": (0, 10), "s_min_uncond": (0, 1000),
    "image_cfg_scale": (-100, 1000), "refiner_switch_at": (0, 1),
    "initial_noise_multiplier": (0, 10),
}
REQUIRED_NUMBERS = ("denoising_strength", "cfg_scale", "subseed_strength")
"""The NUMBERS that have no other place to come from when they are None."""


@dataclass(frozen=True)
class Replay:
    """How a request is run again up to one of its pictures."""

    drawn: tuple[int, ...]
    """The random seeds that were drawn."""
    number: int
    """The picture at which it ends, counted from 0 in the order in which they were finished."""


@dataclass(repr=False)
class Request:
    """What is asked for: plain data, picklable, never written by the pipeline.

    Names, defaults and meanings follow A1111. Raises InvalidRequest for values out of range.
    """

    _: KW_ONLY
    outpath_samples: str | None = None
    """Folder that pictures are saved in, one subfolder a day; None: nothing is saved."""
    samples_filename: str | None = None
    """Pictures are saved as outpath_samples/this.png, without a subfolder for the day; None: numbered, by their seed."""
    outpath_grids: str | None = None
    prompt: str | list[str] = ""
    """A list: one for each picture."""
    negative_prompt: str | list[str] = ""
    styles: list[str] = field(default_factory=list)
    """Names in the engine's styles, whose texts are added to both prompts in this order."""
    seed: int | list[int] = -1
    """-1: a random one. A list: one for each picture."""
    subseed: int = -1
    subseed_strength: float = 0.0
    """From the seed's noise (0) to the subseed's (1)."""
    seed_resize_from_h: int = -1
    seed_resize_from_w: int = -1
    seed_enable_extras: bool = True
    """False: the four fields above do nothing."""
    sampler_name: str | None = None
    scheduler: str | None = None
    batch_size: int = 1
    n_iter: int = 1
    """How many batches, one after the other."""
    tiling: bool | None = None
    """Whether the picture is to be laid side by side; None: as the option says."""
    disable_extra_networks: bool = False
    """Leave the prompt's networks out, though not their tags in the infotext."""
    steps: int = 50
    cfg_scale: float = 7.0
    width: int = 512
    """Pixels; the result is rounded down to a multiple of 8, as are heights."""
    height: int = 512
    eta: float | None = None
    s_min_uncond: float | None = None
    s_churn: float | None = None
    s_tmax: float | None = None
    s_tmin: float | None = None
    s_noise: float | None = None
    do_not_save_samples: bool = False
    do_not_save_grid: bool = False
    options: Options = Options()
    override_settings: dict[str, Any] = field(default_factory=dict)
    """Options that are different for this request."""
    init_images: list[Image.Image] = field(default_factory=list)
    source_exif: list[bytes | None] = field(default_factory=list)
    """The EXIF of each of these, for the option keep_source_exif."""
    resize_mode: int = 0
    """0 just resize, 1 crop and resize, 2 resize and fill, 3 just resize (latent upscale)."""
    denoising_strength: float = 0.75
    """Share of the schedule to redo, 0 to 1. Even 0 runs one step; even 1 starts from the noised source."""
    image_cfg_scale: float | None = None
    mask: Any = None
    """In the constructor the mask picture, or one for each of init_images, moved to image_mask. Set by init(): (C, H/8, W/8), 1 = preserve."""
    mask_blur_x: int = 4
    """Sigma in pixels, at the mask's own size."""
    mask_blur_y: int = 4
    mask_blur: InitVar[int | None] = None
    """Both of the above at once."""
    mask_round: bool = True
    """Whether the mask is cut to 0 and 1 where it is made from alpha, and in latent space."""
    inpainting_fill: int = 0
    """0 fill, 1 original, 2 latent noise, 3 latent nothing."""
    inpaint_full_res: bool = True
    """Work on the masked area only, at the full width x height."""
    inpaint_full_res_padding: int = 0
    inpainting_mask_invert: int = 0
    initial_noise_multiplier: float | None = None
    latent_mask: Image.Image | None = None
    """Another mask for latent space; None: the same."""
    refiner_checkpoint: str | None = None
    """A checkpoint that takes over the last part of the sampling and decodes the picture; None or "": none."""
    refiner_switch_at: float | None = None
    """From which share of the schedule on, 0 to 1; None: from the first model call."""
    script_name: str | None = None
    """A title in pipeline.scripts, whose script runs the request; None: it is run once, as it is."""
    script_args: list[Any] = field(default_factory=list)
    """All arguments of that script, in order."""
    alwayson_scripts: dict[str, Any] = field(default_factory=dict)
    """Title of a script that acts inside every run → {"args": [...]}."""
    force_task_id: str | None = None
    replay: Replay | None = None
    """Which picture of an earlier run of this request is made again; None: it is no replay."""

    # --- set by the constructor
    image_mask: Image.Image | list[Image.Image] | None = field(default=None, init=False)
    """A list: one for each of init_images, and scripts.run() runs them one by one."""
    comments: list[str] = field(default_factory=list, init=False)
    standing: Options = field(init=False)
    """The options without this request's own."""

    def __post_init__(self, mask_blur: int | None):
        self.image_mask, self.mask = self.mask, None
        if mask_blur is not None:
            self.mask_blur_x = self.mask_blur_y = mask_blur
        self.standing = self.options
        self.options = self.options.override(self.override_settings)
        self._check_texts()
        self._settle_seeds()
        self._settle_numbers()
        for name in ("tiling", "disable_extra_networks"):
            if getattr(self, name) not in (True, False, None):
                raise InvalidRequest(name, f"{name} must be true or false, got {getattr(self, name)!r}")
        if self.initial_noise_multiplier is None:
            self.initial_noise_multiplier = self.options.initial_noise_multiplier
        self.sampler_name, self.scheduler = resolve_names(self.sampler_name, self.scheduler)
        self.check_sources()
        if self.width % 8 or self.height % 8:
            self.comments.append(f"The size {self.width}×{self.height} was cut to {self.width // 8 * 8}×{self.height // 8 * 8}: "
                                 "sides are multiples of 8.")

    def _check_texts(self) -> None:
        for name in ("prompt", "negative_prompt"):
            value = getattr(self, name)
            for text in value if isinstance(value, list) else [value]:
                check_text(name, text)
        self.styles = [] if self.styles is None else self.styles
        if not isinstance(self.styles, list) or not all(isinstance(name, str) for name in self.styles):
            raise InvalidRequest("styles", f"styles must be a list of names, got {self.styles!r}")

    def _settle_seeds(self) -> None:
        """Nothing means a random one."""
        for name in ("seed", "subseed"):
            if getattr(self, name) in (None, ""):
                setattr(self, name, -1)
        if not self.seed_enable_extras:
            self.subseed, self.subseed_strength, self.seed_resize_from_h, self.seed_resize_from_w = -1, 0.0, 0, 0

    def _settle_numbers(self) -> None:
        """Text that is a number becomes one, within its bounds."""
        for name, (low, high) in WHOLE_NUMBERS.items():
            value = getattr(self, name)
            if name == "seed" and isinstance(value, list):
                self.seed = [number(name, seed, int, low, high) for seed in value]
            else:
                setattr(self, name, number(name, value, int, low, high))
        for name, (low, high) in NUMBERS.items():
            value = getattr(self, name)
            if value is not None or name in REQUIRED_NUMBERS:
                as_float = number(name, value, float, low, high)
                setattr(self, name, value if isinstance(value, (int, float)) else as_float)

    def check_sources(self) -> None:
        """Raise InvalidRequest where there is no picture to start from, or one too many."""
        if not self.init_images or any(not isinstance(image, Image.Image) for image in self.init_images):
            raise InvalidRequest("init_images", NO_PICTURE)
        if len(self.init_images) > self.batch_size:
            raise InvalidRequest("init_images", f"init_images: {len(self.init_images)} pictures given for a batch_size "
                                                f"of {self.batch_size}; give one, or at most batch_size")
        if isinstance(self.image_mask, list) and len(self.image_mask) != len(self.init_images):
            raise InvalidRequest("mask", f"mask: {len(self.image_mask)} masks given for {len(self.init_images)} pictures; give "
                                         "one, or one for each picture")

    @property
    def size(self) -> Size:
        return Size(self.width, self.height)

    @property
    def tiles(self) -> bool:
        """Whether the picture is to be laid side by side."""
        return self.options.tiling if self.tiling is None else self.tiling

    @property
    def batch(self) -> int:
        """Pictures sampled together: batch_size, or the number of source pictures where these are several."""
        return len(self.init_images) if len(self.init_images) > 1 else self.batch_size


def check_text(name: str, text: Any) -> None:
    """Raise InvalidRequest for a prompt that is no text, too long, or that no file could hold."""
    if not isinstance(text, str):
        raise InvalidRequest(name, f"{name} must be text, got {text!r}")
    if len(text) > MAX_PROMPT:
        raise InvalidRequest(name, f"{name} must have at most {MAX_PROMPT} characters, got {len(text)}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidRequest(name, f"{name} holds half a character (a lone surrogate), which no file can store")


def shared_mask_blur(p: Request) -> int | None:
    """Both mask blurs where they are equal, else None."""
    return p.mask_blur_x if p.mask_blur_x == p.mask_blur_y else None


def set_mask_blur(p: Request, value: int) -> None:
    if isinstance(value, int):
        p.mask_blur_x = p.mask_blur_y = value


# set here because inside the class the name is the constructor's argument
Request.mask_blur = property(shared_mask_blur, set_mask_blur)
