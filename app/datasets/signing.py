"""The installation's key that signs dataset manifests."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

_FILE = "datasets.key"
_BYTES = 32


def signing_key(root: Path) -> bytes:
    """The key; made at first use, readable by its owner alone."""
    path = root / _FILE
    try:
        return bytes.fromhex(path.read_text("ascii"))
    except FileNotFoundError:
        root.mkdir(parents=True, exist_ok=True)
    key = secrets.token_bytes(_BYTES)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return bytes.fromhex(path.read_text("ascii"))
    with os.fdopen(descriptor, "w") as file:
        file.write(key.hex())
    return key
