"""The installation's key that signs dataset manifests."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from app.errors import BadInput

_FILE = "datasets.key"
_BYTES = 32


def signing_key(root: Path) -> bytes:
    """The key; made at first use, readable by its owner alone."""
    path = root / _FILE
    if not path.is_file():
        root.mkdir(parents=True, exist_ok=True)
        # Linked when it is whole, so that nobody reads half a key; the first one stays.
        descriptor, name = tempfile.mkstemp(dir=root, prefix=f".{_FILE}.")
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_bytes(_BYTES).hex())
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
        os.unlink(name)
    return _read(path)


def _read(path: Path) -> bytes:
    try:
        key = bytes.fromhex(path.read_text("ascii"))
    except ValueError:
        key = b""
    if len(key) != _BYTES:
        raise BadInput(f"{path.name} is damaged: it must hold {_BYTES} bytes in hexadecimal")
    return key
