"""Alembic from inside the process: bring a database to the newest revision, or say where it is."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

import migrations
from app.db.session import Database


def alembic_config(database: Database) -> Config:
    """Alembic's configuration for one database, without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["engine"] = database.engine
    return config


def upgrade(database: Database) -> str:
    """Apply all revisions; returns the revision reached."""
    config = alembic_config(database)
    head = ScriptDirectory.from_config(config).get_current_head()
    if current_revision(database) != head:
        command.upgrade(config, "head")
    return str(head)


def current_revision(database: Database) -> str | None:
    """The database's revision, or None when it is empty."""
    with database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()
