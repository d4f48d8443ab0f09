"""Sealed dataset snapshots: a folder whose id is the hash of its rows and that detects any change.

`rows.jsonl` holds canonical JSON, sorted; `manifest.json` holds the id, counts, provenance, the
split audit and a hash over itself. The same rows always give the same id.
"""

import datetime as dt
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

from tuning.atomic import canonical_json, replacing_folder, sha256_file
from tuning.errors import SnapshotError
from tuning.prompt import DEFAULT_ABSTAIN, Message
from tuning.splits import ngram_overlap

ROWS_FILE = "rows.jsonl"
MANIFEST_FILE = "manifest.json"
SCHEMA = 1
KINDS = ("grounded", "style", "abstain")
SPLITS = ("train", "dev", "test")
CITE = "{cite}"

Kind = Literal["grounded", "style", "abstain"]


class RowPassage(TypedDict):
    """A passage of a row; `title` is already "Title > Heading"."""

    id: str
    title: str
    text: str


class Row(TypedDict):
    """One row of a snapshot.

    `distractors` are near misses, hardest first. `answer` may hold `{cite}` where the citation
    goes; a grounded answer without it gets the citation at its end.
    """

    id: str
    question: str
    answer: str
    kind: Kind
    gold: list[RowPassage]
    distractors: list[RowPassage]
    component: str
    split: Literal["train", "dev", "test"]
    system: NotRequired[str | None]
    history: NotRequired[list[Message]]
    provenance: NotRequired[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class SnapshotManifest:
    """What a sealed snapshot says about itself; `id` is the SHA-256 of its rows file."""

    id: str
    rows: int
    counts: dict[str, dict[str, int]]
    created: str
    provenance: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A verified snapshot in memory."""

    manifest: SnapshotManifest
    rows: tuple[Row, ...]

    def split(self, name: str) -> list[Row]:
        """Rows of one split, in the snapshot's order."""
        return [row for row in self.rows if row["split"] == name]


def validate_row(row: Any) -> Row:
    """Check one row against the format and return it.

    Raises:
        SnapshotError: Naming the row and what is wrong with it.
    """
    if not isinstance(row, Mapping):
        raise SnapshotError(f"a row must be an object, not {type(row).__name__}")
    name = row.get("id")
    _require(isinstance(name, str) and bool(name), "a row needs a text 'id'")
    for key in ("question", "answer", "component"):
        value = row.get(key)
        _require(isinstance(value, str) and bool(value.strip()), f"row {name!r}: no text {key!r}")
    _require(row.get("kind") in KINDS, f"row {name!r}: kind must be one of {', '.join(KINDS)}")
    _require(row.get("split") in SPLITS, f"row {name!r}: split must be one of {', '.join(SPLITS)}")
    for key in ("gold", "distractors"):
        passages = row.get(key)
        _require(isinstance(passages, list), f"row {name!r}: {key!r} must be a list")
        for passage in cast(list[Any], passages):
            good = isinstance(passage, Mapping) and all(
                isinstance(passage.get(part), str) for part in ("id", "title", "text")
            )
            _require(good, f"row {name!r}: a passage in {key!r} needs texts id, title, text")
    _require_kind(row)
    for turn in row.get("history") or []:
        good = isinstance(turn, Mapping) and turn.get("role") in ("user", "assistant")
        _require(good, f"row {name!r}: history turns have the role user or assistant")
    return cast(Row, row)


def seal(
    rows: Iterable[Row],
    out_dir: Path | str,
    *,
    provenance: Mapping[str, Any] | None = None,
    audit: Mapping[str, Any] | None = None,
) -> SnapshotManifest:
    """Write a snapshot folder; it appears whole or not at all.

    Raises:
        SnapshotError: If there are no rows, a row is malformed, an id occurs twice, or a
            component lies on two sides of a split.
    """
    checked = [validate_row(row) for row in rows]
    _require(bool(checked), "a snapshot needs at least one row")
    _check_across_rows(checked)
    lines = sorted(canonical_json(row) for row in checked)
    text = "".join(f"{line}\n" for line in lines)
    manifest = SnapshotManifest(
        id=hashlib.sha256(text.encode("utf-8")).hexdigest(),
        rows=len(checked),
        counts=_counts(checked),
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        provenance=dict(provenance or {}),
        audit={**_leak_audit(checked), **dict(audit or {})},
    )
    with replacing_folder(Path(out_dir)) as folder:
        (folder / ROWS_FILE).write_text(text, encoding="utf-8", newline="\n")
        (folder / MANIFEST_FILE).write_text(_manifest_text(manifest), encoding="utf-8")
    return manifest


def verify(directory: Path | str) -> SnapshotManifest:
    """Check every byte of a snapshot folder against its hashes and return the manifest.

    Raises:
        SnapshotError: If a file is missing or anything in it changed since sealing.
    """
    folder = Path(directory)
    for name in (MANIFEST_FILE, ROWS_FILE):
        _require((folder / name).is_file(), f"snapshot {str(folder)!r} has no {name}")
    raw = (folder / MANIFEST_FILE).read_bytes()
    try:
        record = json.loads(raw.decode("utf-8"))
        record.pop("manifest_sha256")
        manifest = SnapshotManifest(**record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SnapshotError(f"the manifest of {str(folder)!r} is damaged: {error}") from error
    # The text is rebuilt and compared whole, so a changed space is found as well as a digit.
    _require(
        raw == _manifest_text(manifest).encode("utf-8"),
        f"the manifest of {str(folder)!r} changed since it was sealed",
    )
    actual = sha256_file(folder / ROWS_FILE)
    _require(
        actual == manifest.id,
        f"the rows of {str(folder)!r} changed since they were sealed: "
        f"{actual[:12]} is not {manifest.id[:12]}",
    )
    return manifest


def load(directory: Path | str) -> Snapshot:
    """Verify a snapshot folder and read its rows.

    Raises:
        SnapshotError: As `verify`.
    """
    manifest = verify(directory)
    with (Path(directory) / ROWS_FILE).open(encoding="utf-8") as stream:
        rows = tuple(cast(Row, json.loads(line)) for line in stream)
    return Snapshot(manifest, rows)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SnapshotError(message)


def _require_kind(row: Mapping[str, Any]) -> None:
    name, kind = row["id"], row["kind"]
    if kind == "grounded":
        _require(bool(row["gold"]), f"row {name!r}: a grounded row needs a gold passage")
    else:
        _require(not row["gold"], f"row {name!r}: a row of kind {kind} has no gold passage")
    if kind == "abstain":
        starts = row["answer"].startswith(DEFAULT_ABSTAIN.rstrip("."))
        _require(starts, f"row {name!r}: an abstain answer must start with {DEFAULT_ABSTAIN!r}")
    _require(row["answer"].count(CITE) <= 1, f"row {name!r}: {CITE} occurs more than once")


def _check_across_rows(rows: list[Row]) -> None:
    ids = Counter(row["id"] for row in rows)
    repeated = [name for name, count in ids.items() if count > 1]
    _require(not repeated, f"row id {repeated[0] if repeated else ''!r} occurs more than once")
    side: dict[str, str] = {}
    for row in rows:
        first = side.setdefault(row["component"], row["split"])
        _require(
            first == row["split"],
            f"component {row['component']!r} is in both {first} and {row['split']}",
        )


def _counts(rows: list[Row]) -> dict[str, dict[str, int]]:
    counts: Counter[tuple[str, str]] = Counter((row["split"], row["kind"]) for row in rows)
    return {
        split: {kind: counts[split, kind] for kind in KINDS if counts[split, kind]}
        for split in SPLITS
        if any(counts[split, kind] for kind in KINDS)
    }


def _leak_audit(rows: list[Row]) -> dict[str, Any]:
    def texts(*splits: str) -> list[str]:
        return [f"{r['question']} {r['answer']}" for r in rows if r["split"] in splits]

    golds = {split: set[str]() for split in SPLITS}
    for row in rows:
        golds[row["split"]].update(passage["id"] for passage in row["gold"])
    return {
        "components": len({row["component"] for row in rows}),
        "held_out_rows_sharing_13_words_with_train": ngram_overlap(
            texts("train"), texts("dev", "test")
        ),
        "gold_passages_in_train_and_held_out": len(golds["train"] & (golds["dev"] | golds["test"])),
    }


def _manifest_text(manifest: SnapshotManifest) -> str:
    record = asdict(manifest)
    record["manifest_sha256"] = hashlib.sha256(canonical_json(record).encode()).hexdigest()
    return json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
