"""All jobs and their pictures, in an SQLite file beside the pictures: for history, and to survive a crash."""

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from PIL import Image

from pipeline.errors import InvalidRequest
from pipeline.kept import KeptFiles, facts_of
from pipeline.originals import Originals
from pipeline.owners import Owners
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.record import essence, from_record, to_record
from pipeline.saving import save_thumbnail
from pipeline.shelf import each, pictures_of

logger = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    client TEXT NOT NULL,
    mode TEXT NOT NULL,
    state TEXT NOT NULL,
    created REAL NOT NULL,
    started REAL,
    ended REAL,
    message TEXT NOT NULL DEFAULT '',
    prompt TEXT NOT NULL,
    negative_prompt TEXT NOT NULL,
    model TEXT NOT NULL DEFAULT '',
    request TEXT NOT NULL,
    owner TEXT,
    continued INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS jobs_by_time ON jobs (created DESC);
CREATE INDEX IF NOT EXISTS jobs_by_source ON jobs (json_extract(request, '$.init_images[0].picture'));
CREATE TABLE IF NOT EXISTS pictures (
    id INTEGER PRIMARY KEY,
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    path TEXT NOT NULL UNIQUE,
    infotext TEXT NOT NULL,
    favourite INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS pictures_by_job ON pictures (job);
"""
THUMBNAIL = 256
"""Pixels; thumbnails fit inside."""
MAX_WORDS = 50
"""Search limit: SQLite allows only some hundred conditions."""
OPEN = ("queued", "running")
"""States of a job that has not ended."""
PATIENCE = 10.0
"""Seconds to wait for the database while another program holds it locked."""
ENDED = "The program ended before it was done."
"""The message of a job whose program was killed."""
RESUMED = 2
"""How often a job is continued by itself, in case it is what ends the program."""
BEGUN_ANEW = "History was deleted while the program was running; it starts again with the current jobs."


@dataclass(frozen=True)
class Picture:
    """A saved picture of a job."""

    id: int
    path: Path
    infotext: str
    favourite: bool


@dataclass(frozen=True)
class Entry:
    """A job as shown in history."""

    id: str
    client: str
    mode: str
    state: str
    """queued, running, done, interrupted or failed."""
    created: float
    """Seconds since 1970, as in time.time()."""
    started: float | None
    """When its model was loaded."""
    ended: float | None
    message: str
    """Why it failed."""
    prompt: str
    negative_prompt: str
    model: str
    pictures: list[Picture]
    """In the order they were made."""

    @property
    def seconds(self) -> float | None:
        """How long it took, not counting the loading of its model; None: unknown."""
        return None if self.started is None or self.ended is None else self.ended - self.started


class Journal:
    """The record of all jobs in FOLDER/palimpsest.sqlite3; their source pictures are in FOLDER/originals.

    Any thread may use it, and several programs at once. A change is handed to the operating system before its method returns,
    so a killed program loses none. Opening it cleans up after killed programs: their open jobs are marked as interrupted and
    half-written pictures removed. If the file is deleted or moved, the next call starts a new one.

    patience: seconds to wait while another program holds the file locked. All methods raise OSError if that is exceeded or the
    disk fails.
    """

    def __init__(self, folder: Path, patience: float = PATIENCE):
        self.folder = folder.absolute()
        self.originals = Originals(self.folder / "originals")
        self.kept = KeptFiles(self.folder / "kept")
        """What its jobs have computed so far."""
        self.others = 0
        """Other programs that were using the folder when this one started."""
        self._patience, self._owners, self._lock = patience, Owners(self.folder), threading.RLock()
        self._requests: dict[str, StableDiffusionProcessingImg2Img] = {}
        """The running and waiting jobs of this program, by id."""
        self._carried: list[tuple[str, dict[str, Any]]] = []
        """(table, row) of a deleted file that belong in the new one."""
        self._notes: list[str] = []
        self._open()

    def close(self) -> None:
        with self._lock:
            self._database.close()
            self._owners.leave()

    def take_notes(self) -> list[str]:
        """Sentences for the user, each returned once."""
        with self._lock:
            notes, self._notes = self._notes, []
        return notes

    # --- written by the engine

    def queued(self, job_id: str, p: StableDiffusionProcessingImg2Img, *, client: str = "", mode: str = "") -> str:
        """Record a waiting job and keep its source pictures. Returns its id in the journal, a new one if `job_id` is taken."""
        request = self._record(p)
        with self._transaction():
            entry = uuid4().hex if self._read("SELECT 1 FROM jobs WHERE id = ?", job_id) else job_id
            self._change("INSERT INTO jobs (id, client, mode, state, created, prompt, negative_prompt, request, owner) "
                         "VALUES (?, ?, ?, 'queued', ?, ?, ?, ?, ?)", entry, client, mode, time.time(), text_of(p.prompt),
                         text_of(p.negative_prompt), request, self._owners.name)
            self._requests[entry] = p
        return entry

    def reopened(self, p: StableDiffusionProcessingImg2Img) -> str:
        """Record that the interrupted job which p continues waits again. Returns its id. Raises InvalidRequest."""
        with self._transaction():
            if not self._read("SELECT 1 FROM jobs WHERE id = ? AND state = 'interrupted'", p.continues):
                raise InvalidRequest("id_task", f'id_task: the job "{p.continues}" is not interrupted; it may be running again already')
            self._change("UPDATE jobs SET state = 'queued', ended = NULL, message = '', owner = ?, continued = continued + 1 WHERE id = ?", self._owners.name,
                         p.continues)
            self._requests[p.continues] = p
        return p.continues

    def running(self, job_id: str, model: str) -> None:
        """The job has its model and runs."""
        self._change("UPDATE jobs SET state = 'running', model = ?, started = ? WHERE id = ?", model, time.time(), job_id)

    def saving(self, job_id: str, path: str, infotext: str) -> None:
        """A picture of the job is about to be moved to `path`, now an empty placeholder file."""
        self._change("INSERT OR REPLACE INTO pictures (job, path, infotext) VALUES (?, ?, ?)", job_id,
                     self._relative(path), infotext)

    def add(self, job_id: str, path: str, infotext: str) -> None:
        """A picture that was made of one of its pictures is saved at that path."""
        self.saving(job_id, path, infotext)

    def ended(self, job_id: str, state: str, message: str = "") -> None:
        """The job ended; state: done, interrupted or failed."""
        self._requests.pop(job_id, None)
        self._change("UPDATE jobs SET state = ?, ended = ?, message = ? WHERE id = ?", state, time.time(), message, job_id)

    # --- read by whoever shows history

    def entry(self, job_id: str) -> Entry | None:
        rows = self._read("SELECT * FROM jobs WHERE id = ?", job_id)
        return self._entry(rows[0]) if rows else None

    def find(self, path: str | Path) -> tuple[Entry, Picture] | None:
        """The job and the picture saved at a path."""
        rows = self._read("SELECT jobs.* FROM jobs JOIN pictures ON job = jobs.id WHERE path = ?", self._relative(str(path)))
        if not rows:
            return None
        entry = self._entry(rows[0])
        return entry, next(picture for picture in entry.pictures if self._relative(str(picture.path)) == self._relative(str(path)))

    def search(self, text: str = "", *, model: str = "", since: float | None = None, until: float | None = None,
               favourites: bool = False, client: str | None = None, limit: int = 60,
               before: float | None = None) -> list[Entry]:
        """The newest jobs with all words of `text` in their prompts or infotexts, newest first.

        since, until: seconds since 1970. favourites: only jobs with a favourite picture. client: only this client's; None:
        everybody's. before: only jobs with an earlier `created`, for paging. Raises InvalidRequest for too many words.
        """
        if len(words := text.split()) > MAX_WORDS:
            raise InvalidRequest("words", f"words: at most {MAX_WORDS} can be searched for, got {len(words)}")
        wanted, values = ["1"], []
        for word in words:
            wanted.append("(prompt LIKE ? ESCAPE '\\' OR negative_prompt LIKE ? ESCAPE '\\' OR EXISTS (SELECT 1 FROM pictures "
                          "WHERE job = jobs.id AND infotext LIKE ? ESCAPE '\\'))")
            values += [like(word)] * 3
        for condition, value in (("model LIKE ? ESCAPE '\\'", like(model) if model else None), ("created >= ?", since),
                                 ("created <= ?", until), ("client = ?", client), ("created < ?", before)):
            if value is not None:
                wanted.append(condition)
                values.append(value)
        if favourites:
            wanted.append("EXISTS (SELECT 1 FROM pictures WHERE job = jobs.id AND favourite)")
        rows = self._read(f"SELECT * FROM jobs WHERE {' AND '.join(wanted)} ORDER BY created DESC, id LIMIT ?", *values, limit)
        return [self._entry(row) for row in rows]

    def done_with(self, p: StableDiffusionProcessingImg2Img, *, besides: Collection[str] = (), before: float | None = None,
                  client: str | None = None) -> list[Entry]:
        """Finished jobs of the same request, newest first. p must not have run.

        besides: fields that may differ. before: only jobs created before this, in seconds since 1970. client: only this
        client's; None: everybody's.
        """
        wanted = json.loads(json.dumps(to_record(p, p.digests.of)))
        rows = self._read("SELECT * FROM jobs WHERE json_extract(request, '$.init_images[0].picture') = ? AND state = 'done' "
                          "AND created < ? AND (client = ? OR ?) ORDER BY created DESC", wanted["init_images"][0]["picture"],
                          time.time() if before is None else before, client, client is None)
        return [self._entry(row) for row in rows if essence(json.loads(row["request"]), besides) == essence(wanted, besides)]

    def request(self, job_id: str, **where: Any) -> StableDiffusionProcessingImg2Img | None:
        """A job's request, to run again; None if the job or one of its source pictures is gone.

        where: the fields of record.ELSEWHERE.
        """
        rows = self._read("SELECT request FROM jobs WHERE id = ?", job_id)
        return from_record(json.loads(rows[0]["request"]), self.originals.open, **where) if rows else None

    def to_continue(self, job_id: str) -> StableDiffusionProcessingImg2Img:
        """The request that continues an interrupted job from what was kept of it. Raises InvalidRequest."""
        p = None
        if self.can_continue(self.entry(job_id)):
            p = self.request(job_id, continues=job_id, **facts_of(self.kept.read(job_id)).get("places", {}))
        if p is None:
            raise InvalidRequest("id_task", f'id_task: the job "{job_id}" cannot be continued; it was not interrupted, or what was '
                                            "kept of it, or a source picture, is gone")
        return p

    def interrupted(self) -> list[Entry]:
        """The jobs that can be continued, newest first."""
        rows = self._read("SELECT * FROM jobs WHERE state = 'interrupted' ORDER BY created DESC, id")
        return [self._entry(row) for row in rows if self.kept.has(row["id"])]

    def to_resume(self) -> list[Entry]:
        """The jobs that were running when their program was killed, oldest first, unless that happened to them again and again."""
        often = {row["id"] for row in self._read("SELECT id FROM jobs WHERE continued >= ?", RESUMED)}
        return [entry for entry in reversed(self.interrupted()) if entry.message == ENDED and entry.id not in often]

    def can_continue(self, entry: Entry | None) -> bool:
        """Whether a job was interrupted, and what it had computed is kept."""
        return entry is not None and entry.state == "interrupted" and self.kept.has(entry.id)

    def thumbnail(self, picture: Picture) -> Path | None:
        """A small JPEG of a picture, made on first use; None if its file cannot be read."""
        path = self.folder / "thumbnails" / f"{picture.id}.jpg"
        if path.exists() and path.stat().st_mtime >= modified(picture.path):
            return path
        try:
            with Image.open(picture.path) as image:
                path.parent.mkdir(exist_ok=True)
                save_thumbnail(image, path, THUMBNAIL)
        except OSError:
            return None
        return path

    def favour(self, picture_id: int, favourite: bool) -> None:
        """Mark a picture as a favourite, or not."""
        self._change("UPDATE pictures SET favourite = ? WHERE id = ?", favourite, picture_id)

    def delete(self, picture_id: int) -> None:
        """Remove a picture and its file."""
        for row in self._read("SELECT path FROM pictures WHERE id = ?", picture_id):
            (self.folder / row["path"]).unlink(missing_ok=True)
            (self.folder / "thumbnails" / f"{picture_id}.jpg").unlink(missing_ok=True)
            self._change("DELETE FROM pictures WHERE id = ?", picture_id)

    def discard(self, entry: Entry, picture_id: int | None) -> None:
        """Delete a picture of a job and its file; with the last picture, the job too."""
        if len(entry.pictures) > 1:
            self.delete(picture_id)
        else:
            self.forget(entry.id)

    def forget(self, job_id: str) -> None:
        """Delete a job with its pictures and their files."""
        for row in self._read("SELECT id FROM pictures WHERE job = ?", job_id):
            self.delete(row["id"])
        self.kept.drop(job_id)
        self._change("DELETE FROM jobs WHERE id = ?", job_id)

    # --- inside

    @property
    def _path(self) -> Path:
        return self.folder / "palimpsest.sqlite3"

    def _open(self) -> None:
        """Open or create the file, and clean up after programs that ended."""
        with self._owners.entering(self._patience) as others, as_os_error():
            self._database = sqlite3.connect(self._path, timeout=self._patience, check_same_thread=False, isolation_level=None)
            try:
                self._database.row_factory = sqlite3.Row
                self._database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;" + SCHEMA)
                self._file = identity(self._path)
                self._add_what_is_new()
                self._close_what_is_open(others)
            except BaseException:
                self._database.close()
                raise
            self.kept.drop_others([row["id"] for row in self._read("SELECT id FROM jobs WHERE state IN (?, ?, 'interrupted')", *OPEN)])
        self.others = len(others)

    def _add_what_is_new(self) -> None:
        """Add columns that a file of an earlier version lacks."""
        there = {row["name"] for row in self._read("PRAGMA table_info(jobs)")}
        for name, kind in {"started": "REAL", "owner": "TEXT", "continued": "INTEGER NOT NULL DEFAULT 0"}.items():
            if name not in there:
                self._change(f"ALTER TABLE jobs ADD COLUMN {name} {kind}")

    def _close_what_is_open(self, others: Collection[str]) -> None:
        """Mark open jobs of ended programs as interrupted, and remove their half-written pictures."""
        left = f"state IN (?, ?) AND coalesce(owner, '') NOT IN ({', '.join('?' * len(others))})"
        with self._transaction():
            for row in self._read(f"SELECT pictures.id, path FROM pictures JOIN jobs ON jobs.id = job WHERE {left}", *OPEN, *others):
                path = self.folder / row["path"]
                if not path.exists() or path.stat().st_size == 0:
                    for rest in (path, path.with_suffix(".tmp")):
                        rest.unlink(missing_ok=True)
                    self._change("DELETE FROM pictures WHERE id = ?", row["id"])
            self._change("UPDATE jobs SET state = 'interrupted', ended = ?, message = ? "
                         f"WHERE {left}", time.time(), ENDED, *OPEN, *others)

    def _follow(self) -> None:
        """If the open file is no longer the one in the folder, start a new one with the current jobs."""
        if self._file == identity(self._path):
            return
        self._carried += self._rows_of_now()
        self._database.close()
        self._open()
        carried, self._carried = self._carried, []
        for table, row in carried:
            row |= {"owner": self._owners.name} if table == "jobs" else {}
            self._change(f"INSERT OR IGNORE INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", *row.values())
        for p in list(self._requests.values()):
            for image in each(pictures_of(p)):
                if isinstance(image, Image.Image):  # pictures on the shelf are read when their turn comes
                    self.originals.keep(image, p.digests.of)
        logger.warning(BEGUN_ANEW)
        self._notes.append(BEGUN_ANEW)

    def _rows_of_now(self) -> list[tuple[str, dict[str, Any]]]:
        """Rows of this program's open jobs, and of their pictures that still exist."""
        mine = "SELECT id FROM jobs WHERE owner = ? AND state IN (?, ?)"
        try:
            jobs, pictures = (self._database.execute(f"SELECT * FROM {table} WHERE {key} IN ({mine})", (self._owners.name, *OPEN)).fetchall()
                              for table, key in (("jobs", "id"), ("pictures", "job")))
        except sqlite3.Error as error:
            logger.warning("the current jobs could not be read from the deleted file: %s", error)
            return []
        kept = [{name: row[name] for name in row.keys() if name != "id"} for row in pictures if (self.folder / row["path"]).exists()]
        return [*(("jobs", dict(row)) for row in jobs), *(("pictures", row) for row in kept)]

    def _record(self, p: StableDiffusionProcessingImg2Img) -> str:
        """A request as JSON; its source pictures are kept."""
        return json.dumps(to_record(p, partial(self.originals.keep, digest=p.digests.of)))

    def _entry(self, row: sqlite3.Row) -> Entry:
        pictures = [Picture(found["id"], self.folder / found["path"], found["infotext"], bool(found["favourite"]))
                    for found in self._read("SELECT * FROM pictures WHERE job = ? ORDER BY id", row["id"])]
        return Entry(**{name: row[name] for name in row.keys() if name not in ("request", "owner", "continued")}, pictures=pictures)

    def _relative(self, path: str) -> str:
        """A path as stored: relative if it is inside the folder, so that the folder can be moved."""
        absolute = Path(path).absolute()
        return os.fspath(absolute.relative_to(self.folder) if absolute.is_relative_to(self.folder) else absolute)

    def _read(self, question: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock, as_os_error():
            self._follow()
            return self._database.execute(question, values).fetchall()

    def _change(self, statement: str, *values: Any) -> None:
        with self._lock, as_os_error():
            self._follow()
            self._database.execute(statement, values)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, as_os_error():
            self._follow()
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise


@contextmanager
def as_os_error() -> Iterator[None]:
    """Turns errors of the database into OSError."""
    try:
        yield
    except sqlite3.Error as error:
        locked = getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        raise OSError(f"palimpsest.sqlite3: {'another program holds it locked' if locked else error}") from error


def identity(path: Path) -> tuple[int, int] | None:
    """What distinguishes a file from a later one at the same path; None: no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def modified(path: Path) -> float:
    """When a file was last written; infinity if it does not exist."""
    try:
        return path.stat().st_mtime
    except OSError:
        return float("inf")


def text_of(prompt: str | list[str]) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(prompt)


def like(text: str) -> str:
    """A LIKE pattern that matches text containing `text` literally."""
    for sign in "\\%_":
        text = text.replace(sign, f"\\{sign}")
    return f"%{text}%"
