"""Clarifai v2 models: what clients look at before they predict. An endpoint is a model with its versions."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response

from app.api.compat import clarifai, door
from app.api.deps import Services, Wired
from app.errors import NotFound
from app.reprogramming import program as programs

_MOST = 10_000  # endpoints looked through for a page
_ROOTS = ("", "/users/{user}/apps/{app}")

router = APIRouter(
    prefix="/compat/clarifai/v2",
    tags=["compatible formats"],
    route_class=door.speaking(clarifai.word),
    responses=door.answers(400, 401, 403, 404, 429, 500),
)
Number = Annotated[int, Query(ge=1, le=1000)]


def _get(path: str, name: str) -> Any:  # noqa: ANN401 - a decorator
    """The route at both of the service's roots."""

    def both(call: Any) -> Any:  # noqa: ANN401
        for n, root in enumerate(_ROOTS):
            router.get(root + path, name=name if n == 0 else f"{name}_of_app")(call)
        return call

    return both


async def _admit(request: Request, wired: Services) -> None:
    await door.admit(request, wired, door.authorization(request, "key", "bearer"))


def _answer(**content: object) -> Response:
    return Response(
        orjson.dumps({"status": clarifai.status_of(clarifai.OK), **content}), 200, None, "application/json"
    )


@_get("/models", "list_models")
async def list_models(request: Request, wired: Wired, page: Number = 1, per_page: Number = 20) -> Response:
    """Endpoints, page by page; the last page is an empty one, which ends clients that read them all."""
    await _admit(request, wired)
    found = await asyncio.to_thread(wired.endpoints.list, None, _MOST)
    shown = [e for e in found if e.enabled][(page - 1) * per_page : page * per_page]
    return _answer(models=[clarifai.describe(endpoint.name, endpoint.version) for endpoint in shown])


@_get("/models/{name}", "get_model")
async def get_model(name: str, request: Request, wired: Wired) -> Response:
    """One endpoint as a model. Key: `Authorization: Key`."""
    await _admit(request, wired)
    live = await asyncio.to_thread(wired.endpoints.live, name)
    return _answer(model=clarifai.describe(name, live.version))


@_get("/models/{name}/output_info", "get_model_output_info")
async def output_info(name: str, request: Request, wired: Wired) -> Response:
    """The model with its concepts: the endpoint's labels."""
    await _admit(request, wired)
    live = await asyncio.to_thread(wired.endpoints.live, name)
    blob = await asyncio.to_thread(wired.jobs.program, live.checkpoint_id)
    labels = (await asyncio.to_thread(programs.from_bytes, blob)).target_labels
    concepts = [{"id": clarifai.concept_id(label), "name": label, "app_id": "main"} for label in labels]
    model = clarifai.describe(name, live.version)
    return _answer(model=model | {"output_info": model["output_info"] | {"data": {"concepts": concepts}}})


@_get("/models/{name}/versions", "list_model_versions")
async def list_versions(
    name: str, request: Request, wired: Wired, page: Number = 1, per_page: Number = 20
) -> Response:
    """Every version published under the name, newest first."""
    await _admit(request, wired)
    found = await asyncio.to_thread(wired.endpoints.versions, name, None, _MOST)
    shown = found[(page - 1) * per_page : page * per_page]
    return _answer(model_versions=[_version(name, record.version) for record in shown])


@_get("/models/{name}/versions/{version}", "get_model_version")
async def get_version(name: str, version: str, request: Request, wired: Wired) -> Response:
    """One version, by the id that answers carry."""
    await _admit(request, wired)
    for record in await asyncio.to_thread(wired.endpoints.versions, name, None, _MOST):
        if (found := _version(name, record.version))["id"] == version:
            return _answer(model_version=found)
    raise NotFound(f"Model {name!r} has no version {version!r}.")


def _version(name: str, version: int) -> dict[str, Any]:
    return clarifai.describe(name, version)["model_version"]
