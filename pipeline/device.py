"""The worker of this process: it holds models and runs requests on the calling thread."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from errno import EIO
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline import allocator
from pipeline.caches import Cache
from pipeline.conditioning import PromptEncoder
from pipeline.controlnet.store import ControlNets
from pipeline.detectors.store import Detectors
from pipeline.embeddings import Embedding, EmbeddingShelf
from pipeline.errors import Cancelled, Interrupted
from pipeline.families.base import Family, ModelInfo
from pipeline.families.sam import Prompt
from pipeline.hooks import HookList, Hooks
from pipeline.job import sendable
from pipeline.kept import PAUSE, Kept
from pipeline.memory import MemoryPlan, check_memory, free_memory, frugal, is_out_of_memory, keep_freed_where_plenty, memory_report
from pipeline.models import Catalog
from pipeline.networks import Networks
from pipeline.options import Options
from pipeline.previews import Preview, pack, preview
from pipeline.processed import Processed
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.progress import Progress
from pipeline.receipt import Receipts, where
from pipeline.record import PLACES
from pipeline.saving import png_of, save
from pipeline.scripts import run as run_script
from pipeline.segmenters import Segmenters
from pipeline.styles import StyleDatabase
from pipeline.upscalers.names import Upscalers
from pipeline.upscalers.running import PROCESSOR, Running
from pipeline.worker import Begun, EmbeddingInfo, Keep, Loaded, Loading, News, Placing, Sampled, Saving, Started, Tell, Turn, Unplaced, Wishes

logger = logging.getLogger(__name__)

NO_PLAN = MemoryPlan("none", "", {}, 0, None)
"""Of models that come from nowhere."""


class DeviceWorker:
    """Runs requests with the models that `load` gives for options.

    loaded: the model that options name, if it is in memory. make_room: drops all models but the one used last, called when
    memory has run out; release: drops all. plan: where a model's weights will be. embeddings, networks: what prompts may name. cache: values kept between requests.
    segmenters: models that find objects in pictures. control_networks: networks that guide models by pictures. detectors: models
    that find faces and the like. upscalers: the folder of networks that enlarge pictures, on `device`. keep_every: seconds of work
    that a crash may lose. far: pictures are saved on another machine, by Placing.
    """

    def __init__(self, load: Callable[[Options], Family], hooks: Iterable[Hooks] = (), *,
                 loaded: Callable[[Options], Family | None] = lambda options: None, make_room: Callable[[], None] = lambda: None,
                 release: Callable[[], None] = lambda: None, plan: Callable[[Options], MemoryPlan] = lambda options: NO_PLAN, embeddings: EmbeddingShelf | None = None,
                 networks: Networks | None = None, cache: Cache | None = None, segmenters: Segmenters | None = None,
                 control_networks: ControlNets | None = None, detectors: Detectors | None = None,
                 upscalers: Catalog | None = None, device: torch.device = PROCESSOR,
                 keep_every: float = PAUSE, far: bool = False):
        self._keep_every, self._far = keep_every, far
        self._load, self._loaded, self._make_room, self._release, self._plan = load, loaded, make_room, release, plan
        self._segmenters = segmenters or Segmenters()
        self._control_networks, self._detectors = control_networks or ControlNets(), detectors or Detectors()
        self._hooks, self._cache = HookList(hooks), cache or Cache()
        self._embeddings, self._networks = embeddings or EmbeddingShelf(), networks or Networks()
        self._upscaling = Running(Upscalers(upscalers).file, device)
        self._upscalers = Upscalers(upscalers, self._upscaling.run)
        self._tell_loading: Tell = ignore

    def run(self, request: StableDiffusionProcessingImg2Img, styles: StyleDatabase, tell: Tell, wishes: Wishes,
            kept: bytes = b"") -> Processed:
        with self._segmenters.card:
            return self._answering(lambda: self._run(request, styles, tell, wishes, kept))

    def load(self, options: Options, tell: Tell) -> ModelInfo:
        with self._segmenters.card:
            return self._answering(lambda: self._model_for(tell, options).info)

    def plan(self, options: Options) -> MemoryPlan:
        return self._answering(lambda: self._plan(options))

    def release(self) -> None:
        self._release_helpers()
        self._release()

    def _release_helpers(self) -> None:
        """Drop all networks but the models themselves."""
        self._segmenters.release()
        self._control_networks.release()
        self._detectors.release()
        self._upscaling.release()

    def rest(self) -> None:
        allocator.give_back()

    def count_tokens(self, prompts: list[str], options: Options, calls: int) -> list[int] | None:
        family = self._loaded(options)
        return family and list(map(PromptEncoder(family, options, calls, Cache()).count_tokens, prompts))

    def memory(self) -> dict[str, Any]:
        return memory_report()

    def embeddings(self) -> tuple[list[EmbeddingInfo], dict[str, str]]:
        fitting, skipped = self._embeddings.known()
        return list(map(info_of, fitting.values())), skipped

    def segmenters(self) -> list[str]:
        return self._segmenters.names()

    def segment(self, name: str, picture: np.ndarray, key: str, prompt: Prompt) -> np.ndarray:
        return self._answering(lambda: self._segmenters.segment(name, picture, key, prompt))

    def upscale(self, name: str, picture: np.ndarray) -> np.ndarray:
        free = self._segmenters.card.acquire(blocking=False)
        try:
            return self._answering(lambda: self._upscaling.run(name, picture, on_card=free))
        finally:
            if free:
                self._segmenters.card.release()

    def tell_loading(self, share: float) -> None:
        """Report the fraction of the model that is loaded; `load` calls this."""
        self._tell_loading(Loading(round(share, 2)))

    def _answering(self, work: Callable):
        """The result of `work`. An exception is re-raised as plain data, without references into this process."""
        try:
            return work()
        except Exception as error:
            failure = sendable(error)
        raise failure

    def _run(self, request: StableDiffusionProcessingImg2Img, styles: StyleDatabase, tell: Tell, wishes: Wishes,
             earlier: bytes) -> Processed:
        places = {name: getattr(request, name) for name in PLACES}
        kept = Kept(earlier, lambda data: tell(Keep(data)), dict if request.helps else lambda: {
            "places": places, "seeds": receipts.seeds, "files": course.files, "chance": receipts.chance},
            pause=self._keep_every, each_batch=request.helps)
        course = Course(tell, wishes, kept, helps=request.helps, far=self._far)
        receipts = Receipts.of(request.replay, kept.facts.get("seeds"), kept.facts.get("chance", ""))
        try:
            model = request.sd_model or self._model_for(tell, request.options)
            keep_freed_where_plenty(model.placement, request.largest.width * request.largest.height * request.batch_size)
            check_memory(model, request.largest.width * request.largest.height, request.batch_size)
            return self._run_with(model, course, self._bound(request, styles, receipts), self._cache)
        except Cancelled:
            kept.flush()
            raise
        except Exception as error:
            if request.helps or not is_out_of_memory(error):
                raise
            logger.warning("out of memory; retrying the request with less")
        # by now the first try's tensors are freed along with its exception
        receipts.try_again()
        course.try_again()
        self._cache.clear()
        self._release_helpers()
        self._make_room()
        with frugal(request.sd_model or self._model_for(tell, request.options)) as model:
            check_memory(model, request.largest.width * request.largest.height, request.batch_size, sparing=True)
            second = self._bound(request, styles, receipts)
            second.comments.append(f"Memory ran out, so it was run again with less: {model.changes}.")
            second.extra_generation_params["Low memory"] = model.changes
            return self._run_with(model, course, second, Cache())  # tiling changes latents, so nothing may be shared

    def _bound(self, request: StableDiffusionProcessingImg2Img, styles: StyleDatabase,
               receipts: Receipts) -> StableDiffusionProcessingImg2Img:
        """A fresh variant of the request for one try: its working state and comments are discarded with it."""
        p = request.variant()
        p.comments, p.scripts, p.receipts = list(request.comments), self._hooks, receipts
        p.embeddings, p.style_database, p.networks = self._embeddings, styles, self._networks
        p.free_memory, p.control_networks = free_memory, self._control_networks
        p.upscalers, p.detectors = self._upscalers, self._detectors
        return p

    def _run_with(self, model: Family, course: "Course", p: StableDiffusionProcessingImg2Img, cache: Cache) -> Processed:
        p.sd_model, p.progress, p.cache = model, course, cache
        p.load_model = partial(self._model_for, course.tell)
        p.kept = course.kept
        course.start(p)
        try:
            result = run_script(p)
        finally:
            course.model = None  # so that it can be dropped to make room for another
        if result.interrupted or p.helps:
            course.kept.flush()
        if p.helps:
            return replace(result, images=[], infotexts=[], paths=[])
        return replace(result, model=model.info, inpaints=model.sees == "masked source",
                       found=p.receipts.found)

    def _model_for(self, tell: Tell, options: Options) -> Family:
        self._tell_loading = tell
        tell(Loading())
        try:
            return self._load(options)
        finally:
            self._tell_loading = ignore
            tell(Loaded())


class Course(Progress):
    """Progress of a run, sent as news; and stopped, skipped or cancelled by wishes."""

    def __init__(self, tell: Tell, wishes: Wishes, kept: Kept, *, helps: bool = False, far: bool = False):
        self.tell, self._wishes, self.kept, self._helps, self._far = tell, wishes, kept, helps, far
        self.model: Family | None = None
        self._options = Options()
        self._batch_size, self._skips, self._ended = 1, 0, False
        self._turns = 0
        self._skips_before: int | None = None
        """The number of skips wished for before the running batch, until its sampling begins."""
        self._behind = self._ahead = 0
        """Steps of the batch's samplings before and after the running one."""
        self._begun = self._counted = 0
        """Pictures started in this try, and pictures announced in all tries."""
        self._saved: dict[str, list[str]] = {}
        """Paths of this try's files, by the names they were saved under."""
        self._earlier: dict[str, list[str]] = {name: [path for path in paths if far or Path(path).parent.is_dir()]
                                               for name, paths in kept.facts.get("files", {}).items()}
        """The files of an earlier try or run that this one has not replaced yet."""
        self._sampled = Sampled()
        self._coming: Preview | None = None
        """The last step's, if a card was still computing it."""

    def start(self, p: StableDiffusionProcessingImg2Img) -> None:
        """Report on this request from now on; it has its model."""
        self.model, self._options, self._batch_size = p.sd_model, p.options, p.batch_size
        self.tell(Started(p.sd_model.info, where(p.sd_model.placement)))
        self._report()

    def try_again(self) -> None:
        """Start over: pictures are not counted twice, and replace those already saved."""
        self._behind = self._ahead = 0
        self._turns = self._begun = 0
        self._sampled = replace(self._sampled, step=0, batch=0)
        self._earlier, self._saved = self.files, {}
        self.kept.try_again()

    @property
    def stopped(self) -> bool:
        return self._ended or (not self.kept.ahead and (self._wishes.now.stopped or self._wishes.now.interrupted))

    def end(self) -> None:
        self._ended = True

    def begin(self, batches: int) -> None:
        self._begun += batches * self._batch_size
        if self._begun > self._counted:
            self.tell(Begun(self._begun - self._counted))
            self._counted = self._begun
        self._sampled = replace(self._sampled, batch=0, batches=batches)

    def turn(self) -> bool:
        if self._helps:
            self.kept.flush()
        number, skips = self._turns, self._wishes.now.skips
        self._turns += 1
        given = self.tell(Turn(number, self._sampled.batches))
        if given is False:
            return False
        self.kept.turn(number, given or b"")
        self._skips_before = skips
        return True

    def begin_sampling(self, steps: int) -> None:
        self._refuse_cancelled()
        self._skips = self._wishes.now.skips if self._skips_before is None else self._skips_before
        self._skips_before, self.partial, self._coming = None, False, None
        self._report(step=self._behind, steps=self._behind + steps + self._ahead)

    def pass_of(self, *, behind: int, ahead: int) -> None:
        self._behind, self._ahead = behind, ahead

    def checkpoint(self) -> None:
        self._refuse_cancelled()
        if self.kept.ahead:  # another worker came further before it was ended
            return
        if self._wishes.now.interrupted or self._wishes.now.skips > self._skips:
            self.partial = True
            raise Interrupted

    def _refuse_cancelled(self) -> None:
        if self._wishes.now.cancelled:
            raise Cancelled("The job was cancelled.")

    def report(self, step: int, denoised: Tensor) -> None:
        if self._coming is not None:
            self._show(self._coming)  # by now the card has the next step to compute, so it is not idle if this waits
        shown = denoised.shape[1] == self.model.latent_format.channels  # a part of a run may have another model
        if shown and self._options.live_previews_enable and step % self._options.show_progress_every_n_steps == 0:
            self._coming = preview(self.model, denoised, self._options.show_progress_type)
            if self._coming.arrived:
                self._show(self._coming)
        self._report(step=self._behind + step)

    def _show(self, coming: Preview) -> None:
        self._coming, self._sampled = None, replace(self._sampled, preview=pack(coming.image()))

    def enlarging(self, done: int, tiles: int) -> bool:
        self._refuse_cancelled()
        self._report(step=done, steps=tiles)
        return not self.stopped

    @property
    def files(self) -> dict[str, list[str]]:
        """Paths of all files saved for the request, by the names they were saved under, in order."""
        return {name: self._saved.get(name, []) + self._earlier.get(name, []) for name in {**self._saved, **self._earlier}}

    def save(self, image: Image.Image, infotext: str, folder: str, name: str, *, numbered: bool) -> str:
        called = f"{folder}/{name}"
        places = self._earlier.get(called)
        place = places.pop(0) if places else None
        if self._far:
            return self._send(Placing(png_of(image), folder, name, numbered, place, infotext), called)

        def announce(path: str) -> None:
            self._saved.setdefault(called, []).append(path)
            self.kept.flush()
            self.tell(Saving(path, infotext))

        return save(image, folder, name, numbered=numbered, place=place, announce=announce)

    def _send(self, placing: Placing, called: str) -> str:
        self.kept.flush()
        path = self.tell(placing)
        if isinstance(path, Unplaced):
            raise OSError(EIO, path.reason)
        self._saved.setdefault(called, []).append(path)
        self.kept.flush()
        return path

    def batch_done(self) -> None:
        self.kept.ahead = 0
        self._behind = self._ahead = 0
        self._sampled = replace(self._sampled, batch=self._sampled.batch + 1)

    def _report(self, **changes: int) -> None:
        self._sampled = replace(self._sampled, **changes)
        self.tell(self._sampled)


def ignore(news: News) -> None:
    """Ignores news."""


def info_of(embedding: Embedding) -> EmbeddingInfo:
    return EmbeddingInfo(embedding.name, embedding.count, embedding.width, embedding.step, embedding.sd_checkpoint,
                         embedding.sd_checkpoint_name)
