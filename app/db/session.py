"""Engine and sessions: one request or job step is one transaction, committed at the edge."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pysqlite3
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker


def create_sql_engine(url: str) -> sa.Engine:
    """An engine for SQLite (WAL, FULL sync, foreign keys on) or PostgreSQL (psycopg 3).

    SQLite comes from `pysqlite3`, which bundles a version with the WAL-reset fix
    (https://www.sqlite.org/wal.html); the system's may be older.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "postgresql":
        # Bound parameters are people's questions: no error message may carry them into a log.
        return sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True, hide_parameters=True
        )
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(
        url, module=pysqlite3.dbapi2, connect_args={"timeout": 30}, hide_parameters=True
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy's BEGIN below is the only one
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "busy_timeout=30000",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # IMMEDIATE: a transaction that will write takes the lock at once instead of failing midway.
        reads = connection.get_execution_options().get("reads_only", False)
        statement = "BEGIN" if reads else "BEGIN IMMEDIATE"
        raw: Any = connection.connection.dbapi_connection
        try:
            raw.execute(statement)
        except pysqlite3.dbapi2.Error as error:  # callers know SQLAlchemy's errors only
            raise sa.exc.DBAPIError.instance(
                statement, None, error, pysqlite3.dbapi2.Error, hide_parameters=True
            ) from error

    return engine


class Database:
    """Hands out sessions; owns the engine."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = create_sql_engine(url)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)
        reader = self.engine.execution_options(reads_only=True)
        self._readers = sessionmaker(reader, expire_on_commit=False)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction: committed when the block ends, rolled back when it raises."""
        with self._sessions() as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A consistent view that waits for no writer; what is changed in it is thrown away."""
        with self._readers() as session:
            yield session

    @contextmanager
    def rows(self) -> Iterator[sa.Connection]:
        """As `reading`, for statements that are built once and give columns.

        What every answer asks goes this way: objects and statements made anew for each question
        took three times as long.
        """
        # Said of the connection: an engine with options of its own passes each event on twice.
        with self.engine.connect() as connection:
            connection.execution_options(reads_only=True)
            yield connection

    @contextmanager
    def writing_rows(self) -> Iterator[sa.Connection]:
        """As `session`, for rows that are written as columns."""
        with self.engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def sqlite_version() -> str:
    """Version of the SQLite in use."""
    return str(pysqlite3.dbapi2.sqlite_version)


def system_sqlite_version() -> str:
    """Version of the SQLite that Python was linked with."""
    return sqlite3.sqlite_version
