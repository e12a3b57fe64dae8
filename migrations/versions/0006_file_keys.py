"""Which answers are keyed by the file that was sent, as all were; new ones are keyed by their pixels

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
    op.create_table(
        "file_keys",
        sa.Column("last_answer", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("last_answer", name="pk_file_keys"),
    )
    op.execute("INSERT INTO file_keys SELECT max(id) FROM answers HAVING max(id) IS NOT NULL")


def downgrade() -> None:
    op.drop_table("file_keys")
