"""Who brought which version of a policy into which state, when and why.

What was done before is told as far as it is known: when, not by whom.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0010"
down_revision: Final = "0009"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    op.create_table(
        "policy_steps",
        sa.Column("policy_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("policy_version", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("author", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.ForeignKeyConstraint(
            ["policy_id"],
            ["policies.id"],
            name=op.f("fk_policy_steps_policy_id_policies"),
            ondelete="CASCADE",  # a release that does not know of steps deletes policies, too
        ),
        sa.PrimaryKeyConstraint("policy_id", "seq", name=op.f("pk_policy_steps")),
    )
    op.execute(
        "INSERT INTO policy_steps (policy_id, seq, policy_version, state, at_us)"
        " SELECT policy_id, 2 * policy_version - 1, policy_version, 'draft', created_at_us"
        " FROM policy_versions"
    )
    op.execute(
        "INSERT INTO policy_steps (policy_id, seq, policy_version, state, at_us)"
        " SELECT policy_id, 2 * policy_version, policy_version, 'active', activated_at_us"
        " FROM policy_versions WHERE activated_at_us IS NOT NULL"
    )
