"""Palimpsest and diffusers, each ready to run the same edits: from a request to the saved PNG."""

import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from benchmarks.contest import ROOT, Answer
from benchmarks.load import write_checkpoint

if TYPE_CHECKING:
    from pipeline.caches import Cache

DEMO = ROOT / "assets" / "demo-model"
SIZES = {"demo": 256, "sd1": 512, "sdxl": 1024}
"""Model → side of its pictures in pixels."""
NEGATIVE = "blurry, dark"
STAGES = ("text", "VAE encode", "UNet", "around the UNet", "preview", "VAE decode", "overlay", "save", "rest")


def picture(number: int, size: int) -> Image.Image:
    """Coloured clouds, different for each number."""
    noise = np.random.default_rng(number).integers(0, 256, (size // 32, size // 32, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)


def square_mask(share: float, size: int) -> Image.Image:
    """White in a centred square that covers this fraction of the picture."""
    mask, half = Image.new("L", (size, size)), size * share**0.5 / 2
    ImageDraw.Draw(mask).rectangle([size / 2 - half, size / 2 - half, size / 2 + half - 1, size / 2 + half - 1], fill=255)
    return mask


def model_calls(steps: int, strength: float) -> int:
    """Steps that an edit runs here; diffusers runs one fewer."""
    return int(min(strength, 0.999) * steps) + 1


def share_outside(answer: Answer, *stages: str) -> float:
    """Percentage of an edit's time spent outside these stages."""
    return 100 * (1 - sum(answer["stages"].get(stage, 0.0) for stage in stages) / answer["seconds"])


class Stopwatch:
    """Seconds per stage, measured around functions. A nested stage's time does not count for the outer one."""

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)
        self._within: dict[int, list[float]] = defaultdict(list)
        """Thread → seconds spent in nested stages, per open stage."""

    def around(self, owner: Any, name: str, stage: str) -> None:
        """Measure calls of owner.name from now on."""
        function = getattr(owner, name)

        def timed(*args: Any, **named: Any) -> Any:
            within, began = self._within[threading.get_ident()], time.perf_counter()
            within.append(0.0)
            try:
                return function(*args, **named)
            finally:
                spent = time.perf_counter() - began
                self.seconds[stage] += spent - within.pop()
                if within:
                    within[-1] += spent

        setattr(owner, name, timed)


class Palimpsest:
    """The engine with a model file, set up as in app.py: with journal, previews and saving.

    begin: called with each submitted job.
    """

    def __init__(self, file: Path, outputs: Path, *, precision: str = "auto", cache: "Cache | None" = None):
        from pipeline import allocator, families
        from pipeline.device import Course
        from pipeline.engine import local_engine
        from pipeline.families.compiled import Compiler
        from pipeline.journal import Journal

        began = time.perf_counter()
        self.outputs = outputs
        self.begin: Callable[[Any], object] = lambda job: None
        allocator.share_arena()
        place = families.placement.choose("auto", precision)
        load = lru_cache(lambda: families.load(file, place))
        self.engine = local_engine(lambda options: load(), journal=Journal(outputs), cache=cache)
        self.engine.preload().result()  # on its thread: OpenMP threads of another thread would slow down the computation
        self.model = load()
        self.model.compiler = Compiler(outputs / "code", niceness=0)
        self.ready = {"load": time.perf_counter() - began}
        self.watch = Stopwatch()
        self._watch_stages(Course)

    def _watch_stages(self, job: type) -> None:
        from pipeline import finishing, processing

        for name, stage in (("encode_prompts", "text"), ("encode_image", "VAE encode"), ("denoise", "UNet"),
                            ("decode", "VAE decode")):
            self.watch.around(self.model, name, stage)
        self.watch.around(processing.StableDiffusionProcessingImg2Img, "sample", "around the UNet")
        self.watch.around(job, "report", "preview")
        self.watch.around(finishing, "apply_overlay", "overlay")
        self.watch.around(finishing, "try_to_save", "save")

    def __call__(self, *, number: int, size: int, steps: int, strength: float, prompt: str, seed: int,
                 mask: float | None = None, settings: dict[str, Any] | None = None, cfg_scale: float = 7.0, **ignored: Any) -> Answer:
        """mask: the masked fraction of the picture; settings: options."""
        from pipeline.processing import StableDiffusionProcessingImg2Img

        source, masked = picture(number, size), None if mask is None else square_mask(mask, size)
        self.watch.seconds.clear()
        began, busy = time.perf_counter(), time.process_time()
        p = StableDiffusionProcessingImg2Img(
            init_images=[source], mask=masked, prompt=prompt, negative_prompt=NEGATIVE, seed=seed, sampler_name="Euler",
            steps=steps, cfg_scale=cfg_scale, denoising_strength=strength, width=size, height=size, inpainting_fill=1, inpaint_full_res=False,
            outpath_samples=str(self.outputs / "img2img-images"), override_settings=settings or {})
        job = self.engine.submit([p])
        self.begin(job)
        result, = job.result()
        seconds, cpu = time.perf_counter() - began, time.process_time() - busy
        stages = dict(self.watch.seconds)
        self.model.compiler.wait()  # if the options ask for compiled networks, the next edit finds them
        return {"seconds": seconds, "cpu": cpu, "calls": model_calls(steps, strength), "path": result.paths[0],
                "stages": stages | {"rest": seconds - sum(stages.values())}}


class Diffusers:
    """diffusers' own pipelines for the same model.

    configs: the folder with the model's configs. compiled: torch.compile for the UNet, frozen on a CPU.
    """

    def __init__(self, file: Path, configs: Path, outputs: Path, *, precision: str, channels_last: bool, compiled: bool):
        import diffusers

        diffusers.utils.logging.set_verbosity_error()
        diffusers.utils.logging.disable_progress_bar()
        began = time.perf_counter()
        name = diffusers.DiffusionPipeline.load_config(configs)["_class_name"].removesuffix("Pipeline")
        edits, inpaints = (getattr(diffusers, f"{name}{kind}Pipeline") for kind in ("Img2Img", "Inpaint"))
        dtype = getattr(torch, precision)
        if file.is_dir():
            pipe = edits.from_pretrained(file, dtype=dtype, local_files_only=True)
        else:
            pipe = edits.from_single_file(file, config=str(configs), dtype=dtype, local_files_only=True)
        if torch.cuda.is_available():
            pipe.to("cuda")
        if channels_last:
            pipe.unet.to(memory_format=torch.channels_last)
            pipe.vae.to(memory_format=torch.channels_last)
        if compiled:
            torch._inductor.config.freezing = not torch.cuda.is_available()
            pipe.unet = torch.compile(pipe.unet, mode="max-autotune" if torch.cuda.is_available() else None)
        pipe.set_progress_bar_config(disable=True)
        self._edit, self._inpaint = pipe, inpaints(**pipe.components)
        self._inpaint.set_progress_bar_config(disable=True)
        self._outputs, self._made = outputs, 0
        self.ready = {"load": time.perf_counter() - began}

    def __call__(self, *, number: int, size: int, steps: int, strength: float, prompt: str, seed: int,
                 mask: float | None = None, **ignored: Any) -> Answer:
        source, calls = picture(number, size), model_calls(steps, strength)
        request = {"prompt": prompt, "negative_prompt": NEGATIVE, "image": source, "num_inference_steps": steps,
                   "strength": min((calls + 0.01) / steps, 1.0), "guidance_scale": 7.0}
        if mask is not None:
            request |= {"mask_image": square_mask(mask, size), "width": size, "height": size}
        pipe = self._edit if mask is None else self._inpaint
        path = self._outputs / f"{self._made}.png"
        began, busy = time.perf_counter(), time.process_time()
        pipe(**request, generator=torch.Generator().manual_seed(seed)).images[0].save(path)
        seconds, cpu = time.perf_counter() - began, time.process_time() - busy
        self._made += 1
        return {"seconds": seconds, "cpu": cpu, "calls": pipe.num_timesteps, "path": str(path)}


def get_ready(who: str, file: str, configs: str, outputs: str, **settings: Any) -> Callable[..., Answer]:
    """The competitor of that name."""
    if who == "palimpsest":
        return Palimpsest(Path(file), Path(outputs), **settings)
    return Diffusers(Path(file), Path(configs), Path(outputs), **settings)


@contextmanager
def model_files(kind: str) -> Iterator[tuple[Path, Path, Path]]:
    """(model, folder with its configs, folder for pictures): the demo model, or a full-size checkpoint of random weights."""
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        pictures, configs = Path(place) / "pictures", Path(place) / kind
        pictures.mkdir()
        if kind == "demo":
            yield DEMO, DEMO, pictures
            return
        configs.mkdir()
        torch.manual_seed(0)
        file, configs, _ = write_checkpoint(kind, configs)
        yield file, configs, pictures
