"""The secret a webhook had before, while its receiver changes over

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("webhooks", sa.Column("old_secret_encrypted", sa.Text()))
    op.add_column("webhooks", sa.Column("old_secret_until", sa.Float()))


def downgrade() -> None:
    op.drop_column("webhooks", "old_secret_until")
    op.drop_column("webhooks", "old_secret_encrypted")
