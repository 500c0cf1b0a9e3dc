"""One img2img or inpaint request: its fields under A1111's names, and their valid values."""

from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import Any

from PIL import Image

from pipeline.errors import InvalidRequest
from pipeline.geometry import Size
from pipeline.options import Options, number
from pipeline.samplers import resolve_names

NO_PICTURE = "init_images: no picture is given; an edit needs one to start from"
MAX_REFERENCES = 4
SMALLEST_REFERENCE, LONGEST_REFERENCE = 64, 8
"""Pixels of a side, and the ratio of the longer one to the shorter."""
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
    "denoising_strength": (0, 1), "cfg_scale": (-100, 1000), "distilled_cfg_scale": (0, 100), "subseed_strength": (0, 1), "eta": (0, 10),
    "s_churn": (0, 1000), "s_tmin": (0, 1000), "s_tmax": (0, None), "s_noise": (0, 10), "s_min_uncond": (0, 1000),
    "image_cfg_scale": (-100, 1000), "refiner_switch_at": (0, 1),
    "initial_noise_multiplier": (0, 10),
}
REQUIRED_NUMBERS = ("denoising_strength", "cfg_scale", "distilled_cfg_scale", "subseed_strength")
"""The NUMBERS that must not be None."""


@dataclass(frozen=True)
class Replay:
    """How to run a request again up to one of its pictures."""

    drawn: tuple[int, ...]
    """The random seeds that were drawn."""
    number: int
    """Index of the picture to end at, in the order they were finished."""


@dataclass(repr=False)
class Request:
    """What is asked for: plain data, picklable, never written by the pipeline.

    Names, defaults and meanings follow A1111. Raises InvalidRequest for values out of range.
    """

    _: KW_ONLY
    outpath_samples: str | None = None
    """Folder to save pictures in, with one subfolder per day; None: do not save."""
    samples_filename: str | None = None
    """Save pictures as outpath_samples/THIS.png, without a subfolder for the day; None: numbered, with their seed."""
    outpath_grids: str | None = None
    prompt: str | list[str] = ""
    """A list: one per picture."""
    negative_prompt: str | list[str] = ""
    styles: list[str] = field(default_factory=list)
    """Names of the engine's styles; their texts are added to both prompts in this order."""
    seed: int | list[int] = -1
    """-1: random. A list: one per picture."""
    subseed: int = -1
    subseed_strength: float = 0.0
    """From the seed's noise (0) to the subseed's (1)."""
    seed_resize_from_h: int = -1
    seed_resize_from_w: int = -1
    seed_enable_extras: bool = True
    """False: ignore the four fields above."""
    sampler_name: str | None = None
    scheduler: str | None = None
    batch_size: int = 1
    n_iter: int = 1
    """Number of batches."""
    tiling: bool | None = None
    """Whether the picture must tile seamlessly; None: the option decides."""
    disable_extra_networks: bool = False
    """Ignore the prompt's networks; their tags stay in infotext."""
    steps: int = 50
    cfg_scale: float = 7.0
    distilled_cfg_scale: float = 3.5
    """Guidance as an input of networks distilled with it, such as FLUX.1 dev; others do not see it."""
    width: int = 512
    """Pixels; width and height are rounded down to multiples of 8."""
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
    """Options to change for this request."""
    init_images: list[Image.Image] = field(default_factory=list)
    source_exif: list[bytes | None] = field(default_factory=list)
    """The EXIF of each of init_images, for the option keep_source_exif."""
    reference_images: list[Image.Image] = field(default_factory=list)
    """Further pictures for models that see several, such as FLUX.2 klein."""
    resize_mode: int = 0
    """0 just resize, 1 crop and resize, 2 resize and fill, 3 just resize (latent upscale)."""
    denoising_strength: float = 0.75
    """Fraction of the schedule to redo, 0 to 1. 0 still runs one step; 1 still starts from the noised source."""
    image_cfg_scale: float | None = None
    mask: Any = None
    """Constructor: the mask picture or one per init image, moved to image_mask. Set by init(): (C, H/8, W/8), 1 = preserve."""
    mask_blur_x: int = 4
    """Sigma in pixels, at the mask's own size."""
    mask_blur_y: int = 4
    mask_blur: InitVar[int | None] = None
    """Sets both of the above."""
    mask_round: bool = True
    """Whether to threshold the mask to 0 and 1 when it comes from alpha, and in latent space."""
    inpainting_fill: int = 0
    """0 fill, 1 original, 2 latent noise, 3 latent nothing."""
    inpaint_full_res: bool = True
    """Process the masked area only, at the full width x height."""
    inpaint_full_res_padding: int = 0
    inpainting_mask_invert: int = 0
    initial_noise_multiplier: float | None = None
    latent_mask: Image.Image | None = None
    """A different mask for latent space; None: the same mask."""
    refiner_checkpoint: str | None = None
    """A checkpoint that takes over for the last part of sampling and decodes the picture; None or "": none."""
    refiner_switch_at: float | None = None
    """Fraction of the schedule after which it takes over, 0 to 1; None: from the first model call."""
    script_name: str | None = None
    """Title of the script in pipeline.scripts that runs the request; None: run it once as it is."""
    script_args: list[Any] = field(default_factory=list)
    """All arguments of that script, in order."""
    alwayson_scripts: dict[str, Any] = field(default_factory=dict)
    """Title of a script that acts within each run → {"args": [...]}."""
    force_task_id: str | None = None
    replay: Replay | None = None
    """For making a picture of an earlier run again; None: not a replay."""
    continues: str | None = None
    """The journal's id of the interrupted job that this one continues; None: it starts from the beginning."""

    helps: bool = False
    """The run only computes the batches that it is told to, for another run of the same request; see worker.Turn."""

    # --- set by the constructor
    image_mask: Image.Image | list[Image.Image] | None = field(default=None, init=False)
    """A list: one per init image; scripts.run() then runs them one by one."""
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
        self._check_references()
        if self.width % 8 or self.height % 8:
            self.comments.append(f"The size {self.width}×{self.height} was rounded down to {self.width // 8 * 8}×{self.height // 8 * 8}: "
                                 "sides must be multiples of 8.")

    def _check_texts(self) -> None:
        for name in ("prompt", "negative_prompt"):
            value = getattr(self, name)
            for text in value if isinstance(value, list) else [value]:
                check_text(name, text)
        self.styles = [] if self.styles is None else self.styles
        if not isinstance(self.styles, list) or not all(isinstance(name, str) for name in self.styles):
            raise InvalidRequest("styles", f"styles must be a list of names, got {self.styles!r}")

    def _settle_seeds(self) -> None:
        """A missing seed means a random one."""
        for name in ("seed", "subseed"):
            if getattr(self, name) in (None, ""):
                setattr(self, name, -1)
        if not self.seed_enable_extras:
            self.subseed, self.subseed_strength, self.seed_resize_from_h, self.seed_resize_from_w = -1, 0.0, 0, 0

    def _settle_numbers(self) -> None:
        """Convert text to numbers, and check bounds."""
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
        """Raise InvalidRequest if there is no source picture, or the wrong number of pictures or masks."""
        if not self.init_images or any(not isinstance(image, Image.Image) for image in self.init_images):
            raise InvalidRequest("init_images", NO_PICTURE)
        if len(self.init_images) > self.batch_size:
            raise InvalidRequest("init_images", f"init_images: {len(self.init_images)} pictures given for a batch_size "
                                                f"of {self.batch_size}; give one, or at most batch_size")
        if isinstance(self.image_mask, list) and len(self.image_mask) != len(self.init_images):
            raise InvalidRequest("mask", f"mask: {len(self.image_mask)} masks given for {len(self.init_images)} pictures; give "
                                         "one, or one for each picture")

    def _check_references(self) -> None:
        if self.reference_images is None:
            self.reference_images = []
        check_number_of_references(len(self.reference_images))
        for number, image in enumerate(self.reference_images, 1):
            width, height = image.size
            if min(image.size) < SMALLEST_REFERENCE:
                raise InvalidRequest("reference_images", f"reference_images: picture {number} must have at least {SMALLEST_REFERENCE}x{SMALLEST_REFERENCE} "
                                                         f"pixels, got {width}x{height}")
            if max(image.size) > LONGEST_REFERENCE * min(image.size):
                raise InvalidRequest("reference_images", f"reference_images: picture {number} must be at most {LONGEST_REFERENCE} times as long as it is wide, "
                                                         f"got {width}x{height}")

    @property
    def size(self) -> Size:
        return Size(self.width, self.height)

    @property
    def largest(self) -> Size:
        """The size of the largest picture that is sampled."""
        return self.size

    @property
    def second_merging(self) -> float:
        """The ratio of token merging in a second pass; 0: none, or no second pass."""
        return 0.0

    @property
    def tiles(self) -> bool:
        """Whether the picture must tile seamlessly."""
        return self.options.tiling if self.tiling is None else self.tiling

    @property
    def batch(self) -> int:
        """Pictures sampled together: batch_size, or the number of source pictures if there are several."""
        return len(self.init_images) if len(self.init_images) > 1 else self.batch_size


def check_number_of_references(count: int) -> None:
    """Raise InvalidRequest for more reference pictures than any model takes."""
    if count > MAX_REFERENCES:
        raise InvalidRequest("reference_images", f"reference_images: at most {MAX_REFERENCES} pictures are possible, got {count}")


def check_text(name: str, text: Any) -> None:
    """Raise InvalidRequest for a prompt that is not text, is too long, or cannot be encoded."""
    if not isinstance(text, str):
        raise InvalidRequest(name, f"{name} must be text, got {text!r}")
    if len(text) > MAX_PROMPT:
        raise InvalidRequest(name, f"{name} must have at most {MAX_PROMPT} characters, got {len(text)}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidRequest(name, f"{name} contains a lone surrogate (half a character), which cannot be stored")


def shared_mask_blur(p: Request) -> int | None:
    """The mask blur if both axes are equal, else None."""
    return p.mask_blur_x if p.mask_blur_x == p.mask_blur_y else None


def set_mask_blur(p: Request, value: int) -> None:
    if isinstance(value, int):
        p.mask_blur_x = p.mask_blur_y = value


# set here because inside the class the name is the constructor's argument
Request.mask_blur = property(shared_mask_blur, set_mask_blur)
