"""What every answer reads of use cases and adapters: columns, by statements that are built once.

Read anew for each answer, in one view of the database: a promotion or a changed prompt in any
process holds for the next answer of all of them.
"""

from __future__ import annotations

from typing import Any, cast

import sqlalchemy as sa

from app.db.tables import Adapter, UseCase

Columns = sa.Row[*tuple[Any, ...]]
"""A row by its columns' names."""

_USE_CASES = cast(sa.Table, UseCase.__table__)
_ADAPTERS = cast(sa.Table, Adapter.__table__)

_USE_CASE = sa.select(
    _USE_CASES.c.id,
    _USE_CASES.c.name,
    _USE_CASES.c.arm,
    _USE_CASES.c.adapter_id,
    _USE_CASES.c.knowledge_base_ids,
    _USE_CASES.c.system_prompt,
    _USE_CASES.c.abstain_sentence,
    _USE_CASES.c.options,
).where(
    _USE_CASES.c.workspace_id == sa.bindparam("workspace"),
    _USE_CASES.c.name == sa.bindparam("name"),
)
_ADAPTER = sa.select(
    _ADAPTERS.c.id,
    _ADAPTERS.c.name,
    _ADAPTERS.c.digest,
    _ADAPTERS.c.gguf_path,
    _ADAPTERS.c.path,
)
_OWN_ADAPTER = _ADAPTER.where(
    _ADAPTERS.c.id == sa.bindparam("id"),
    sa.or_(
        _ADAPTERS.c.workspace_id == sa.bindparam("workspace"), _ADAPTERS.c.workspace_id.is_(None)
    ),
)
_READER = _ADAPTER.where(
    _ADAPTERS.c.digest == sa.bindparam("digest"), _ADAPTERS.c.workspace_id.is_(None)
)


def find(rows: sa.Connection, workspace_id: str, name: str) -> Columns | None:
    """How the use case serves; None where there is none of that name."""
    return rows.execute(_USE_CASE, {"workspace": workspace_id, "name": name}).first()


def adapter_by_id(rows: sa.Connection, workspace_id: str, adapter_id: str) -> Columns | None:
    """An adapter of the workspace, or the shipped one, by its id alone."""
    return rows.execute(_OWN_ADAPTER, {"workspace": workspace_id, "id": adapter_id}).first()


def reader(rows: sa.Connection, digest: str | None) -> Columns | None:
    """The reader that ships with Tandem, where it fits the base model."""
    return rows.execute(_READER, {"digest": digest}).first()
