"""Pages for people, over the functions that answer the REST surface: nothing here can do more."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles

from app.dashboard import (
    audit,
    compare,
    connections,
    datasets,
    endpoints,
    job,
    job_parts,
    jobs,
    keys,
    new_job,
    overview,
    reference,
    session,
    usage,
    webhooks,
)
from app.dashboard.web import HERE

#: Every page lives in one of these.
PARTS = (
    overview, session, new_job, jobs, job, job_parts, compare, datasets, endpoints, connections, keys, usage,
    reference, audit, webhooks,
)  # fmt: skip


def mount(app: FastAPI) -> None:
    """Put the pages and their files on the application."""
    for part in PARTS:
        app.include_router(part.router)
    app.mount(
        "/static", GZipMiddleware(StaticFiles(directory=HERE / "static"), compresslevel=6), name="static"
    )
