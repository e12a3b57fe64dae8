"""Records of the stores as documents of the wire."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from app.api.deps import Services
from app.contracts import Cost
from app.errors import NotFound
from app.jobs.progress import rfc3339
from app.jobs.spec import JobSpec, Money, amount
from app.reprogramming import program as programs
from app.reprogramming.encoder import shape
from app.reprogramming.metrics import per_class, with_interval
from app.storage.audit import AuditLine
from app.storage.budget import Attempt
from app.storage.canaries import CanaryRecord, scope
from app.storage.connections import ConnectionRecord
from app.storage.datasets import DatasetRecord
from app.storage.endpoints import EndpointRecord, VersionRecord
from app.storage.events import Event
from app.storage.jobs import JobRecord, Jobs
from app.storage.keys import KeyRecord
from app.storage.webhooks import Delivery, WebhookRecord

_NOTHING = Cost(0, 0, None, 0, 0, None)
_NO_PROGRESS = {
    "phase": "waiting",
    "fraction": 0.0,
    "queries_done": 0,
    "queries_planned": None,
    "eta": None,
    "throttled_until": None,
    "last_progress_at": None,
}
_NO_METRICS = {"latest": None, "best": None, "baselines": None, "test": None, "verdict": None}


def money(micros: int, currency: str) -> dict[str, str]:
    return Money.of(micros, currency).model_dump()


def when(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(seconds)


def spending(wired: Services, scope: str) -> Cost:
    """A scope's figures; zeros for one that never spent."""
    try:
        return wired.ledger.cost(scope)
    except NotFound:
        return _NOTHING


def cost(found: Cost, currency: str) -> dict[str, Any]:
    left = None if found.cap is None else found.cap - found.spent - found.reserved
    queries_left = (
        None
        if found.queries_cap is None
        else found.queries_cap - found.queries_spent - found.queries_reserved
    )
    return {
        "spent": money(found.spent, currency),
        "reserved": money(found.reserved, currency),
        "remaining": None if left is None else money(max(left, 0), currency),
        "billable_queries": found.queries_spent,
        "reserved_queries": found.queries_reserved,
        "remaining_queries": queries_left,
        "unknown_queries": found.unknown_queries,
        "cached_queries": found.cached_queries,
        "retried_queries": found.retried_queries,
    }


def connection(wired: Services, record: ConnectionRecord) -> dict[str, Any]:
    found, currency = spending(wired, record.id), record.price.currency
    limits = record.limits
    return {
        "id": record.id,
        "name": record.name,
        "provider": record.provider,
        "base_url": record.base_url,
        "model": record.model,
        "options": record.options,
        "secret": {"set": record.secret_set, "last4": record.secret_last4, "ref": record.secret_ref},
        "price": {"per_1000": _shortest(record.price.micros * 1000), "currency": currency},
        "limits": {
            "requests_per_second": limits.requests_per_second,
            "concurrency": limits.concurrency,
            "max_batch": limits.max_batch,
        },
        "budget": None if found.cap is None else money(found.cap, currency),
        "spent": money(found.spent, currency),
        "labels_known": len(record.labels),
        "model_version": record.model_version or None,
        "created_at": rfc3339(record.created_at),
    }


def _shortest(micros: int) -> str:
    """A price with at least two decimals: 1.20, 0.00, 1.234."""
    whole, _, part = amount(micros).partition(".")
    return f"{whole}.{part.rstrip('0').ljust(2, '0')}"


def dataset(record: DatasetRecord, *, report: bool = True) -> dict[str, Any]:
    here = f"/v1/datasets/{record.id}"
    return {
        "id": record.id,
        "name": record.name,
        "classes": list(record.classes),
        "counts": record.counts,
        "items": sum(record.images().values()),
        "content_sha256": record.content_sha256,
        "seed": record.seed,
        "report": record.report if report else None,
        "created_at": rfc3339(record.created_at),
        "links": {"self": here, "report": f"{here}/report", "items": f"{here}/items"},
    }


_JOB_LINKS = (
    "events", "metrics", "queries", "checkpoints", "evaluations", "mapping", "samples", "artifact", "pause",
    "resume", "cancel", "clone",
)  # fmt: skip


def job(wired: Services, record: JobRecord, currency: str) -> dict[str, Any]:
    """The job object."""
    here, spec = f"/v1/jobs/{record.id}", record.spec
    links = {name: f"{here}/{name}" for name in _JOB_LINKS}
    links |= {"self": here, "stream": f"{here}/events/stream", "program": f"{here}/program.png"}
    publish: dict[str, Any] | None = spec.get("publish")
    if publish is not None and record.status == "succeeded":
        links["endpoint"] = f"/v1/endpoints/{publish['name']}"
        links["predict"] = f"/v1/endpoints/{publish['name']}/predict"
    return {
        "id": record.id,
        "object": "reprogramming.job",
        "name": record.name,
        "status": record.status,
        "status_reason": record.status_reason,
        "created_at": rfc3339(record.created_at),
        "started_at": when(record.started_at),
        "finished_at": when(record.finished_at),
        "connection_id": record.connection_id,
        "dataset_id": record.dataset_id or None,
        "seed": spec.get("seed", 0),
        "method": spec.get("method", {}),
        "limits": spec.get("limits", {}),
        "metadata": record.metadata,
        "publish": publish,
        "progress": _NO_PROGRESS | record.progress,
        "cost": cost(spending(wired, record.id), currency),
        "metrics": _NO_METRICS | _with_interval(record.metrics),
        "error": record.error,
        "links": links,
    }


def _with_interval(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What older releases did not store: `val_ci95` of the best and the latest program, and the intervals of
    each class of the test, which its confusion tells."""
    told: dict[str, Any] = {
        name: validated(metrics.get(name) or {}, metrics) or None for name in ("best", "latest")
    }
    test: dict[str, Any] = metrics.get("test") or {}
    if test.get("per_class") and "f1_ci95" not in test["per_class"][0]:
        told["test"] = test | {"per_class": per_class(np.array(test["confusion"]), test["labels"])}
    return {**metrics, **told}


def validated(figures: Mapping[str, Any], of: Mapping[str, Any]) -> dict[str, Any]:
    """A step's or a checkpoint's figures with the interval of their validation accuracy; `of` are the
    metrics of its job, which say on how many images it was measured."""
    return with_interval(figures, (of.get("best") or {}).get("validation_images"))


def event(found: Event) -> dict[str, Any]:
    return {
        "id": f"evt_{found.job_id.removeprefix('job_')}_{found.seq:08d}",
        "object": "event",
        "seq": found.seq,
        "job_id": found.job_id,
        "type": found.type,
        "data": found.data,
        "created_at": rfc3339(found.created_at),
    }


def attempt(line: Attempt, currency: str) -> dict[str, Any]:
    same = (
        "id", "purpose", "images", "billed", "outcome", "http_status", "code", "request_id", "model_version"
    )  # fmt: skip
    return {name: getattr(line, name) for name in same} | {
        "price": money(line.price_micros, currency),
        "cost": money(line.billed * line.price_micros, currency),
        "sent_at": rfc3339(line.sent_at),
        "done_at": when(line.done_at),
    }


@lru_cache(maxsize=2048)  # a checkpoint never changes
def _input(jobs: Jobs, checkpoint_id: str) -> dict[str, Any]:
    return shape(programs.from_bytes(jobs.program(checkpoint_id)).encoder)


def endpoint(wired: Services, record: EndpointRecord, currency: str) -> dict[str, Any]:
    here, found = f"/v1/endpoints/{record.name}", spending(wired, record.id)
    watch = wired.endpoints.canaries.get(record.id)
    degraded = watch is not None and watch.state == "degraded"
    return {
        "id": record.id,
        "name": record.name,
        "version": record.version,
        "enabled": record.enabled,
        "status": "disabled" if not record.enabled else "degraded" if degraded else "ok",
        "canary": None if watch is None else canary(wired, watch, currency),
        "input": _input(wired.jobs, record.live.checkpoint_id),
        "job_id": record.live.job_id,
        "checkpoint_id": record.live.checkpoint_id,
        "connection_id": record.live.connection_id,
        "limits": {
            "budget": None if found.cap is None else money(found.cap, currency),
            "max_queries": found.queries_cap,
        },
        "cost": cost(found, currency),
        "created_at": rfc3339(record.created_at),
        "links": {"self": here, "predict": f"{here}/predict", "versions": f"{here}/versions"},
    }


def canary(wired: Services, record: CanaryRecord, currency: str) -> dict[str, Any]:
    found = spending(wired, scope(record.endpoint_id))
    return {
        "state": record.state,
        "queries": record.queries,
        "every_seconds": record.every_seconds,
        "tolerance": record.tolerance,
        "budget": None if found.cap is None else money(found.cap, currency),
        "cost": cost(found, currency),
        "last": record.last,
        "next_at": rfc3339(record.next_at),
    }


def version(record: VersionRecord) -> dict[str, Any]:
    shown = {name: getattr(record, name) for name in ("version", "job_id", "checkpoint_id", "connection_id")}
    return shown | {"created_at": rfc3339(record.created_at)}


def key(wired: Services, record: KeyRecord) -> dict[str, Any]:
    costs = wired.keys.costs(record.id)
    capped = costs.get(record.currency or "")
    cap = None if capped is None else capped.cap
    left = None if capped is None or cap is None else max(0, cap - capped.spent - capped.reserved)
    currency = record.currency or "USD"
    return {
        "id": record.id,
        "name": record.name,
        "last4": record.last4,
        "scopes": list(record.scopes),
        "limits": {
            "requests_per_second": record.requests_per_second,
            "budget": None if cap is None else money(cap, currency),
        },
        "spent": [money(found.spent, name) for name, found in sorted(costs.items())],
        "remaining": None if left is None else money(left, currency),
        "created_at": rfc3339(record.created_at),
        "last_used_at": when(record.last_used_at),
        "revoked_at": when(record.revoked_at),
    }


def webhook(record: WebhookRecord) -> dict[str, Any]:
    same = ("id", "name", "url", "enabled")
    shown: dict[str, Any] = {name: getattr(record, name) for name in same}
    times = {"created_at": rfc3339(record.created_at), "old_secret_until": when(record.old_secret_until)}
    return shown | {"events": list(record.events)} | times


def delivery(record: Delivery) -> dict[str, Any]:
    same = ("id", "webhook_id", "type", "status", "attempts", "http_status", "error")
    return {name: getattr(record, name) for name in same} | {
        "data": record.payload,
        "created_at": rfc3339(record.created_at),
        "next_at": rfc3339(record.next_at) if record.status == "pending" else None,
        "done_at": when(record.done_at),
    }


def audit(line: AuditLine) -> dict[str, Any]:
    same = ("id", "key_id", "action", "resource", "request_id", "status")
    return {name: getattr(line, name) for name in same} | {
        "at": rfc3339(line.at),
        "cost": None if line.currency is None else money(line.cost_micros, line.currency),
    }


def stored_spec(spec: JobSpec) -> dict[str, Any]:
    """The validated body as it is kept with the job."""
    return spec.model_dump(mode="json")
