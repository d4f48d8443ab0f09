"""Sealed dataset snapshots: a folder whose id is the hash of its content and that shows any change.

`rows.jsonl` holds canonical JSON, sorted; `pairs.jsonl` (preferences) and `ratings.jsonl` (thumbs)
stand beside it where there are some; `quality.jsonl` holds what was found about each row.
`manifest.json` holds the id, counts, provenance, the split audit, a hash of every file and of
itself, and a signature made with the installation's key. The same content always gives the same
id.
"""

import datetime as dt
import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict, cast

from tuning.atomic import canonical_json, replacing_folder, sha256_file
from tuning.errors import SnapshotError
from tuning.prompt import Message
from tuning.snapshot_rows import (
    CITE,
    KINDS,
    SPLITS,
    Kind,
    Row,
    RowPassage,
    check_across_rows,
    count_rows,
    leak_audit,
    validate_row,
)

__all__ = [
    "CITE",
    "KINDS",
    "SPLITS",
    "Kind",
    "Pair",
    "Rating",
    "Row",
    "RowPassage",
    "Snapshot",
    "SnapshotManifest",
    "load",
    "load_pairs",
    "load_ratings",
    "seal",
    "validate_row",
    "verify",
]

ROWS_FILE = "rows.jsonl"
PAIRS_FILE = "pairs.jsonl"
RATINGS_FILE = "ratings.jsonl"
QUALITY_FILE = "quality.jsonl"
MANIFEST_FILE = "manifest.json"
SCHEMA = 2
_OF_CONTENT = (ROWS_FILE, PAIRS_FILE, RATINGS_FILE)
_SINCE_SCHEMA_2 = ("files", "quality", "signature")


class Pair(TypedDict):
    """Two answers to one prompt, the better one and the worse one."""

    messages: list[Message]
    chosen: str
    rejected: str


class Rating(TypedDict):
    """An answer that somebody liked (`label` true) or not."""

    messages: list[Message]
    completion: str
    label: bool


@dataclass(frozen=True, slots=True)
class Extras:
    """What a snapshot holds beside its rows; `findings` is one record per row."""

    pairs: tuple[Pair, ...] = ()
    ratings: tuple[Rating, ...] = ()
    findings: tuple[Mapping[str, Any], ...] = ()
    quality: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SnapshotManifest:
    """What a sealed snapshot says about itself.

    Attributes:
        id: SHA-256 of its rows file; with pairs or ratings, of the hashes of all of them.
        files: SHA-256 of every file beside the manifest.
        quality: Summary of what was found about the rows.
        signature: HMAC-SHA256 of the manifest with the installation's key, or None.
    """

    id: str
    rows: int
    counts: dict[str, dict[str, int]]
    created: str
    provenance: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)
    schema: int = 1
    files: dict[str, str] = field(default_factory=dict)
    quality: dict[str, Any] = field(default_factory=dict)
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A verified snapshot in memory."""

    manifest: SnapshotManifest
    rows: tuple[Row, ...]

    def split(self, name: str) -> list[Row]:
        """Rows of one split, in the snapshot's order."""
        return [row for row in self.rows if row["split"] == name]


def seal(
    rows: Iterable[Row],
    out_dir: Path | str,
    *,
    provenance: Mapping[str, Any] | None = None,
    audit: Mapping[str, Any] | None = None,
    extras: Extras | None = None,
    key: bytes | None = None,
) -> SnapshotManifest:
    """Write a snapshot folder; it appears whole or not at all.

    Args:
        rows: The rows; their order does not matter.
        out_dir: Folder to make.
        provenance: Where the rows come from.
        audit: What the split looks like.
        extras: Preference pairs, ratings, and what was found about the rows.
        key: Signs the manifest.

    Raises:
        SnapshotError: If there are no rows, a row is malformed, an id occurs twice, or a
            component lies on two sides of a split.
    """
    checked = [validate_row(row) for row in rows]
    _require(bool(checked), "a snapshot needs at least one row")
    check_across_rows(checked)
    extras = extras or Extras()
    texts = {ROWS_FILE: _lines(checked)}
    more = ((PAIRS_FILE, extras.pairs), (RATINGS_FILE, extras.ratings))
    texts |= {name: _lines(records) for name, records in more if records}
    if extras.findings:
        texts[QUALITY_FILE] = _lines(extras.findings)
    files = {name: _sha256(text) for name, text in texts.items()}
    manifest = SnapshotManifest(
        id=_content_id(files),
        rows=len(checked),
        counts=count_rows(checked),
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        provenance=dict(provenance or {}),
        audit={**leak_audit(checked), **dict(audit or {})},
        schema=SCHEMA,
        files=files,
        quality=dict(extras.quality),
    )
    if key is not None:
        manifest = _signed(manifest, key)
    with replacing_folder(Path(out_dir)) as folder:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
        (folder / MANIFEST_FILE).write_text(_manifest_text(manifest), encoding="utf-8")
    return manifest


def verify(directory: Path | str, *, key: bytes | None = None) -> SnapshotManifest:
    """Check every byte of a snapshot folder against its hashes and return the manifest.

    Args:
        directory: The snapshot folder.
        key: Checks the signature too; a snapshot of an older schema has none.

    Raises:
        SnapshotError: If a file is missing or anything in it changed since sealing, or the
            signature was made with another key.
    """
    folder = Path(directory)
    for name in (MANIFEST_FILE, ROWS_FILE):
        _require((folder / name).is_file(), f"snapshot {str(folder)!r} has no {name}")
    manifest = _read_manifest(folder)
    for name, wanted in manifest.files.items():
        _require((folder / name).is_file(), f"snapshot {str(folder)!r} has no {name}")
        what = name.removesuffix(".jsonl")
        actual = sha256_file(folder / name)
        _require(
            actual == wanted,
            f"the {what} of {str(folder)!r} changed since they were sealed: "
            f"{actual[:12]} is not {wanted[:12]}",
        )
    # A planted pairs file would be trained on.
    added = [n for n in (*_OF_CONTENT, QUALITY_FILE) if n not in manifest.files]
    for name in added:
        _require(
            not (folder / name).exists(),
            f"{name} of {str(folder)!r} was added since the snapshot was sealed",
        )
    _require(
        _content_id(manifest.files) == manifest.id,
        f"the id of {str(folder)!r} is not the one of its files",
    )
    if key is not None and manifest.schema >= SCHEMA:
        signature = manifest.signature or "none"
        _require(
            hmac.compare_digest(signature, _signature(manifest, key)),
            f"the signature of {str(folder)!r} was not made with this installation's key",
        )
    return manifest


def load(directory: Path | str) -> Snapshot:
    """Verify a snapshot folder and read its rows.

    Raises:
        SnapshotError: As `verify`.
    """
    manifest = verify(directory)
    return Snapshot(manifest, tuple(cast(Row, r) for r in _read(directory, ROWS_FILE)))


def load_pairs(directory: Path | str) -> tuple[Pair, ...]:
    """Verify a snapshot folder and read its preference pairs; none where it has no such file.

    Raises:
        SnapshotError: As `verify`.
    """
    verify(directory)
    return tuple(cast(Pair, record) for record in _read(directory, PAIRS_FILE))


def load_ratings(directory: Path | str) -> tuple[Rating, ...]:
    """Verify a snapshot folder and read its ratings; none where it has no such file.

    Raises:
        SnapshotError: As `verify`.
    """
    verify(directory)
    return tuple(cast(Rating, record) for record in _read(directory, RATINGS_FILE))


def load_findings(directory: Path | str) -> tuple[dict[str, Any], ...]:
    """Verify a snapshot folder and read what was found about each row.

    Raises:
        SnapshotError: As `verify`.
    """
    verify(directory)
    return tuple(_read(directory, QUALITY_FILE))


def _read(directory: Path | str, name: str) -> list[dict[str, Any]]:
    path = Path(directory) / name
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def _read_manifest(folder: Path) -> SnapshotManifest:
    raw = (folder / MANIFEST_FILE).read_bytes()
    try:
        record = json.loads(raw.decode("utf-8"))
        record.pop("manifest_sha256")
        manifest = SnapshotManifest(**record)
        files = manifest.files or {ROWS_FILE: manifest.id}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SnapshotError(f"the manifest of {str(folder)!r} is damaged: {error}") from error
    # The text is rebuilt and compared whole, so a changed space is found as well as a digit.
    _require(
        raw == _manifest_text(manifest).encode("utf-8"),
        f"the manifest of {str(folder)!r} changed since it was sealed",
    )
    return SnapshotManifest(**{**record, "files": files})


def _content_id(files: Mapping[str, str]) -> str:
    content = {name: files[name] for name in _OF_CONTENT if name in files}
    return content[ROWS_FILE] if len(content) == 1 else _sha256(canonical_json(content))


def _lines(records: Iterable[Any]) -> str:
    return "".join(f"{line}\n" for line in sorted(canonical_json(record) for record in records))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _signature(manifest: SnapshotManifest, key: bytes) -> str:
    record = {**asdict(manifest), "signature": None}
    return hmac.new(key, canonical_json(record).encode(), hashlib.sha256).hexdigest()


def _signed(manifest: SnapshotManifest, key: bytes) -> SnapshotManifest:
    return SnapshotManifest(**{**asdict(manifest), "signature": _signature(manifest, key)})


def _manifest_text(manifest: SnapshotManifest) -> str:
    record = asdict(manifest)
    if manifest.schema < SCHEMA:
        record = {name: value for name, value in record.items() if name not in _SINCE_SCHEMA_2}
    record["manifest_sha256"] = hashlib.sha256(canonical_json(record).encode()).hexdigest()
    return json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SnapshotError(message)
