"""groups, moves, schedules, and a shard beside the serving one

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("knowledge_bases") as table:
        table.add_column(sa.Column("embedder_source", sa.Text(), nullable=True))
        table.add_column(
            sa.Column("index_name", sa.String(length=80), nullable=False, server_default="")
        )
    op.execute("UPDATE knowledge_bases SET index_name = id")
    with op.batch_alter_table("documents") as table:
        table.add_column(sa.Column("attributes", sa.JSON(), nullable=False, server_default="{}"))
        table.add_column(sa.Column("former_ids", sa.JSON(), nullable=False, server_default="[]"))
    # The vectors of retired versions were not kept until now, so nothing can answer from them.
    op.execute("UPDATE document_versions SET state = 'purged' WHERE state = 'retired'")
    with op.batch_alter_table("api_keys") as table:
        table.add_column(sa.Column("groups", sa.JSON(), nullable=True))
    op.create_table(
        "document_groups",
        sa.Column("document_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("knowledge_base_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["document_id"],
            ["documents.id"],
            name=op.f("fk_document_groups_document_id_documents"),
        ),
        sa.ForeignKeyConstraint(
            ["knowledge_base_id"],
            ["knowledge_bases.id"],
            name=op.f("fk_document_groups_knowledge_base_id_knowledge_bases"),
        ),
        sa.PrimaryKeyConstraint("document_id", "name", name=op.f("pk_document_groups")),
    )
    with op.batch_alter_table("document_groups") as table:
        table.create_index("ix_document_groups_knowledge_base_id", ["knowledge_base_id"])
    op.create_table(
        "sync_sources",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("workspace_id", sa.String(length=64), nullable=False),
        sa.Column("knowledge_base_id", sa.String(length=64), nullable=False),
        sa.Column("specs", sa.JSON(), nullable=False),
        sa.Column("sync", sa.Boolean(), nullable=False),
        sa.Column("every_s", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_job_id", sa.String(length=64), nullable=True),
        sa.Column("created_by", sa.String(length=100), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["knowledge_base_id"],
            ["knowledge_bases.id"],
            name=op.f("fk_sync_sources_knowledge_base_id_knowledge_bases"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspaces.id"],
            name=op.f("fk_sync_sources_workspace_id_workspaces"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sync_sources")),
    )
    with op.batch_alter_table("sync_sources") as table:
        table.create_index("ix_sync_sources_knowledge_base_id", ["knowledge_base_id"])
        table.create_index("ix_sync_sources_next_at", ["next_at"])


def downgrade() -> None:
    op.execute("UPDATE document_versions SET state = 'retired' WHERE state = 'purged'")
    op.drop_table("sync_sources")
    op.drop_table("document_groups")
    for table_name, columns in (
        ("api_keys", ("groups",)),
        ("documents", ("former_ids", "attributes")),
        ("knowledge_bases", ("index_name", "embedder_source")),
    ):
        with op.batch_alter_table(table_name) as table:
            for column in columns:
                table.drop_column(column)
