"""quotas, cached answers and replay

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("workspaces") as table:
        table.add_column(sa.Column("limits", sa.JSON(), nullable=True))
    with op.batch_alter_table("api_keys") as table:
        table.add_column(sa.Column("limits", sa.JSON(), nullable=True))
    with op.batch_alter_table("answers") as table:
        table.add_column(sa.Column("coverage", sa.Double(), nullable=True))
        table.add_column(sa.Column("raw_text", sa.Text(), nullable=True))
        table.add_column(sa.Column("request", sa.JSON(), nullable=True))
        table.add_column(sa.Column("cached_from", sa.String(length=64), nullable=True))
    op.create_table(
        "cached_answers",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("workspace_id", sa.String(length=64), nullable=False),
        sa.Column("use_case_id", sa.String(length=64), nullable=False),
        sa.Column("key_sha256", sa.String(length=64), nullable=False),
        sa.Column("scope_sha256", sa.String(length=64), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=True),
        sa.Column("generation", sa.JSON(), nullable=False),
        sa.Column("answer_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["use_case_id"],
            ["use_cases.id"],
            name=op.f("fk_cached_answers_use_case_id_use_cases"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspaces.id"],
            name=op.f("fk_cached_answers_workspace_id_workspaces"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cached_answers")),
        sa.UniqueConstraint("key_sha256", name=op.f("uq_cached_answers_key_sha256")),
    )
    with op.batch_alter_table("cached_answers") as table:
        table.create_index("ix_cached_answers_use_case_id", ["use_case_id"])
        table.create_index("ix_cached_answers_scope_sha256", ["scope_sha256"])
    op.create_table(
        "cached_answer_versions",
        sa.Column("cached_id", sa.String(length=64), nullable=False),
        sa.Column("version_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["cached_id"],
            ["cached_answers.id"],
            name=op.f("fk_cached_answer_versions_cached_id_cached_answers"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "cached_id", "version_id", name=op.f("pk_cached_answer_versions")
        ),
    )
    with op.batch_alter_table("cached_answer_versions") as table:
        table.create_index("ix_cached_answer_versions_version_id", ["version_id"])


def downgrade() -> None:
    op.drop_table("cached_answer_versions")
    op.drop_table("cached_answers")
    for table_name, columns in (
        ("answers", ("cached_from", "request", "raw_text", "coverage")),
        ("api_keys", ("limits",)),
        ("workspaces", ("limits",)),
    ):
        with op.batch_alter_table(table_name) as table:
            for column in columns:
                table.drop_column(column)
