"""provenance, quality and the test ledger

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_EXAMPLE_COLUMNS = ("source_type", "consent", "document_versions", "conversation", "history")


def upgrade() -> None:
    with op.batch_alter_table("examples") as table:
        table.add_column(
            sa.Column("source_type", sa.String(length=12), nullable=False, server_default="jsonl")
        )
        table.add_column(
            sa.Column("consent", sa.String(length=12), nullable=False, server_default="internal")
        )
        table.add_column(
            sa.Column("document_versions", sa.JSON(), nullable=False, server_default="[]")
        )
        table.add_column(sa.Column("conversation", sa.String(length=200), nullable=True))
        table.add_column(sa.Column("history", sa.JSON(), nullable=False, server_default="[]"))
    op.execute("UPDATE examples SET source_type = 'correction' WHERE review_id IS NOT NULL")
    with op.batch_alter_table("reviews") as table:
        table.add_column(sa.Column("correction_class", sa.String(length=12), nullable=True))
        table.add_column(sa.Column("edit_ratio", sa.Double(), nullable=True))
    op.create_table(
        "tickets",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("workspace_id", sa.String(length=64), nullable=False),
        sa.Column("use_case_id", sa.String(length=64), nullable=False),
        sa.Column("review_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("correction", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("documents", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_by", sa.String(length=100), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_tickets_workspace_id_workspaces")
        ),
        sa.ForeignKeyConstraint(
            ["use_case_id"], ["use_cases.id"], name=op.f("fk_tickets_use_case_id_use_cases")
        ),
        sa.ForeignKeyConstraint(
            ["review_id"], ["reviews.id"], name=op.f("fk_tickets_review_id_reviews")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tickets")),
        sa.UniqueConstraint("review_id", name=op.f("uq_tickets_review_id")),
    )
    with op.batch_alter_table("tickets") as table:
        table.create_index("ix_tickets_workspace_id", ["workspace_id"])
    op.create_table(
        "held_out_items",
        sa.Column("use_case_id", sa.String(length=64), nullable=False),
        sa.Column("item", sa.String(length=64), nullable=False),
        sa.Column("question_sha256", sa.String(length=64), nullable=False),
        sa.Column("split", sa.String(length=10), nullable=False),
        sa.Column("dataset_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["use_case_id"],
            ["use_cases.id"],
            name=op.f("fk_held_out_items_use_case_id_use_cases"),
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["dataset_snapshots.id"],
            name=op.f("fk_held_out_items_dataset_id_dataset_snapshots"),
        ),
        sa.PrimaryKeyConstraint("use_case_id", "item", name=op.f("pk_held_out_items")),
    )


def downgrade() -> None:
    op.drop_table("held_out_items")
    op.drop_table("tickets")
    with op.batch_alter_table("reviews") as table:
        table.drop_column("edit_ratio")
        table.drop_column("correction_class")
    with op.batch_alter_table("examples") as table:
        for column in _EXAMPLE_COLUMNS:
            table.drop_column(column)
