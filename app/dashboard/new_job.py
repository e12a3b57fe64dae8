"""A new job in four steps: account, images, method and limits, review. The address holds all choices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import orjson
from fastapi import Request
from starlette.responses import Response

from app.api import connections as rest_connections
from app.api import datasets as rest_datasets
from app.api import jobs as rest
from app.api.deps import Services, Wired
from app.dashboard import drawings, web
from app.dashboard.datasets import CHOICES
from app.dashboard.words import METHODS
from app.errors import BadRequest, NotFound, ReprogError
from app.jobs.spec import JobSpec
from app.methods import schemas
from app.storage.connections import ConnectionRecord

_LISTED = 50
_FIELDS = (
    "name", "connection_id", "dataset_id", "seed", "method", "options", "max_queries", "budget",
    "queries_per_prediction", "deadline", "pause_after_probe", "publish", "metadata",
)  # fmt: skip
_DEFAULTS = {
    "method": "auto",
    "max_queries": "20000",
    "budget": "5.00",
    "queries_per_prediction": "4",
    "seed": "0",
}

router = web.router()


def _given(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(values[name]).strip() for name in _FIELDS if str(values.get(name, "")).strip()}


def _body(given: Mapping[str, str], currency: str) -> dict[str, Any]:
    """The body of POST /v1/jobs. Raises BadRequest for options or metadata that are no JSON object."""
    limits: dict[str, Any] = {}
    for name in ("max_queries", "queries_per_prediction"):
        if name in given:
            limits[name] = (
                int(given[name]) if given[name].isascii() and given[name].isdecimal() else given[name]
            )
    if "budget" in given:
        limits["budget"] = {"amount": given["budget"], "currency": currency}
    if "deadline" in given:
        limits["deadline"] = web.utc(given["deadline"])
    if "pause_after_probe" in given:
        limits["pause_after_probe"] = True
    body: dict[str, Any] = {name: given.get(name, "") for name in ("name", "connection_id", "dataset_id")}
    seed = given.get("seed", "0")
    body["seed"] = int(seed) if seed.isascii() and seed.isdecimal() else seed
    body["method"] = {"type": given.get("method", "auto"), **_options(given.get("options", ""))}
    body["limits"] = limits
    if "publish" in given:
        body["publish"] = {"name": given["publish"]}
    if "metadata" in given:
        body["metadata"] = web.document(given["metadata"], "metadata", '{"team": "skin"}')
    return body


def _options(text: str) -> dict[str, Any]:
    found = web.document(text, "options", '{"size": 128}')
    if "type" in found:
        raise BadRequest("The options are a JSON object without `type`.", param="options")
    return found


def _page(request: Request, step: int, given: Mapping[str, str], **values: Any) -> Response:  # noqa: ANN401
    problem: ReprogError | None = values.get("problem")
    carried = {name: value for name, value in given.items() if name in _FIELDS}

    def link(path: str) -> str:
        return f"{path}?{urlencode(carried)}"

    code = 200 if problem is None else problem.status
    return web.render(request, f"new_{step}.html", code, given=carried, link=link, **values)


@router.get("/new", dependencies=[web.visitor("read")])
def step_account(request: Request, wired: Wired) -> Response:
    """Step 1: whom to ask."""
    found = rest_connections.list_connections(wired, _LISTED)["data"]
    return _page(request, 1, _given(request.query_params), connections=found)


@router.get("/new/data", dependencies=[web.visitor("read")])
def step_data(request: Request, wired: Wired) -> Response:
    """Step 2: which images; once there are some, what is wrong with them."""
    given = _given(request.query_params)
    if "connection_id" not in given:
        return web.see("/new")
    chosen = rest_datasets.get_dataset(given["dataset_id"], wired) if "dataset_id" in given else None
    picture = drawings.histogram(chosen["counts"], chosen["classes"][:30]) if chosen else None
    found = rest_datasets.list_datasets(wired, _LISTED)["data"]
    return _page(request, 2, given, datasets=found, chosen=chosen, picture=picture, **CHOICES)


@router.get("/new/method", dependencies=[web.visitor("read")])
def step_method(request: Request, wired: Wired) -> Response:
    """Step 3: how, and how much it may cost."""
    given = _given(request.query_params)
    if "dataset_id" not in given:
        return web.see("/new/data", **given)
    connection, data = wired.connections.get(given["connection_id"]), wired.datasets.get(given["dataset_id"])
    suggested = _DEFAULTS | {"name": f"{data.name} by {connection.name}"[:200]}
    known = schemas()
    methods = {name: METHODS.get(name, (name, "")) for name in known}
    values = {"connection": connection, "dataset": data, "methods": methods, "schemas": known}
    return _page(request, 3, suggested | given, **values, **_quote(wired, suggested | given, connection))


@router.get("/new/quote", dependencies=[web.visitor("read")])
def quote_part(request: Request, wired: Wired) -> Response:
    """The quote alone, as the form changes."""
    given = _given(request.query_params)
    found = _quote(wired, given, wired.connections.get(given.get("connection_id", "")))
    return web.render(request, "_quote.html", **found)


def _quote(wired: Services, given: Mapping[str, str], connection: ConnectionRecord) -> dict[str, Any]:
    """{quote, refused}: what it would cost, or why it cannot be done."""
    try:
        spec: JobSpec = web.body(JobSpec, _body({"name": "quote", **given}, connection.price.currency))
        return {"quote": rest.quote_job(spec, wired), "refused": None}
    except ReprogError as error:
        return {"quote": None, "refused": error}


@router.get("/new/review", dependencies=[web.visitor("read")])
def step_review(request: Request, wired: Wired) -> Response:
    """Step 4: all of it once more, as curl and YAML too."""
    return _review(request, wired, _given(request.query_params))


def _review(
    request: Request, wired: Services, given: dict[str, str], problem: ReprogError | None = None
) -> Response:
    if not {"connection_id", "dataset_id"} <= set(given):
        return web.see("/new")
    connection, data = wired.connections.get(given["connection_id"]), wired.datasets.get(given["dataset_id"])
    try:
        body = _body(given, connection.price.currency)
    except ReprogError as error:
        body, problem = {}, error
    found = _quote(wired, given, connection)
    values = {
        "connection": connection,
        "dataset": data,
        "body": body,
        "yaml": yaml(body),
        "auth": wired.settings.auth,
    }
    return _page(request, 4, given, problem=problem, **values, **found)


@router.post("/jobs", dependencies=[web.visitor("spend")])
async def create(request: Request, wired: Wired) -> Response:
    """Start it; a refusal comes back on the review."""
    given = _given(await request.form())
    try:
        connection = wired.connections.get(given.get("connection_id", ""))
        spec: JobSpec = web.body(JobSpec, _body(given, connection.price.currency))
        made = rest.create_job(spec, request, Response(), wired)
    except NotFound:
        raise
    except ReprogError as error:
        return _review(request, wired, given, error)
    return web.see(f"/jobs/{made['id']}")


@router.get("/jobs/{job_id}/again", dependencies=[web.visitor("read")])
def again(job_id: str, wired: Wired) -> Response:
    """Step 3 with a job's values filled in."""
    spec = wired.jobs.get(job_id).spec
    method: dict[str, Any] = dict(spec.get("method") or {})
    limits: dict[str, Any] = spec.get("limits") or {}
    kind = method.pop("type", "auto")
    given = {
        "name": f"{spec['name']} (again)"[:200],
        "connection_id": spec["connection_id"],
        "dataset_id": spec["dataset_id"],
        "seed": spec.get("seed", 0),
        "method": kind,
        "options": orjson.dumps(method).decode() if method else "",
        "max_queries": limits.get("max_queries"),
        "budget": (limits.get("budget") or {}).get("amount"),
        "queries_per_prediction": limits.get("queries_per_prediction"),
        "pause_after_probe": "yes" if limits.get("pause_after_probe") else "",
        "metadata": orjson.dumps(spec["metadata"]).decode() if spec.get("metadata") else "",
    }
    return web.see("/new/method", **given)


def yaml(body: Mapping[str, Any], depth: int = 0) -> str:
    """A body as YAML: JSON scalars are YAML scalars."""
    lines: list[str] = []
    for name, value in body.items():
        pad = "  " * depth
        if isinstance(value, dict) and value:
            lines += [f"{pad}{name}:", yaml(value, depth + 1)]
        else:
            lines.append(f"{pad}{name}: {orjson.dumps(value).decode()}")
    return "\n".join(lines)
