"""Import examples, ground them in the knowledge base, seal a snapshot."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.session import Database
from app.db.tables import Chunk, DatasetSnapshot, Document, Example, UseCase
from app.errors import BadInput, NotFound
from app.feedback.service import example_digest
from app.use_cases import service as use_cases
from app.workspaces.policy import Principal
from retrieval.types import Hit, context_path
from tuning.examples import Example as ParsedExample
from tuning.examples import load_examples
from tuning.prompt import DEFAULT_ABSTAIN
from tuning.snapshot import Row, RowPassage, load, seal, verify
from tuning.splits import SplitItem, assign_splits

Search = Callable[[str, int], Sequence[Hit]]

_DISTRACTORS = 6
_WORD = re.compile(r"\w+")


def import_examples(
    session: Session, principal: Principal, use_case: UseCase, path: Path
) -> dict[str, Any]:
    """Take examples from a JSONL file; the importer is their second pair of eyes.

    Returns:
        Counts, and each refused line with its reason.
    """
    loaded = load_examples(path)
    refused = [{"line": r.line, "reason": r.reason} for r in loaded.refusals]
    known = set(
        session.scalars(sa.select(Example.content_sha256).where(Example.use_case_id == use_case.id))
    )
    added = duplicates = 0
    for parsed in loaded.examples:
        author = str(parsed.metadata.get("author") or f"file {path.name}")
        if author == principal.name:
            reason = f"{author!r} wrote it: somebody else must import it"
            refused.append({"line": 0, "reason": f"example {parsed.id!r}: {reason}"})
            continue
        digest = example_digest(parsed.question, parsed.answer)
        if digest in known:
            duplicates += 1
            continue
        known.add(digest)
        session.add(_example(principal, use_case, parsed, author, path.name, digest))
        added += 1
    session.flush()
    return {"added": added, "known_already": duplicates, "refused": refused}


def _example(
    principal: Principal,
    use_case: UseCase,
    parsed: ParsedExample,
    author: str,
    origin: str,
    digest: str,
) -> Example:
    metadata = parsed.metadata
    sources = [str(source) for source in metadata.get("sources") or []]
    kind = metadata.get("kind")
    if kind not in ("grounded", "style", "abstain"):
        abstains = parsed.answer.startswith(DEFAULT_ABSTAIN.rstrip("."))
        kind = "abstain" if abstains else "grounded" if sources else "style"
    return Example(
        workspace_id=principal.workspace_id,
        use_case_id=use_case.id,
        kind=kind,
        question=parsed.question,
        answer=parsed.answer,
        sources=sources,
        gold_text=metadata.get("gold_text"),
        gold=[],
        author=author,
        reviewer=principal.name,
        origin=f"{origin}: {parsed.id}",
        content_sha256=digest,
    )


def build(
    database: Database,
    principal: Principal,
    use_case_name: str,
    search: Search,
    root: Path,
    *,
    dev: float = 0.1,
    test: float = 0.1,
) -> DatasetSnapshot:
    """Seal all approved examples of a use case, each with its passages, into a snapshot.

    The same examples over the same knowledge give the same snapshot.
    """
    with database.session() as session:
        use_case = use_cases.get(session, principal.workspace_id, use_case_name)
        query = sa.select(Example).where(
            Example.use_case_id == use_case.id, Example.reviewer.is_not(None)
        )
        examples = list(session.scalars(query.order_by(Example.content_sha256)))
        passages = _passages_by_document(session, use_case)
    if not examples:
        raise BadInput(
            f"use case {use_case_name!r} has no approved examples: "
            "`tandem dataset build USE_CASE --from FILE.jsonl` imports some"
        )
    rows, refused = _rows(examples, passages, search, use_case)
    items = [
        SplitItem(row["id"], row["question"], tuple(row["provenance"]["sources"])) for row in rows
    ]
    split = assign_splits(items, dev=dev, test=test)
    for row in rows:
        row["component"] = split.component[row["id"]]
        row["split"] = split.split[row["id"]]
    provenance = {"use_case": use_case.name, "refused": refused}
    folder, manifest = _seal(rows, root / "datasets", provenance, asdict(split.audit))
    with database.session() as session:
        stored = session.scalar(
            sa.select(DatasetSnapshot).where(
                DatasetSnapshot.use_case_id == use_case.id,
                DatasetSnapshot.content_sha256 == manifest.id,
            )
        )
        if stored is None:
            stored = DatasetSnapshot(
                workspace_id=principal.workspace_id,
                use_case_id=use_case.id,
                content_sha256=manifest.id,
                path=str(folder),
                manifest=asdict(manifest),
                created_by=principal.name,
            )
            session.add(stored)
            session.flush()
    return stored


def find(session: Session, workspace_id: str, snapshot: str) -> DatasetSnapshot:
    """By id or content hash (or a prefix of 8 characters or more)."""
    mine = DatasetSnapshot.workspace_id == workspace_id
    same = [DatasetSnapshot.id == snapshot]
    if len(snapshot) >= 8:
        same.append(DatasetSnapshot.content_sha256.startswith(snapshot, autoescape=True))
    found = session.scalars(sa.select(DatasetSnapshot).where(mine, sa.or_(*same))).first()
    if found is None:
        query = sa.select(DatasetSnapshot.content_sha256).where(mine)
        known = ", ".join(sha[:12] for sha in session.scalars(query)) or "none yet"
        raise NotFound(f"no dataset {snapshot!r}: there are {known}")
    return found


def show(snapshot: DatasetSnapshot) -> dict[str, Any]:
    """Manifest and counts, after every byte was checked."""
    manifest = verify(snapshot.path)
    rows = load(snapshot.path).rows
    kinds: dict[str, dict[str, int]] = {}
    for row in rows:
        counts = kinds.setdefault(row["split"], {})
        counts[row["kind"]] = counts.get(row["kind"], 0) + 1
    return {
        "id": snapshot.id,
        "content_sha256": manifest.id,
        "path": snapshot.path,
        "rows": len(rows),
        "splits": kinds,
        "audit": manifest.audit,
        "provenance": manifest.provenance,
        "verified": True,
    }


def _passages_by_document(session: Session, use_case: UseCase) -> dict[str, list[dict[str, str]]]:
    query = (
        sa.select(Chunk, Document)
        .join(Document, Document.current_version_id == Chunk.version_id)
        .where(
            Document.knowledge_base_id.in_(use_case.knowledge_base_ids),
            Document.deleted_at.is_(None),
        )
        .order_by(Document.external_id, Chunk.ordinal)
    )
    passages: dict[str, list[dict[str, str]]] = {}
    for chunk, document in session.execute(query):
        title = context_path(document.title, chunk.heading_path)
        passages.setdefault(document.external_id, []).append(
            {"id": chunk.id, "title": title, "text": chunk.text, "version": chunk.version_id}
        )
    return passages


def _rows(
    examples: list[Example],
    passages: dict[str, list[dict[str, str]]],
    search: Search,
    use_case: UseCase,
) -> tuple[list[Row], list[dict[str, str]]]:
    rows: list[Row] = []
    refused: list[dict[str, str]] = []
    for example in examples:
        gold = _gold(example, passages) if example.kind == "grounded" else None
        if example.kind == "grounded" and gold is None:
            reason = f"no current document among {', '.join(example.sources)} holds its fact"
            refused.append({"example": example.id, "reason": reason})
            continue
        hits = search(example.question, _DISTRACTORS + 1) if use_case.knowledge_base_ids else []
        golds: list[RowPassage] = [gold] if gold else []
        rows.append(
            {
                "id": example.content_sha256[:24],
                "question": example.question,
                "answer": example.answer,
                "kind": example.kind,  # type: ignore[typeddict-item]
                "gold": golds,
                "distractors": [
                    _row_passage(h) for h in hits if gold is None or h.chunk_id != gold["id"]
                ][:_DISTRACTORS],
                "component": "",
                "split": "train",
                "system": use_case.system_prompt,
                "history": [],
                "provenance": {
                    "author": example.author,
                    "reviewer": example.reviewer,
                    "origin": example.origin,
                    "sources": list(example.sources),
                },
            }
        )
    return rows, refused


def _gold(example: Example, passages: dict[str, list[dict[str, str]]]) -> RowPassage | None:
    """The current chunk of the example's documents that shares most with its supporting text."""
    wanted = set(_WORD.findall(f"{example.gold_text or ''} {example.answer}".lower()))
    best: tuple[float, dict[str, str]] | None = None
    for source in example.sources:
        for passage in passages.get(source, []):
            words = set(_WORD.findall(passage["text"].lower()))
            share = len(wanted & words) / max(1, len(wanted))
            if best is None or share > best[0]:
                best = (share, passage)
    if best is None or best[0] < 0.3:
        return None
    return {"id": best[1]["id"], "title": best[1]["title"], "text": best[1]["text"]}


def _row_passage(hit: Hit) -> RowPassage:
    title = context_path(hit.title, hit.heading_path)
    return {"id": hit.chunk_id, "title": title, "text": hit.text}


def _seal(
    rows: list[Row], folder: Path, provenance: dict[str, Any], audit: dict[str, Any]
) -> tuple[Path, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder, prefix=".sealing-"))
    try:
        manifest = seal(rows, scratch / "snapshot", provenance=provenance, audit=audit)
        target = folder / manifest.id
        if not target.exists():
            os.replace(scratch / "snapshot", target)
        return target, manifest
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
