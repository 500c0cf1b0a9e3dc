"""Errors, worded for the person who sees them. Messages name the field, what came and what is valid."""

from difflib import get_close_matches

SHOWN_NAMES = 30
"""Valid names listed in a sentence."""


class PalimpsestError(Exception):
    """A failure whose message is a sentence for the person who caused it or sees it."""


class InvalidRequest(PalimpsestError):
    """A request that cannot be run. `field` is the name of the offending field."""

    def __init__(self, field: str, message: str):
        super().__init__(message)
        self.field = field

    def __reduce__(self):
        return type(self), (self.field, str(self))


class UnknownName(InvalidRequest):
    """A name that is not in a table; the message suggests the nearest valid one."""

    def __init__(self, field: str, kind: str, name: object, valid):
        names = [str(v) for v in valid]
        lower = {v.lower(): v for v in names}
        near = get_close_matches(str(name).lower(), lower, n=1, cutoff=0.5)
        more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        hint = f'did you mean "{lower[near[0]]}"?' if near else f"valid: {', '.join(names[:SHOWN_NAMES]) or 'none'}{more}"
        super().__init__(field, f'{field}: no {kind} called "{name}"; {hint}')
        self._args = (field, kind, name, names)

    def __reduce__(self):
        return type(self), self._args


class ModelError(PalimpsestError):
    """A checkpoint that cannot be loaded or used."""


class TooMany(PalimpsestError):
    """Over a limit: nothing was started, and the same request may succeed later."""


class WorkerLost(PalimpsestError):
    """The process or machine of a worker ended while it worked; no request is to blame, so it may run again."""


class WorkerGone(WorkerLost):
    """A worker that was lost cannot be started again, since its machine is away or has another program now."""


class HookError(PalimpsestError):
    """A hook raised. Names the hook and the plug-in, so that a failing plug-in never changes a picture silently."""


class Unforeseen(Exception):
    """A sendable stand-in for an unexpected error; `kind` is the name of its class."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind

    def __reduce__(self):
        return type(self), (self.kind, str(self))


class Interrupted(Exception):
    """Raised inside the sampler by `checkpoint()` when the job is interrupted or the batch skipped."""


class Cancelled(Exception):
    """Raised inside a job that nobody waits for any more; nothing of it is kept."""
