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
├── DependencyDown      503  database, index or model not usable now
│   └── ModelMissing    503  says which command gets it
└── StorageFull         507

Library errors (RetrievalError, TuningError, EvalError, OSError ENOSPC) are mapped once, in
`as_app_error`.
"""

from __future__ import annotations

import errno
import os

from evals.errors import EvalError
from retrieval.errors import EmptyDocument, RetrievalError, UnsupportedFormat
from tuning.errors import TuningError


class AppError(Exception):
    """Base of all expected failures; `status` is the HTTP status, `title` the problem's class."""

    status = 500
    title = "Internal error"

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


class DependencyDown(AppError):
    """Database, index or model not usable now."""

    status = 503
    title = "Not available"


class ModelMissing(DependencyDown):
    """A model file is not on this machine."""

    title = "Model missing"


class StorageFull(AppError):
    """The disk is full."""

    status = 507
    title = "Disk full"


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
