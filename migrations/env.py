"""Alembic environment: takes the engine from the caller, or TANDEM_DATABASE_URL from Settings."""

from alembic import context

from app.config import Settings
from app.db.base import UtcDateTime
from app.db.session import Database
from app.db.tables import Base


def render_item(kind, item, _autogen):
    """Revisions must not depend on application code: write plain SQLAlchemy types."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def without_foreign_keys(connection, off):
    """Switch SQLite's checks while tables are made anew, which is how it changes them.

    With the checks on, dropping the old table fails, or takes along what refers to it. Works
    outside a transaction only. Source: https://www.sqlite.org/lang_altertable.html#otheralter
    """
    connection.connection.dbapi_connection.execute(f"PRAGMA foreign_keys={'OFF' if off else 'ON'}")


engine = context.config.attributes.get("engine") or Database(Settings().sql_url).engine
with engine.connect() as connection:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET lock_timeout = '10s'")
        connection.exec_driver_sql("SELECT pg_advisory_lock(727467)")
        connection.commit()
    on_sqlite = connection.dialect.name == "sqlite"
    if on_sqlite:
        without_foreign_keys(connection, True)
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=on_sqlite,
        compare_type=True,
        render_item=render_item,
    )
    try:
        with context.begin_transaction():
            context.run_migrations()
        if on_sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all()):
            raise RuntimeError(f"the migration would break references: {broken[:5]}")
        connection.commit()
    finally:
        if on_sqlite:
            connection.rollback()
            without_foreign_keys(connection, False)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_unlock(727467)")
        connection.commit()
