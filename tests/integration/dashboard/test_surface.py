"""Everything the REST surface offers has its place on a page, and pages do nothing that it does not."""

from __future__ import annotations

import json
import re
from typing import Any

from dashboard_place import Place

from app.api.openapi import dump

#: Operation -> the page, or the form's address, that offers it.
PAGES = {
    "GET /v1/providers": "GET /connections",
    "POST /v1/connections": "POST /connections",
    "GET /v1/connections": "GET /connections",
    "GET /v1/connections/{connection_id}": "GET /connections/{connection_id}",
    "PATCH /v1/connections/{connection_id}": "POST /connections/{connection_id}/change",
    "DELETE /v1/connections/{connection_id}": "POST /connections/{connection_id}/delete",
    "POST /v1/connections/{connection_id}/test": "POST /connections/{connection_id}/test",
    "GET /v1/connections/{connection_id}/labels": "GET /connections/{connection_id}",
    "POST /v1/datasets": "POST /datasets",
    "GET /v1/datasets": "GET /datasets",
    "GET /v1/datasets/{dataset_id}": "GET /datasets/{dataset_id}",
    "DELETE /v1/datasets/{dataset_id}": "POST /datasets/{dataset_id}/delete",
    "GET /v1/datasets/{dataset_id}/report": "GET /datasets/{dataset_id}/report.json",
    "GET /v1/datasets/{dataset_id}/items": "GET /datasets/{dataset_id}",
    "GET /v1/datasets/{dataset_id}/items/{n}/image": "GET /datasets/{dataset_id}/items/{n}.png",
    "POST /v1/jobs/quote": "GET /new/quote",
    "POST /v1/jobs": "POST /jobs",
    "GET /v1/jobs": "GET /jobs",
    "GET /v1/jobs/{job_id}": "GET /jobs/{job_id}",
    "PATCH /v1/jobs/{job_id}": "POST /jobs/{job_id}/limits",
    "DELETE /v1/jobs/{job_id}": "POST /jobs/{job_id}/delete",
    "POST /v1/jobs/{job_id}/pause": "POST /jobs/{job_id}/pause",
    "POST /v1/jobs/{job_id}/resume": "POST /jobs/{job_id}/resume",
    "POST /v1/jobs/{job_id}/cancel": "POST /jobs/{job_id}/cancel",
    "POST /v1/jobs/{job_id}/clone": "POST /jobs/{job_id}/clone",
    "GET /v1/jobs/{job_id}/events": "GET /jobs/{job_id}/events.json",
    "GET /v1/jobs/{job_id}/events/stream": "GET /jobs/{job_id}/stream",
    "GET /v1/jobs/{job_id}/metrics": "GET /jobs/{job_id}/curve",
    "GET /v1/jobs/{job_id}/queries": "GET /jobs/{job_id}/queries.csv",
    "GET /v1/jobs/{job_id}/checkpoints": "GET /jobs/{job_id}",
    "GET /v1/jobs/{job_id}/mapping": "GET /jobs/{job_id}/mapping",
    "GET /v1/jobs/{job_id}/program.png": "GET /jobs/{job_id}/program.png",
    "GET /v1/jobs/{job_id}/samples": "GET /jobs/{job_id}/strip",
    "GET /v1/jobs/{job_id}/samples/{n}.png": "GET /jobs/{job_id}/samples/{n}.webp",
    "GET /v1/jobs/{job_id}/artifact": "GET /jobs/{job_id}/artifact.zip",
    "POST /v1/jobs/{job_id}/evaluations": "POST /jobs/{job_id}/evaluations",
    "GET /v1/jobs/{job_id}/evaluations": "GET /jobs/{job_id}",
    "GET /v1/jobs/{job_id}/evaluations/{evaluation_id}": "GET /jobs/{job_id}",
    "POST /v1/artifacts/import": "POST /jobs/import",
    "POST /v1/endpoints": "POST /endpoints",
    "GET /v1/endpoints": "GET /endpoints",
    "GET /v1/endpoints/{name}": "GET /endpoints/{name}",
    "PATCH /v1/endpoints/{name}": "POST /endpoints/{name}/change",
    "DELETE /v1/endpoints/{name}": "POST /endpoints/{name}/delete",
    "GET /v1/endpoints/{name}/versions": "GET /endpoints/{name}",
    "POST /v1/endpoints/{name}/predict": "POST /endpoints/{name}/predict",
    "POST /v1/keys": "POST /keys",
    "GET /v1/keys": "GET /keys",
    "GET /v1/keys/{key_id}": "GET /keys",
    "PATCH /v1/keys/{key_id}": "POST /keys/{key_id}/change",
    "DELETE /v1/keys/{key_id}": "POST /keys/{key_id}/revoke",
    "POST /v1/webhooks": "POST /webhooks",
    "GET /v1/webhooks": "GET /webhooks",
    "GET /v1/webhooks/{webhook_id}": "GET /webhooks/{webhook_id}",
    "PATCH /v1/webhooks/{webhook_id}": "POST /webhooks/{webhook_id}/change",
    "DELETE /v1/webhooks/{webhook_id}": "POST /webhooks/{webhook_id}/delete",
    "POST /v1/webhooks/{webhook_id}/rotate": "POST /webhooks/{webhook_id}/rotate",
    "POST /v1/webhooks/{webhook_id}/test": "POST /webhooks/{webhook_id}/test",
    "GET /v1/webhooks/{webhook_id}/deliveries": "GET /webhooks/{webhook_id}",
    "POST /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver": (
        "POST /webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver"
    ),
    "GET /v1/audit": "GET /audit",
    "GET /v1/usage": "GET /usage",
    "GET /v1/methods": "GET /new/method",
    "GET /v1/version": "GET /",
}
#: Operations without a page, and why.
WITHOUT = {
    r"(GET|POST) /v2.*": "a wire format of others; the endpoint's page has a line of it to copy",
    r"(GET|POST) /compat/.*": "a wire format of others; the endpoint's page has a line of it to copy",
    r"GET /(livez|readyz|metrics)": "for machines that watch machines",
}
#: Forms that are no operation, and why.
FORMS = {
    "POST /login": "a session is a key in a cookie",
    "POST /logout": "a session is a key in a cookie",
    "POST /connections/{connection_id}/secret": "PATCH of the secret alone",
    "POST /jobs/{job_id}/name": "PATCH of name and metadata",
}


def offered() -> set[str]:
    paths: dict[str, Any] = json.loads(dump())["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def routes(place: Place) -> set[str]:
    """METHOD and path of every route of the pages."""
    found: set[str] = set()
    for part in place.pages():
        for route in part.routes:
            methods: set[str] = getattr(route, "methods", None) or set()
            found |= {f"{method} {getattr(route, 'path', '')}" for method in methods if method != "HEAD"}
    return found


def test_every_operation_has_its_page(place: Place) -> None:
    left = offered() - set(PAGES)
    assert {one for one in left if not any(re.fullmatch(rule, one) for rule in WITHOUT)} == set()
    assert set(PAGES) - offered() == set(), "operations that are no more"
    assert set(PAGES.values()) - routes(place) == set(), "pages that are no more"


def test_no_form_does_what_rest_does_not(place: Place) -> None:
    forms = {one for one in routes(place) if not one.startswith("GET ")}
    assert forms - set(PAGES.values()) - set(FORMS) == set()
