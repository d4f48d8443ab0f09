"""Alembic revisions: one linear history that works on SQLite and PostgreSQL."""
