from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from api_house import House

from app.api.openapi import dump

DOCUMENT = Path(__file__).parents[3] / "docs" / "openapi.json"
HEALTH = {"/livez", "/readyz", "/v1/version"}


def test_the_kept_document_is_this_one() -> None:
    assert DOCUMENT.read_text() == dump(), "run `reprog openapi > docs/openapi.json`"


async def test_every_promised_route_is_declared(house: House) -> None:
    paths = (await house.ok("GET", "/openapi.json"))["paths"]
    promised = """
        GET,POST /v1/connections
        GET,PATCH,DELETE /v1/connections/{connection_id}
        POST /v1/connections/{connection_id}/test
        GET /v1/connections/{connection_id}/labels
        GET,POST /v1/datasets
        GET,DELETE /v1/datasets/{dataset_id}
        GET /v1/datasets/{dataset_id}/report
        GET /v1/datasets/{dataset_id}/items
        GET /v1/datasets/{dataset_id}/items/{n}/image
        POST /v1/jobs/quote
        GET,POST /v1/jobs
        GET,PATCH,DELETE /v1/jobs/{job_id}
        POST /v1/jobs/{job_id}/pause
        POST /v1/jobs/{job_id}/resume
        POST /v1/jobs/{job_id}/cancel
        POST /v1/jobs/{job_id}/clone
        GET /v1/jobs/{job_id}/events
        GET /v1/jobs/{job_id}/events/stream
        GET /v1/jobs/{job_id}/metrics
        GET /v1/jobs/{job_id}/queries
        GET /v1/jobs/{job_id}/checkpoints
        GET /v1/jobs/{job_id}/mapping
        GET /v1/jobs/{job_id}/program.png
        GET /v1/jobs/{job_id}/samples
        GET /v1/jobs/{job_id}/artifact
        POST /v1/artifacts/import
        GET,POST /v1/endpoints
        GET,PATCH,DELETE /v1/endpoints/{name}
        POST /v1/endpoints/{name}/predict
        GET,POST /v1/keys
        DELETE /v1/keys/{key_id}
        GET /v1/usage
        GET /v1/methods
        GET /livez
        GET /readyz
        GET /metrics
        GET /v1/version
    """
    for line in promised.split("\n"):
        if line.strip():
            methods, path = line.split()
            assert {m.lower() for m in methods.split(",")} <= set(paths[path]), path


FOREIGN = ("/compat/", "/v2", "/customvision/")  # other services' formats keep their own errors


async def test_every_refusal_is_declared(house: House) -> None:
    document = await house.ok("GET", "/openapi.json")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            declared = set(operation["responses"])
            needed = {"404", "405", "422", "500"} | (
                {"401", "403"} - ({"401", "403"} if path in HEALTH else set())
            )
            assert needed <= declared, (method, path)
            foreign = path.startswith(FOREIGN)
            for status, answer in operation["responses"].items():
                if int(status) >= 400 and not foreign:
                    assert answer == {"$ref": f"#/components/responses/Problem{status}"}, (path, status)


async def test_every_reference_leads_somewhere(house: House) -> None:
    document = await house.ok("GET", "/openapi.json")

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(ref := node.get("$ref"), str):
                found: Any = document
                for part in ref.removeprefix("#/").split("/"):
                    found = found[part]
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(document)


@pytest.mark.parametrize("read", ["/v1/jobs", "/v1/connections", "/v1/datasets", "/v1/endpoints", "/v1/keys"])
async def test_empty_lists(house: House, read: str) -> None:
    assert await house.ok("GET", read) == {
        "object": "list",
        "data": [],
        "has_more": False,
        "next_cursor": None,
    }
