"""The REST surface from a shell: every operation is one verb, and every verb is one operation.

Exit codes (stable): 0 done, 2 wrong usage, 3 refused by the service (4xx), 4 the service cannot be
reached or failed (5xx), 5 a watched job failed or was cancelled, 6 a watched job is paused.
"""

from __future__ import annotations

import typer

from app.remote import accounts, datasets, endpoints, jobs, records, service
from app.remote.watch import OVER, progress_note

#: Group -> its verbs.
GROUPS: dict[str, typer.Typer] = {
    "connections": accounts.connections,
    "datasets": datasets.group,
    "jobs": jobs.group,
    "endpoints": endpoints.group,
    "keys": accounts.keys,
    "webhooks": records.webhooks,
    "audit": records.audit,
    "service": service.group,
}

__all__ = ["GROUPS", "OVER", "progress_note"]
