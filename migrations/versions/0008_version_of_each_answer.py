"""The model version that each request was answered by

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("model_version", sa.String(200)))


def downgrade() -> None:
    op.drop_column("attempts", "model_version")
