"""Writing fetched documents: under server-made names, whole or not at all, on disk."""

from __future__ import annotations

import ctypes
import hashlib
import os
from pathlib import Path

# Linux only; the standard library offers no more than `os.sync`, which reports no errors.
_syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


def server_name(external_id: str, extension: str) -> str:
    """A file name made from the id alone, the same on every try; nothing of the id is in it."""
    digest = hashlib.sha256(external_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{digest[:40]}{extension}"


def write_whole(path: Path, content: bytes, *, flush: bool = True) -> Path:
    """Write `content` so that after a crash the file is the old one or the new one, never half.

    With `flush=False` that holds only once `flush_folder` has been called: one flush for a
    thousand files costs what one for each would cost for a few.
    """
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as file:
        file.write(content)
        if flush:
            file.flush()
            os.fsync(file.fileno())
    partial.replace(path)
    return path


def flush_folder(folder: Path) -> None:
    """Put the folder's files and their names on disk.

    Raises:
        OSError: The disk reports that something could not be written.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _syncfs is None:
            for path in folder.iterdir():
                _flush_file(path)
        elif _syncfs(handle) != 0:
            raise OSError(ctypes.get_errno(), "cannot put the files on disk", str(folder))
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
