"""The operator's secret: whoever can read the data directory is its operator."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def operator_secret(root: Path) -> str:
    """The secret that proves access to the data directory; made at first use, mode 0600."""
    path = root / "operator.secret"
    try:
        return path.read_text("utf-8").strip()
    except FileNotFoundError:
        root.mkdir(parents=True, exist_ok=True)
        secret = secrets.token_urlsafe(32)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path.read_text("utf-8").strip()
        with os.fdopen(descriptor, "w") as file:
            file.write(secret)
        return secret
