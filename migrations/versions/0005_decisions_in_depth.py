"""triggers and volatility

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("decisions") as table:
        table.alter_column("evaluation_id", existing_type=sa.String(length=64), nullable=True)
        table.add_column(sa.Column("context", sa.JSON(), nullable=False, server_default="{}"))
    op.create_table(
        "trigger_checks",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("workspace_id", sa.String(length=64), nullable=False),
        sa.Column("use_case_id", sa.String(length=64), nullable=False),
        sa.Column("decision_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("fired", sa.Boolean(), nullable=False),
        sa.Column("alpha", sa.Double(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspaces.id"],
            name=op.f("fk_trigger_checks_workspace_id_workspaces"),
        ),
        sa.ForeignKeyConstraint(
            ["use_case_id"],
            ["use_cases.id"],
            name=op.f("fk_trigger_checks_use_case_id_use_cases"),
        ),
        sa.ForeignKeyConstraint(
            ["decision_id"],
            ["decisions.id"],
            name=op.f("fk_trigger_checks_decision_id_decisions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trigger_checks")),
    )
    op.create_index("ix_trigger_checks_use_case_id", "trigger_checks", ["use_case_id"])
    op.create_table(
        "decision_requests",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("workspace_id", sa.String(length=64), nullable=False),
        sa.Column("use_case_id", sa.String(length=64), nullable=False),
        sa.Column("decision_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answered_by", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspaces.id"],
            name=op.f("fk_decision_requests_workspace_id_workspaces"),
        ),
        sa.ForeignKeyConstraint(
            ["use_case_id"],
            ["use_cases.id"],
            name=op.f("fk_decision_requests_use_case_id_use_cases"),
        ),
        sa.ForeignKeyConstraint(
            ["decision_id"],
            ["decisions.id"],
            name=op.f("fk_decision_requests_decision_id_decisions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decision_requests")),
    )
    op.create_index("ix_decision_requests_use_case_id", "decision_requests", ["use_case_id"])


def downgrade() -> None:
    op.drop_table("decision_requests")
    op.drop_table("trigger_checks")
    # Decisions without an evaluation have no place in the older schema.
    op.execute("DELETE FROM decisions WHERE evaluation_id IS NULL")
    with op.batch_alter_table("decisions") as table:
        table.drop_column("context")
        table.alter_column("evaluation_id", existing_type=sa.String(length=64), nullable=False)
