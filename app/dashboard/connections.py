"""Connections: accounts at providers, their price, their one source model."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import orjson
from fastapi import Form, Query, Request
from starlette.datastructures import FormData
from starlette.responses import Response

from app.api import connections as rest
from app.api.deps import Services, Wired
from app.api.schemas.connections import ConnectionBody, ConnectionPatch, ConnectionTestBody
from app.dashboard import web
from app.errors import BadRequest, ReprogError
from app.providers import PROVIDERS

_PAGE = 50
_LIMITS = ("requests_per_second", "concurrency", "max_batch")
#: provider -> its name, and where it usually answers
_KNOWN = {
    "clarifai": ("Clarifai", "https://api.clarifai.com"),
    "custom_vision": ("Azure Custom Vision", "https://RESOURCE.cognitiveservices.azure.com"),
    "http_json": ("Any HTTP and JSON classifier", "https://api.example.com"),
    "google_vision": ("Google Cloud Vision", "https://vision.googleapis.com"),
    "rekognition": ("Amazon Rekognition", "https://rekognition.us-east-1.amazonaws.com"),
    "azure_content_safety": ("Azure AI Content Safety", "https://RESOURCE.cognitiveservices.azure.com"),
    "openai_moderation": ("OpenAI moderation", "https://api.openai.com"),
    "huggingface": ("Hugging Face", "https://router.huggingface.co/hf-inference"),
    "open_inference": ("Open Inference Protocol v2", "https://inference.example.com"),
    "sightengine": ("Sightengine", "https://api.sightengine.com"),
}

router = web.router()


def providers() -> dict[str, dict[str, Any]]:
    """What the form needs of each provider: name, usual address, model fields, usual price and limits."""
    found: dict[str, dict[str, Any]] = {}
    for name, kind in PROVIDERS.items():
        title, url = _KNOWN.get(name, (name.replace("_", " ").title(), ""))
        schema, defaults = kind.Model.model_json_schema(), kind.defaults
        found[name] = {
            "title": title,
            "url": url,
            "fields": schema.get("properties", {}),
            "required": schema.get("required", []),
            "options": kind.Options.model_json_schema().get("properties", {}),
            "defaults": defaults,
        }
    return found


@router.get("/connections", dependencies=[web.visitor("read")])
def connections_page(
    request: Request,
    wired: Wired,
    provider: Annotated[str, Query(max_length=40)] = "",
    next: str = "",
    after: str | None = None,
) -> Response:
    """Accounts, and the form for a new one."""
    return _page(request, wired, provider, next, after=after)


def _page(
    request: Request, wired: Services, provider: str, next: str, given: dict[str, str] | None = None,
    problem: ReprogError | None = None, after: str | None = None,
) -> Response:  # fmt: skip
    kinds = providers()
    chosen = provider if provider in kinds else next_kind(kinds)
    return web.render(
        request,
        "connections.html",
        200 if problem is None else problem.status,
        page=rest.list_connections(wired, _PAGE, after or None),
        kinds=kinds,
        chosen=chosen,
        kind=kinds[chosen],
        next=next,
        given=given or {},
        problem=problem,
    )


def next_kind(kinds: dict[str, Any]) -> str:
    """The provider that the form starts with."""
    return next(iter(kinds))


@router.post("/connections", dependencies=[web.visitor("write")])
async def create(request: Request, wired: Wired) -> Response:
    """Store it, or say on the same page what is wrong."""
    form = await request.form()
    try:
        made = await rest.create_connection(web.body(ConnectionBody, _body(form)), request, Response(), wired)
    except ReprogError as error:
        kept = {name: web.text(form, name) for name in form if name != "secret"}
        return _page(request, wired, web.text(form, "provider"), web.text(form, "next"), kept, error)
    if web.text(form, "next") == "new":
        return web.see("/new/data", connection_id=made["id"])
    return web.see(f"/connections/{made['id']}")


def _body(form: FormData) -> dict[str, Any]:
    """The REST body; members that were left empty are left out."""
    kind = providers().get(web.text(form, "provider"))
    fields: dict[str, Any] = {} if kind is None else kind["fields"]
    model = {
        name: _typed(web.text(form, f"model.{name}"), fields[name], name)
        for name in fields
        if web.text(form, f"model.{name}")
    }
    limits = {name: web.text(form, name) for name in _LIMITS}
    body: dict[str, Any] = {
        "name": web.text(form, "name"),
        "provider": web.text(form, "provider"),
        "base_url": web.text(form, "base_url"),
        "model": model,
        "options": _document(web.text(form, "options"), "options"),
        "limits": {name: value for name, value in limits.items() if value},
    }
    if web.text(form, "terms_acknowledged"):
        body["terms_acknowledged"] = True
    if price := web.text(form, "price"):
        body["price"] = {"per_1000": price, "currency": web.text(form, "currency") or "USD"}
    if budget := web.text(form, "budget"):
        body["budget"] = {"amount": budget, "currency": web.text(form, "currency") or "USD"}
    return body | {name: web.text(form, name) for name in ("secret", "secret_ref") if web.text(form, name)}


def _typed(value: str, shape: dict[str, Any], name: str) -> Any:  # noqa: ANN401
    """A field that is no plain text is JSON."""
    kinds = {shape.get("type"), *(option.get("type") for option in shape.get("anyOf", []))}
    return value if "string" in kinds else _document(value, f"model.{name}")


def _document(value: str, param: str) -> Any:  # noqa: ANN401
    """Raises BadRequest."""
    try:
        return orjson.loads(value) if value else {}
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"{param} is not JSON: {error}.", code="invalid_json", param=param) from error


@router.get("/connections/{connection_id}", dependencies=[web.visitor("read")])
def connection_page(connection_id: str, request: Request, wired: Wired) -> Response:
    """One account."""
    return _one(request, wired, connection_id)


def _one(
    request: Request, wired: Services, connection_id: str, test: dict[str, Any] | None = None,
    problem: ReprogError | None = None,
) -> Response:  # fmt: skip
    found = rest.get_connection(connection_id, wired)
    labels = rest.get_labels(connection_id, wired)
    jobs = wired.jobs.list(None, 10, (), connection_id)
    status = 200 if problem is None else problem.status
    return web.render(
        request,
        "connection.html",
        status,
        connection=found,
        labels=labels,
        jobs=jobs,
        test=test,
        problem=problem,
    )


@router.post("/connections/{connection_id}/test", dependencies=[web.visitor("spend")])
async def test(
    connection_id: str,
    request: Request,
    wired: Wired,
    probes: Annotated[bool, Form()] = False,  # noqa: PT028 - a route, no test
    repeats: Annotated[str, Form()] = "",  # noqa: PT028
) -> Response:
    """One billable query; three or four more with `probes`, and as many as `repeats` says."""
    try:
        asked = web.body(ConnectionTestBody, {"probes": probes, "repeats": repeats.strip() or 0})
        found = await rest.test_connection(connection_id, request, Response(), wired, asked)
    except ReprogError as error:
        if web.partial(request):
            return web.problem(request, error)
        return _one(request, wired, connection_id, problem=error)
    if web.partial(request):
        spent = await asyncio.to_thread(rest.get_connection, connection_id, wired)
        return web.render(request, "_connection_test.html", test=found, spent=spent)
    return _one(request, wired, connection_id, test=found)


@router.post("/connections/{connection_id}/secret", dependencies=[web.visitor("write")])
async def set_secret(
    connection_id: str,
    request: Request,
    wired: Wired,
    secret: Annotated[str, Form()] = "",
    secret_ref: Annotated[str, Form()] = "",
) -> Response:
    """Another key for the same account, or another place where it lies."""
    given = {"secret": secret.strip(), "secret_ref": secret_ref.strip()}
    chosen = {name: value for name, value in given.items() if value} or {"secret": ""}
    try:
        await rest.change_connection(connection_id, web.body(ConnectionPatch, chosen), request, wired)
    except ReprogError as error:
        return _one(request, wired, connection_id, problem=error)
    return web.see(f"/connections/{connection_id}")


@router.post("/connections/{connection_id}/change", dependencies=[web.visitor("write")])
async def change(connection_id: str, request: Request, wired: Wired) -> Response:
    """Another name, address, price, limits or cap."""
    form = await request.form()
    before = rest.get_connection(connection_id, wired)
    currency = before["price"]["currency"]
    given: dict[str, Any] = {k: web.text(form, k) for k in ("name", "base_url") if web.text(form, k)}
    if web.text(form, "terms_acknowledged"):
        given["terms_acknowledged"] = True
    if price := web.text(form, "price"):
        given["price"] = {"per_1000": price, "currency": currency}
    limits = {name: web.text(form, name) for name in _LIMITS if web.text(form, name)}
    if limits:
        given["limits"] = before["limits"] | limits
    if "budget" in form:
        budget = web.text(form, "budget")
        given["budget"] = web.money(budget, currency)
    try:
        await rest.change_connection(connection_id, web.body(ConnectionPatch, given), request, wired)
    except ReprogError as error:
        return _one(request, wired, connection_id, problem=error)
    return web.see(f"/connections/{connection_id}")


@router.post("/connections/{connection_id}/delete", dependencies=[web.visitor("write")])
def delete(connection_id: str, wired: Wired) -> Response:
    """Account and secret."""
    rest.delete_connection(connection_id, wired)
    return web.see("/connections")
