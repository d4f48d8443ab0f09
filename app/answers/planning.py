"""Which arm and adapter serve a request, read once from SQL."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.answers.types import AnswerRequest, Plan
from app.db.session import Database
from app.db.tables import Adapter
from app.engines.types import AdapterRef
from app.errors import BadInput, NotFound
from app.use_cases import service as use_cases
from app.use_cases import serving
from app.use_cases.options import serving_options


def read_plan(database: Database, request: AnswerRequest, reader_digest: str | None) -> Plan:
    """What serves the request.

    Raises:
        NotFound: Use case or adapter.
        BadInput: An arm that does not exist or cannot serve this use case.
    """
    with database.rows() as rows:
        found = serving.find(rows, request.workspace_id, request.use_case)
        if found is None:
            with Session(rows) as session:
                use_cases.get(session, request.workspace_id, request.use_case)  # says which exist
            raise NotFound(f"no use case {request.use_case!r}")
        arm = request.arm or str(found.arm)
        use_cases.check_arm(arm)
        if arm in ("rag", "hybrid") and not found.knowledge_base_ids:
            raise BadInput(f"use case {found.name!r} has no knowledge base: arm {arm!r} needs one")
        adapter = None
        if arm in ("tuned", "hybrid"):
            adapter = _adapter(rows, found, request, reader_digest)
    return Plan(
        use_case_id=found.id,
        use_case=found.name,
        arm=arm,
        knowledge_base_ids=tuple(found.knowledge_base_ids),
        system_prompt=found.system_prompt,
        abstain_sentence=found.abstain_sentence,
        adapter=reference(adapter),
        adapter_id=adapter.id if adapter is not None else None,
        adapter_name=adapter.name if adapter is not None else None,
        options=serving_options(found.options),
    )


def reference(adapter: Adapter | serving.Columns | None) -> AdapterRef | None:
    """An adapter as engines are told of it."""
    if adapter is None:
        return None
    return AdapterRef(adapter.digest, Path(adapter.gguf_path), Path(adapter.path))


def _adapter(
    rows: sa.Connection,
    use_case: serving.Columns,
    request: AnswerRequest,
    reader_digest: str | None,
) -> Adapter | serving.Columns:
    """The adapter that was asked for, else the use case's own, else the shipped reader."""
    workspace = request.workspace_id
    if not request.adapter and use_case.adapter_id:
        found = serving.adapter_by_id(rows, workspace, use_case.adapter_id)
        if found is not None:
            return found
    if request.adapter or use_case.adapter_id:
        with Session(rows) as session:
            return use_cases.find_adapter(
                session, workspace, request.adapter or str(use_case.adapter_id)
            )
    reader = serving.reader(rows, reader_digest)
    if reader is None:
        raise NotFound(
            "no adapter to serve with: the reader that ships with Tandem was made for the "
            "default base model, tune one with `tandem tune`"
        )
    return reader
