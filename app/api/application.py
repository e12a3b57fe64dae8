"""The web application over given services: routers, one error handler, the edge around it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI

from app import __version__
from app.api import (
    artifacts,
    audit,
    connections,
    datasets,
    endpoints,
    evaluations,
    job_events,
    job_results,
    jobs,
    keys,
    openapi,
    operations,
    predict,
    problems,
    providers,
    webhooks,
)
from app.api.compat import ROUTERS
from app.api.deps import Services
from app.api.edge import Edge, Traffic
from app.api.idempotency import IdempotencyKeys

_PARTS = (  # a request is held against them in this order: what is asked most comes first
    predict, providers, connections, datasets, jobs, job_events, job_results, evaluations, artifacts,
    endpoints, keys, webhooks, audit, operations,
)  # fmt: skip

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(services: Services, lifespan: Lifespan | None = None) -> FastAPI:
    """The application; what `lifespan` opens lives as long as it."""
    app = bare_app(lifespan)
    traffic = Traffic()
    app.state.services, app.state.traffic = services, traffic
    app.add_middleware(IdempotencyKeys)
    app.add_middleware(audit.Recorder)
    app.add_middleware(
        Edge,
        traffic=traffic,
        upload_bytes=services.settings.max_upload_bytes,
        open_door=services.settings.auth == "off",
    )
    return app


def bare_app(lifespan: Lifespan | None = None) -> FastAPI:
    """Routes and error handlers alone: all that the OpenAPI document needs."""
    app = FastAPI(
        title="Reprog",
        version=__version__,
        description="Turn a remote prediction API into a classifier for your own task, by queries alone.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
        redirect_slashes=False,
    )
    problems.install(app)
    for part in _PARTS:
        app.include_router(part.router)
    for router in ROUTERS:
        app.include_router(router)
    app.openapi = lambda: openapi.document(app)
    return app
