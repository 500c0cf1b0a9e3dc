"""What can go wrong, as a person should hear it. Every message names the field, what came and what is valid."""

from difflib import get_close_matches

SHOWN_NAMES = 30
"""Valid names that a sentence lists."""


class PalimpsestError(Exception):
    """A failure with a sentence fit for the person who caused or sees it."""


class InvalidRequest(PalimpsestError):
    """A request that cannot be run. `field` is the name of the request's field."""

    def __init__(self, field: str, message: str):
        super().__init__(message)
        self.field = field

    def __reduce__(self):
        return type(self), (self.field, str(self))


class UnknownName(InvalidRequest):
    """A name that is not in a table: says so and offers the nearest one."""

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
    """More than one may ask for: nothing of it was begun, and it can be asked for again later."""


class HookError(PalimpsestError):
    """A hook raised: names the hook and the plug-in, so that no picture is changed in silence."""


class Unforeseen(Exception):
    """An error that nobody foresaw, as far as it can be told elsewhere: `kind` is the name of its class."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind

    def __reduce__(self):
        return type(self), (self.kind, str(self))


class Interrupted(Exception):
    """Raised inside the sampler by `checkpoint()` when the job is interrupted or the batch skipped."""


class Cancelled(Exception):
    """Raised inside a job that nobody waits for any more: nothing of it is kept."""
