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


engine = context.config.attributes.get("engine") or Database(Settings().sql_url).engine
with engine.connect() as connection:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET lock_timeout = '10s'")
        connection.exec_driver_sql("SELECT pg_advisory_lock(727467)")
        connection.commit()
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        render_item=render_item,
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_unlock(727467)")
        connection.commit()
