"""How a running job reports its progress, and where it can be stopped."""

from PIL import Image
from torch import Tensor

from pipeline.saving import save


class Progress:
    """Called by the pipeline, on the engine's thread. This base class reports nothing and never stops."""

    stopped = False
    """No further batch may start."""
    partial = False
    """The latest sampling ended before its last step."""

    def end(self) -> None:
        """Start no further batch: the wanted picture is there."""
        self.stopped = True

    def begin(self, batches: int) -> None:
        """`batches` samplings are about to run."""

    def turn(self) -> bool:
        """The next batch is about to start; whether it is made here, and not by another worker."""
        return True

    def begin_sampling(self, steps: int) -> None:
        """A sampling of `steps` steps starts. Raises Cancelled."""

    def pass_of(self, *, behind: int, ahead: int) -> None:
        """The next sampling is one of several of its batch, whose others have `behind` steps before and `ahead` after it."""

    def checkpoint(self) -> None:
        """Called before each model call. Raises Interrupted to end this sampling with the picture so far, or Cancelled."""

    def report(self, step: int, denoised: Tensor) -> None:
        """`step` steps of this sampling are done. denoised: (B, C, h, w), the x0 estimate of the prompt."""

    def enlarging(self, done: int, tiles: int) -> bool:
        """`done` tiles of a picture have been enlarged by a network. Whether to go on; raises Cancelled."""
        return not self.stopped

    def save(self, image: Image.Image, infotext: str, folder: str, name: str, *, numbered: bool) -> str:
        """Save a picture as saving.save() does; returns its path. infotext: "" for masks and the like. Raises OSError."""
        return save(image, folder, name, numbered=numbered)

    def batch_done(self) -> None:
        """A batch has been sampled, decoded and finished."""


class Within(Progress):
    """The progress of a run inside another one's batch: it is reported as that batch's, and its own batches do not count."""

    def __init__(self, outer: Progress):
        self._outer = outer

    @property
    def stopped(self) -> bool:
        return self._outer.stopped

    @property
    def partial(self) -> bool:
        return self._outer.partial

    @partial.setter
    def partial(self, value: bool) -> None:
        self._outer.partial = value

    def end(self) -> None:
        self._outer.end()

    def begin_sampling(self, steps: int) -> None:
        self._outer.begin_sampling(steps)

    def pass_of(self, *, behind: int, ahead: int) -> None:
        self._outer.pass_of(behind=behind, ahead=ahead)

    def checkpoint(self) -> None:
        self._outer.checkpoint()

    def report(self, step: int, denoised: Tensor) -> None:
        self._outer.report(step, denoised)

    def enlarging(self, done: int, tiles: int) -> bool:
        return self._outer.enlarging(done, tiles)
