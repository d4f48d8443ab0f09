"""The closed-book probe of an adapter with the serving engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.tables import Adapter, DatasetSnapshot
from app.engines.types import AdapterRef, Engine, GenerationRequest
from app.errors import BadInput, NotFound
from tuning.prompt import Message, encode
from tuning.recall_probe import closed_book_recall, probe_rows
from tuning.snapshot import Row, load

_MAX_TOKENS = 48


def find_adapter(session: Session, workspace_id: str, adapter: str) -> Adapter:
    """An adapter of the workspace, or the shipped reader, by id or name."""
    query = sa.select(Adapter).where(
        sa.or_(Adapter.id == adapter, Adapter.name == adapter),
        sa.or_(Adapter.workspace_id == workspace_id, Adapter.workspace_id.is_(None)),
    )
    found = session.scalars(query.order_by(Adapter.created_at.desc())).first()
    if found is None:
        raise NotFound(f"no adapter {adapter!r}: `tandem adapters list` shows them")
    return found


def rows_with_values(snapshot: DatasetSnapshot, limit: int) -> list[Row]:
    """Training rows of a snapshot whose answers state a value of their passage.

    Raises:
        BadInput: If there is none.
    """
    rows = probe_rows(load(snapshot.path).split("train"), limit)
    if not rows:
        raise BadInput(
            f"dataset {snapshot.content_sha256[:12]!r} has no training row whose answer states a "
            "value of its passage: there is nothing to probe"
        )
    return rows


def probe(engine: Engine, tokenizer: Any, adapter: Adapter, rows: Sequence[Row]) -> dict[str, Any]:
    """Ask for the rows' values without passages, with and without the adapter."""
    ref = AdapterRef(adapter.digest, Path(adapter.gguf_path), Path(adapter.path))

    def ask(prompts: Sequence[Sequence[Message]], with_adapter: bool) -> list[str]:
        return [
            engine.generate(
                GenerationRequest(
                    encode(tokenizer, prompt),
                    max_tokens=_MAX_TOKENS,
                    adapter=ref if with_adapter else None,
                    messages=tuple({"role": t["role"], "content": t["content"]} for t in prompt),
                )
            ).text
            for prompt in prompts
        ]

    report = closed_book_recall(
        rows, lambda prompts: ask(prompts, False), lambda prompts: ask(prompts, True)
    )
    return asdict(report) | {
        "passed": report.passed,
        "verdict": report.verdict,
        "adapter": adapter.name,
    }
