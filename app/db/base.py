"""Declarative base: ids, UTC timestamps, JSON, and naming of constraints for Alembic."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Annotated, Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, mapped_column


class UtcDateTime(sa.TypeDecorator[datetime]):
    """A timestamp that is always aware and in UTC, on SQLite too."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Refuse naive times: they would mean different moments on different machines."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: give it a time zone")
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """SQLite gives naive values back; they were stored as UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def now() -> datetime:
    """The present moment, aware, UTC."""
    return datetime.now(UTC)


def aware(moment: datetime | None) -> datetime | None:
    """A date or a time without a zone is meant as UTC."""
    return moment.replace(tzinfo=UTC) if moment and moment.tzinfo is None else moment


def new_id() -> str:
    """A random id, 32 hex digits."""
    return uuid.uuid4().hex


Id = Annotated[str, mapped_column(sa.String(64), primary_key=True)]
Created = Annotated[datetime, mapped_column(UtcDateTime)]


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own declaration style
        datetime: UtcDateTime,
        dict[str, Any]: sa.JSON,
        list[Any]: sa.JSON,
        str: sa.Text,
    }
