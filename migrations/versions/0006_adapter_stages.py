"""stages of an adapter

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("adapters") as table:
        table.add_column(
            sa.Column("stage", sa.String(length=10), nullable=False, server_default="candidate")
        )
    op.execute(
        "UPDATE adapters SET stage = 'live' WHERE id IN "
        "(SELECT adapter_id FROM use_cases WHERE adapter_id IS NOT NULL)"
    )
    op.create_table(
        "adapter_moves",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("adapter_id", sa.String(length=64), nullable=False),
        sa.Column("use_case_id", sa.String(length=64), nullable=False),
        sa.Column("from_stage", sa.String(length=10), nullable=False),
        sa.Column("to_stage", sa.String(length=10), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("moved_by", sa.String(length=100), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["adapter_id"], ["adapters.id"], name=op.f("fk_adapter_moves_adapter_id_adapters")
        ),
        sa.ForeignKeyConstraint(
            ["use_case_id"], ["use_cases.id"], name=op.f("fk_adapter_moves_use_case_id_use_cases")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_adapter_moves")),
    )
    with op.batch_alter_table("adapter_moves") as table:
        table.create_index("ix_adapter_moves_adapter_id", ["adapter_id"])
        table.create_index("ix_adapter_moves_use_case_id", ["use_case_id"])


def downgrade() -> None:
    op.drop_table("adapter_moves")
    with op.batch_alter_table("adapters") as table:
        table.drop_column("stage")
