"""The worker of this process: it holds models, and runs requests on the thread that calls it."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from pipeline import allocator
from pipeline.caches import Cache
from pipeline.conditioning import PromptEncoder
from pipeline.embeddings import Embedding, EmbeddingShelf
from pipeline.errors import Cancelled, Interrupted
from pipeline.families.base import Family, ModelInfo
from pipeline.hooks import HookList, Hooks
from pipeline.job import sendable
from pipeline.memory import check_memory, free_memory, frugal, is_out_of_memory, keep_freed_where_plenty, memory_report
from pipeline.networks import Networks
from pipeline.options import Options
from pipeline.previews import pack, preview
from pipeline.processed import Processed
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.progress import Progress
from pipeline.receipt import Receipts
from pipeline.scripts import run as run_script
from pipeline.styles import StyleDatabase
from pipeline.worker import Begun, EmbeddingInfo, Loaded, Loading, News, Sampled, Saving, Started, Tell, Wishes

logger = logging.getLogger(__name__)


class DeviceWorker:
    """Runs requests with the models that `load` gives for options.

    loaded: the model that options name, where it is in memory. make_room: lets go of all models but the one used last, when
    memory has run out; release: of all. embeddings, networks: what prompts may name. cache: what requests can take over from
    earlier ones.
    """

    def __init__(self, load: Callable[[Options], Family], hooks: Iterable[Hooks] = (), *,
                 loaded: Callable[[Options], Family | None] = lambda options: None, make_room: Callable[[], None] = lambda: None,
                 release: Callable[[], None] = lambda: None, embeddings: EmbeddingShelf | None = None,
                 networks: Networks | None = None, cache: Cache | None = None):
        self._load, self._loaded, self._make_room, self.release = load, loaded, make_room, release
        self._hooks, self._cache = HookList(hooks), cache or Cache()
        self._embeddings, self._networks = embeddings or EmbeddingShelf(), networks or Networks()
        self._tell_loading: Tell = nobody

    def run(self, request: StableDiffusionProcessingImg2Img, styles: StyleDatabase, tell: Tell, wishes: Wishes) -> Processed:
        return self._answering(lambda: self._run(request, styles, tell, wishes))

    def load(self, options: Options, tell: Tell) -> ModelInfo:
        return self._answering(lambda: self._model_for(tell, options).info)

    def rest(self) -> None:
        allocator.give_back()

    def count_tokens(self, prompts: list[str], options: Options, calls: int) -> list[int] | None:
        family = self._loaded(options)
        return family and list(map(PromptEncoder(family, options, calls, Cache()).count_tokens, prompts))

    def memory(self) -> dict[str, Any]:
        return memory_report()

    def embeddings(self) -> tuple[list[EmbeddingInfo], dict[str, str]]:
        fitting, skipped = self._embeddings.known()
        return list(map(told_of, fitting.values())), skipped

    def tell_loading(self, share: float) -> None:
        """To be told by what `load` calls: how much of a model is read."""
        self._tell_loading(Loading(round(share, 2)))

    def _answering(self, work: Callable):
        """What it gives. What it raises holds on to nothing of this process any more."""
        try:
            return work()
        except Exception as error:
            failure = sendable(error)
        raise failure

    def _run(self, request: StableDiffusionProcessingImg2Img, styles: StyleDatabase, tell: Tell, wishes: Wishes) -> Processed:
        course, receipts = Course(tell, wishes), Receipts.of(request.replay)
        try:
            model = request.sd_model or self._model_for(tell, request.options)
            keep_freed_where_plenty(model.placement, request.width * request.height * request.batch_size)
            check_memory(model, request.width * request.height, request.batch_size)
            return self._run_with(model, course, self._bound(request, styles, receipts), self._cache)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            logger.warning("memory ran out, and the request is tried once more with less")
        # here what the first try has made is gone with its exception
        receipts.try_again()
        course.try_again()
        self._cache.clear()
        self._make_room()
        with frugal(request.sd_model or self._model_for(tell, request.options)) as model:
            check_memory(model, request.width * request.height, request.batch_size, sparing=True)
            second = self._bound(request, styles, receipts)
            second.comments.append(f"Memory ran out, so it was run again with less: {model.changes}.")
            second.extra_generation_params["Low memory"] = model.changes
            return self._run_with(model, course, second, Cache())  # where tiles meet, its latents are others

    def _bound(self, request: StableDiffusionProcessingImg2Img, styles: StyleDatabase,
               receipts: Receipts) -> StableDiffusionProcessingImg2Img:
        """The same request, for one try to work on: what it makes and says of itself is gone with it."""
        p = request.variant()
        p.comments, p.scripts, p.receipts = list(request.comments), self._hooks, receipts
        p.embeddings, p.style_database, p.networks = self._embeddings, styles, self._networks
        p.free_memory = free_memory
        return p

    def _run_with(self, model: Family, course: "Course", p: StableDiffusionProcessingImg2Img, cache: Cache) -> Processed:
        p.sd_model, p.progress, p.cache = model, course, cache
        p.load_model = partial(self._model_for, course.tell)
        course.start(p)
        try:
            result = run_script(p)
        finally:
            course.model = None  # it may have to make room for the next one's
        return replace(result, model=model.info, inpaints=model.sees == "masked source",
                       found=p.receipts.found)

    def _model_for(self, tell: Tell, options: Options) -> Family:
        self._tell_loading = tell
        tell(Loading())
        try:
            return self._load(options)
        finally:
            self._tell_loading = nobody
            tell(Loaded())


class Course(Progress):
    """How a run goes on, told as news; where it is to stop, by the wishes."""

    def __init__(self, tell: Tell, wishes: Wishes):
        self.tell, self._wishes = tell, wishes
        self.model: Family | None = None
        self._options = Options()
        self._batch_size, self._skips, self._ended = 1, 0, False
        self._begun = self._counted = 0
        """Pictures of this try, and those of any try that were told of."""
        self._saved: dict[str, list[str]] = {}
        """The files of this try, by the names that they were saved under."""
        self._earlier: dict[str, list[str]] = {}
        """The same of the first try, as far as the second has not replaced them."""
        self._sampled = Sampled()

    def start(self, p: StableDiffusionProcessingImg2Img) -> None:
        """Tell of this one, which has its model, from now on."""
        self.model, self._options, self._batch_size = p.sd_model, p.options, p.batch_size
        self.tell(Started(p.sd_model.info))
        self._report()

    def try_again(self) -> None:
        """The run begins anew: its pictures count once, and replace those that it has saved already."""
        self._begun, self._sampled = 0, replace(self._sampled, step=0, batch=0)
        self._earlier, self._saved = self._saved, {}

    @property
    def stopped(self) -> bool:
        return self._ended or self._wishes.now.stopped or self._wishes.now.interrupted

    def end(self) -> None:
        self._ended = True

    def begin(self, batches: int) -> None:
        self._begun += batches * self._batch_size
        if self._begun > self._counted:
            self.tell(Begun(self._begun - self._counted))
            self._counted = self._begun
        self._sampled = replace(self._sampled, batch=0, batches=batches)

    def begin_sampling(self, steps: int) -> None:
        self._refuse_cancelled()
        self._skips, self.partial = self._wishes.now.skips, False
        self._report(step=0, steps=steps)

    def checkpoint(self) -> None:
        self._refuse_cancelled()
        if self._wishes.now.interrupted or self._wishes.now.skips > self._skips:
            self.partial = True
            raise Interrupted

    def _refuse_cancelled(self) -> None:
        if self._wishes.now.cancelled:
            raise Cancelled("The job was cancelled.")

    def report(self, step: int, denoised: Tensor) -> None:
        if self._options.live_previews_enable and step % self._options.show_progress_every_n_steps == 0:
            picture = pack(preview(self.model, denoised, self._options.show_progress_type))
            self._sampled = replace(self._sampled, preview=picture)
        self._report(step=step)

    def saving(self, path: str, infotext: str, name: str = "") -> None:
        self._saved.setdefault(name, []).append(path)
        self.tell(Saving(path, infotext))

    def place_of(self, name: str) -> str | None:
        places = self._earlier.get(name)
        return places.pop(0) if places else None

    def batch_done(self) -> None:
        self._sampled = replace(self._sampled, batch=self._sampled.batch + 1)

    def _report(self, **changes: int) -> None:
        self._sampled = replace(self._sampled, **changes)
        self.tell(self._sampled)


def nobody(news: News) -> None:
    """Is told, and does nothing."""


def told_of(embedding: Embedding) -> EmbeddingInfo:
    return EmbeddingInfo(embedding.name, embedding.count, embedding.width, embedding.step, embedding.sd_checkpoint,
                         embedding.sd_checkpoint_name)
