"""Following a job: a bar for people, JSON lines with a closing line for programs. Ctrl-C detaches."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from app.remote.client import EXIT_JOB_FAILED, EXIT_JOB_PAUSED, EXIT_UNREACHABLE, client, refuse

OVER = {"succeeded", "failed", "cancelled"}
_EVERY = 0.5  # seconds between two looks
_PATIENCE = 60.0  # seconds without an answer (a restart of the service) before the watch gives up


def watch(ident: str, as_json: bool) -> None:
    """Follow to the end. Exits 0 for a job that succeeded, 5 failed or cancelled, 6 paused."""
    try:
        job = _lines(ident) if as_json or not sys.stdout.isatty() else _bar(ident)
    except KeyboardInterrupt:
        typer.echo(f"detached; the job goes on: reprog jobs watch {ident}", err=True)
        raise typer.Exit(0) from None
    if job["status"] == "succeeded":
        raise typer.Exit(0)
    raise typer.Exit(EXIT_JOB_PAUSED if job["status"] == "paused" else EXIT_JOB_FAILED)


def states(ident: str) -> Iterator[dict[str, Any]]:
    """The job document again and again, until it is over or paused."""
    with client() as connection:
        heard = time.monotonic()
        while True:
            try:
                response = connection.get(f"/v1/jobs/{ident}")
            except httpx.TransportError as error:
                if time.monotonic() - heard > _PATIENCE:
                    typer.echo(f"reprog: no answer from the service: {error}", err=True)
                    raise typer.Exit(EXIT_UNREACHABLE) from error
            else:
                if not response.is_success:
                    refuse(response)
                heard, job = time.monotonic(), response.json()
                yield job
                if job["status"] in OVER or job["status"] == "paused":
                    return
            time.sleep(_EVERY)


def _lines(ident: str) -> dict[str, Any]:
    last, job = None, {}
    for job in states(ident):
        line = {k: job[k] for k in ("id", "status", "status_reason", "progress", "cost")}
        if line != last:
            typer.echo(json.dumps(line))
            sys.stdout.flush()
            last = line
    closing = {k: job[k] for k in ("id", "status", "status_reason", "cost", "metrics", "error", "links")}
    typer.echo(json.dumps({"closing": True, **closing}))
    return job


def _bar(ident: str) -> dict[str, Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    job: dict[str, Any] = {}
    with Progress(*columns, TextColumn("{task.fields[note]}"), TimeElapsedColumn()) as bar:
        task = bar.add_task(ident, total=1.0, note="")
        for job in states(ident):
            note, done = progress_note(job), job["progress"]["fraction"]
            bar.update(task, completed=done, description=job["status"], note=note)
    typer.echo(ending(job))
    return job


def ending(job: dict[str, Any]) -> str:
    """How it came out, in a sentence or two."""
    reason = f" ({job['status_reason']})" if job["status_reason"] else ""
    said = [f"{job['name']}: {job['status']}{reason}, {_spent(job)} spent."]
    test = job["metrics"].get("test") or {}
    if "accuracy" in test:
        head = (job["metrics"].get("baselines") or {}).get("linear_head")
        beside = f"; linear head {_share(head['accuracy'], head['ci95'])}" if head else ""
        said.append(f"Test accuracy {_share(test['accuracy'], test['ci95'])}{beside}; 95 % intervals.")
    if verdict := job["metrics"].get("verdict"):
        said.append(verdict["sentence"])
    if error := job["error"]:
        said.append(f"{error['detail']} {error.get('hint') or ''}".strip())
    return "\n".join(said)


def _spent(job: dict[str, Any]) -> str:
    return f"{job['cost']['spent']['amount']} {job['cost']['spent']['currency']}"


def _share(value: float, ends: list[float] | None) -> str:
    """An accuracy with its 95 % interval."""
    return f"{value:.3f}" + (f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else "")


def progress_note(job: dict[str, Any]) -> str:
    """One line of a watch: queries, money, accuracy, time left."""
    progress, cost, best = job["progress"], job["cost"], job["metrics"].get("best") or {}
    parts = [f"{progress.get('phase', '')}", f"{cost['billable_queries']} queries", _spent(job)]
    if best.get("val_accuracy") is not None:
        plain = (job["metrics"].get("expectation") or {}).get("head")
        beside = f", head on the plain image {plain['val_accuracy']:.3f}" if plain else ""
        parts.append(f"validation accuracy {_share(best['val_accuracy'], best.get('val_ci95'))}{beside}")
    if progress.get("eta"):
        parts.append(f"about {progress['eta']['p50']:.0f} s left")
    return " · ".join(part for part in parts if part)
