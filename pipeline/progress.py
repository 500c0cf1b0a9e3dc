"""How a running job tells where it is, and where it can be stopped."""

from torch import Tensor


class Progress:
    """Told by the pipeline, on the engine's thread. This one tells nobody and never stops; the engine's does both."""

    stopped = False
    """No further batch is to be started."""
    partial = False
    """The latest sampling was ended before its last step."""

    def end(self) -> None:
        """Start no further batch: what was wanted is there."""
        self.stopped = True

    def begin(self, batches: int) -> None:
        """The job will run so many samplings."""

    def begin_sampling(self, steps: int) -> None:
        """A sampling of so many steps starts. Raises Cancelled."""

    def checkpoint(self) -> None:
        """Called before each model call. Raises Interrupted to end this sampling with what there is, or Cancelled."""

    def report(self, step: int, denoised: Tensor) -> None:
        """So many steps of this sampling are done; denoised: (B, C, h, w), the x0 estimate of the prompt."""

    def saving(self, path: str, infotext: str, name: str = "") -> None:
        """A picture with that infotext ("" for masks and the like) is about to be saved at that path, under that name."""

    def place_of(self, name: str) -> str | None:
        """The file that an earlier try of the same request saved this picture in, and that it is to replace."""
        return None

    def batch_done(self) -> None:
        """A batch is sampled, decoded and finished."""
