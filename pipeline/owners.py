"""Which running programs use a folder, even if others were killed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout


class Owners:
    """The programs that use a folder: each holds a locked file in FOLDER/.running.

    The operating system releases the lock when its program ends, even by kill -9. Raises OSError if the disk does not support
    such locks.
    """

    def __init__(self, folder: Path):
        self._folder = folder / ".running"
        self.name = ""
        """This program's name among the owners; a new one each time it enters."""
        self._held: FileLock | None = None

    @contextmanager
    def entering(self, patience: float) -> Iterator[set[str]]:
        """Register as an owner, exclusively; yields the names of the other running owners.

        patience: seconds to wait while another program registers; after that, OSError is raised.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self.leave()
        try:
            with FileLock(self._folder / "entering", timeout=patience, fallback_to_soft=False):
                others = {file.stem for file in self._folder.glob("*.lock") if not self._is_left(file)}
                self.name = uuid4().hex
                self._held = FileLock(self._file, blocking=False, fallback_to_soft=False, thread_local=False)
                self._held.acquire()
                yield others
        except Timeout as error:
            self.leave()
            raise OSError(f"another program has held {error.lock_file} locked for {patience:g} seconds") from error
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Unregister."""
        if self._held is not None:
            self._held.release()
            self._file.unlink(missing_ok=True)
            self._held = None

    @property
    def _file(self) -> Path:
        return self._folder / f"{self.name}.lock"

    def _is_left(self, file: Path) -> bool:
        """Whether the file's program has ended; its file is removed then."""
        lock = FileLock(file, blocking=False, fallback_to_soft=False, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            return False
        lock.release()
        file.unlink(missing_ok=True)  # safe: names are never reused
        return True
