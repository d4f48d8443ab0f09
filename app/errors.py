"""The service's error tree. Every expected failure is one of these; one handler renders them.

AppError
├── BadInput            400  a value that cannot be used; the message names it and the valid choices
├── Unauthenticated     401
├── Forbidden           403
├── NotFound            404
├── Conflict            409  the state does not allow it (duplicate name, already decided)
├── TooLarge            413
├── UnsupportedInput    415
├── JobFailed           422  a job ended without its effect
├── QuotaExceeded       429  more than the key or workspace may ask for now
├── DependencyDown      503  database, index or model not usable now
│   ├── ModelMissing    503  says which command gets it
│   ├── Overloaded      503  more requests than the queue holds
│   └── TooSlow         504  no answer in time
└── StorageFull         507

Library errors (RetrievalError, TuningError, EvalError, OSError ENOSPC) are mapped once, in
`as_app_error`.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from evals.errors import EvalError
from retrieval.errors import EmptyDocument, RetrievalError, UnsupportedFormat
from tuning.errors import TuningError


class AppError(Exception):
    """Base of all expected failures; `status` is the HTTP status, `title` the problem's class.

    `retry_after`: seconds after which the same request may succeed; None where that is unknown.
    """

    status = 500
    title = "Internal error"
    retry_after: int | None = None

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadInput(AppError):
    """A value that cannot be used."""

    status = 400
    title = "Bad input"


class Unauthenticated(AppError):
    """No key, or a key nobody knows."""

    status = 401
    title = "Not authenticated"


class Forbidden(AppError):
    """A known key whose role does not allow this."""

    status = 403
    title = "Not allowed"


class NotFound(AppError):
    """Nothing of that name or id in the caller's workspace."""

    status = 404
    title = "Not found"


class Conflict(AppError):
    """The present state does not allow it."""

    status = 409
    title = "Conflict"


class TooLarge(AppError):
    """More bytes or tokens than allowed."""

    status = 413
    title = "Too large"


class UnsupportedInput(AppError):
    """A file type nobody can read."""

    status = 415
    title = "Unsupported input"


class JobFailed(AppError):
    """A job ended without its effect."""

    status = 422
    title = "Job failed"


class QuotaExceeded(AppError):
    """More than a key or workspace may ask for now."""

    status = 429
    title = "Quota exceeded"

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class DependencyDown(AppError):
    """Database, index or model not usable now."""

    status = 503
    title = "Not available"
    retry_after: int | None = 5


class Overloaded(DependencyDown):
    """More requests at once than the queue holds."""

    title = "Overloaded"


class TooSlow(DependencyDown):
    """No answer in time."""

    status = 504
    title = "Too slow"


class ModelMissing(DependencyDown):
    """A model file is not on this machine."""

    title = "Model missing"


class StorageFull(AppError):
    """The disk is full."""

    status = 507
    title = "Disk full"


def problem(error: AppError) -> dict[str, Any]:
    """RFC 9457 problem details; `error` repeats it in the shape OpenAI's clients show."""
    return {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "error": {
            "message": error.detail,
            "type": type(error).__name__,
            "code": str(error.status),
        },
    }


def as_app_error(error: Exception) -> AppError | None:
    """Map a library's expected failure to the service's; None for anything unexpected."""
    if isinstance(error, AppError):
        return error
    if isinstance(error, UnsupportedFormat | EmptyDocument):
        return UnsupportedInput(str(error))
    if isinstance(error, RetrievalError | TuningError | EvalError):
        return BadInput(str(error))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = error.filename or "data directory"
        told = error.strerror in (None, os.strerror(error.errno), str(error.errno))
        why = "" if told else f": {error.strerror}"
        return StorageFull(f"no space left on the disk ({where}){why}")
    if "database or disk is full" in str(error):
        return StorageFull("no space left on the disk that holds the database")
    return None
