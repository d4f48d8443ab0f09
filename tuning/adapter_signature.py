"""Signatures of adapter manifests: who can change an adapter and its digest cannot sign it.

The digest finds damage; somebody who replaces tensors can compute it anew. The signature is an
HMAC-SHA256 over the manifest, which names the digest, made with a key that lies outside the
adapter's directory, as the one of dataset snapshots is.
"""

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any, Literal

from tuning.adapters import MANIFEST_FILE, read_manifest
from tuning.atomic import canonical_json, write_json
from tuning.errors import AdapterError

Signature = Literal["signed", "unsigned", "forged"]


def sign(directory: Path | str, key: bytes) -> None:
    """Sign an adapter's manifest as it is now, in place of any earlier signature.

    Raises:
        AdapterError: If the manifest is missing or damaged.
    """
    record = _record(Path(directory))
    write_json(Path(directory) / MANIFEST_FILE, {**record, "signature": _signature(record, key)})


def signature_state(directory: Path | str, key: bytes) -> Signature:
    """Whether the manifest carries this key's signature, none, or one that does not fit it.

    Raises:
        AdapterError: If the manifest is missing or damaged.
    """
    record = _record(Path(directory))
    signature = record.get("signature")
    if signature is None:
        return "unsigned"
    same = hmac.compare_digest(str(signature).encode(), _signature(record, key).encode())
    return "signed" if same else "forged"


def _record(folder: Path) -> dict[str, Any]:
    read_manifest(folder)
    record: dict[str, Any] = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    return record


def _signature(record: dict[str, Any], key: bytes) -> str:
    """Of the record as it is on disk: fields of later editions are covered as well."""
    unsigned = {name: value for name, value in record.items() if name != "signature"}
    try:
        text = canonical_json(unsigned)
    except ValueError as error:
        raise AdapterError(f"the manifest holds a number that is not finite: {error}") from error
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
