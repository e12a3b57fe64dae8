"""Jobs: what the user asked, how far a worker came. Each row is written by two parties:

- users set `want` (run, pause, cancel); a job that no worker holds changes state at once;
- the worker that holds the fence moves it through its states. Every worker's write says
  `WHERE fence = :mine` and raises StaleFence when another worker has taken the job since.

validating -> queued -> running -> succeeded | failed; running -> pausing -> paused -> queued (resume);
anything before the end -> cancelling -> cancelled. Every write raises `revision`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, func, select

from app.errors import ReprogError, StaleFence
from app.storage import checkpoints, down, events, ids, tables
from app.storage import job_rows as rows
from app.storage.booking import open_scopes
from app.storage.checkpoints import CheckpointRecord, Point
from app.storage.database import now, read, write
from app.storage.down import DownJob
from app.storage.events import Event
from app.storage.job_rows import HELD, OVER, JobRecord

__all__ = ["HELD", "OVER", "JobRecord", "Jobs"]

_jobs = tables.jobs


class Jobs:
    """The job rows of one database, with their events, checkpoints and curves."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # ---------------------------------------------------------------- users

    def create(
        self,
        *,
        name: str,
        spec: dict[str, Any],
        metadata: dict[str, Any],
        connection_id: str,
        dataset_id: str,
        cap: int | None,
        queries_cap: int | None,
        payer: str | None = None,
    ) -> JobRecord:
        """The job, its caps (micro-units and queries), the key that is charged too, and its first event, in
        one transaction."""
        ident = ids.new("job_")
        with write(self._engine) as connection:
            values = {"name": name, "spec": spec, "metadata": metadata}
            asked = {"connection_id": connection_id, "dataset_id": dataset_id}
            rows.add(connection, ident, "queued", **values, **asked)
            open_scopes(connection, [ident], cap, queries_cap, payer)
            events.append(connection, ident, "job.created", {})
        return self.get(ident)

    def adopt(
        self, *, name: str, spec: dict[str, Any], connection_id: str, blob: bytes, metrics: dict[str, Any]
    ) -> JobRecord:
        """A finished job for a program that was learned elsewhere."""
        ident = ids.new("job_")
        with write(self._engine) as connection:
            values = {"name": name, "spec": spec, "metadata": {}, "connection_id": connection_id}
            rows.add(connection, ident, "succeeded", **values, status_reason="imported")
            open_scopes(connection, [ident], 0, 0)
            checkpoint = checkpoints.put_program(connection, ident, 0, blob, config={}, metrics={}, queries=0)
            best = {**(metrics.get("best") or {}), "checkpoint_id": checkpoint}
            rows.change(connection, ident, metrics=metrics | {"best": best}, finished_at=now(connection))
            events.append(connection, ident, "job.imported", {"checkpoint_id": checkpoint})
        return self.get(ident)

    def get(self, ident: str) -> JobRecord:
        """Raises NotFound."""
        with read(self._engine) as connection:
            query = select(_jobs).where(_jobs.c.id == ident, _jobs.c.deleted_at.is_(None))
            return rows.record(connection.execute(query).mappings().first(), ident)

    def list(
        self,
        after: str | None = None,
        limit: int = 20,
        status: Sequence[str] = (),
        connection_id: str | None = None,
    ) -> list[JobRecord]:
        """Newest first; ids below `after`."""
        c = _jobs.c
        query = select(_jobs).where(c.deleted_at.is_(None)).order_by(c.id.desc()).limit(limit)
        if after is not None:
            query = query.where(c.id < after)
        if status:
            query = query.where(c.status.in_(status))
        if connection_id is not None:
            query = query.where(c.connection_id == connection_id)
        with read(self._engine) as connection:
            return [rows.record(row, "") for row in connection.execute(query).mappings()]

    def counts(self) -> dict[str, int]:
        """Jobs by status."""
        c = _jobs.c
        query = select(c.status, func.count()).where(c.deleted_at.is_(None)).group_by(c.status)
        with read(self._engine) as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def edit(
        self,
        ident: str,
        *,
        name: str | None = None,
        metadata: dict[str, Any] | None = None,
        spec: dict[str, Any] | None = None,
    ) -> JobRecord:
        """Change what is given. Raises NotFound."""
        given = {"name": name, "metadata": metadata, "spec": spec}
        values = {column: value for column, value in given.items() if value is not None}
        with write(self._engine) as connection:
            rows.lock(connection, ident)
            if values:
                rows.change(connection, ident, **values)
                events.append(connection, ident, "job.changed", {"members": sorted(values)})
        return self.get(ident)

    def pause(self, ident: str) -> JobRecord:
        """A job that no worker holds is paused at once, another after its requests in flight.
        Raises NotFound, Conflict `invalid_state`."""
        with write(self._engine) as connection:
            job = rows.lock(connection, ident)
            rows.allow(job, "pause", ("validating", "queued", "running"))
            held = job.status in HELD
            status = "pausing" if held else "paused"
            rows.change(connection, ident, want="pause", status=status, status_reason="paused_by_user")
            events.append(connection, ident, f"job.{status}", {"reason": "paused_by_user"})
        return self.get(ident)

    def resume(self, ident: str, by: str = "user") -> JobRecord:
        """Queue it again; the caller tells the runner. Raises NotFound, Conflict `invalid_state`."""
        with write(self._engine) as connection:
            job = rows.lock(connection, ident)
            rows.allow(job, "resume", ("paused", "pausing"))
            status = "queued" if job.status == "paused" else "running"
            rows.change(connection, ident, want="run", status=status, status_reason=None, error=None)
            events.append(connection, ident, "job.resumed", {"by": by})
        return self.get(ident)

    def cancel(self, ident: str) -> JobRecord:
        """As `pause`, for good. Raises NotFound, Conflict `invalid_state`."""
        with write(self._engine) as connection:
            job = rows.lock(connection, ident)
            rows.allow(job, "cancel", ("validating", "queued", "running", "pausing", "paused"))
            if job.status in HELD:
                reason = {"want": "cancel", "status": "cancelling", "status_reason": "cancelled_by_user"}
                rows.change(connection, ident, **reason)
                events.append(connection, ident, "job.cancelling", {})
            else:
                rows.end(connection, ident, "cancelled", "cancelled_by_user", want="cancel")
        return self.get(ident)

    def delete(self, ident: str) -> None:
        """Hide the job; its programs stay for the endpoints that serve them. Raises NotFound, Conflict."""
        with write(self._engine) as connection:
            job = rows.lock(connection, ident)
            rows.allow(job, "delete", (*OVER, "paused"))
            rows.change(connection, ident, want="cancel", deleted_at=now(connection))

    def events(self, ident: str, after: int = 0, limit: int = 100) -> list[Event]:
        """Raises NotFound."""
        self.get(ident)
        return events.after(self._engine, ident, after, limit)

    # ---------------------------------------------------------------- workers

    def begin(self, ident: str) -> JobRecord | None:
        """Take the job: the fence rises, so whoever held it before can write nothing more. None when it is
        not to run; a pause or cancel that nobody carried out is carried out here."""
        with write(self._engine) as connection:
            row = connection.execute(rows.one(ident).with_for_update()).mappings().first()
            if row is None or row["deleted_at"] is not None:
                return None
            job = rows.record(row, ident)
            if job.over or job.status == "paused":
                return None
            if job.want != "run":
                rows.change(connection, ident, fence=job.fence + 1)
                rows.carry_out(connection, job)
                return None
            first = job.started_at is None
            started = now(connection) if first else job.started_at
            rows.change(connection, ident, status="running", fence=job.fence + 1, started_at=started)
            if job.status != "running":
                events.append(connection, ident, "job.started" if first else "job.continued", {})
        return self.get(ident)

    def wanted(self, ident: str, fence: int) -> str:
        """run | pause | cancel: what the user asked last. Raises StaleFence."""
        c = _jobs.c
        with read(self._engine) as connection:
            want = connection.execute(select(c.want).where(c.id == ident, c.fence == fence)).scalar()
        if want is None:
            raise StaleFence(ident)
        return want

    def stand_down(self, ident: str, fence: int) -> bool:
        """The worker stopped because it was asked to: pause or cancel as the user wants. Returns True when
        the user wants neither (the process shuts down) and the job is to go on. Raises StaleFence."""
        with write(self._engine) as connection:
            job = rows.held(connection, ident, fence)
            if job.want != "run":
                rows.carry_out(connection, job)
                return False
            rows.change(connection, ident, status="queued")
            return True

    def pause_for(self, ident: str, fence: int, error: ReprogError, reason: str | None = None) -> None:
        """Something outside (provider, key, account) stops the job: paused, with the reason (default: the
        error's code). Raises StaleFence."""
        reason = reason or error.code
        with write(self._engine) as connection:
            job = rows.held(connection, ident, fence)
            if job.want == "cancel":
                rows.carry_out(connection, job)
                return
            values = {
                "status": "paused",
                "want": "pause",
                "status_reason": reason,
                "error": rows.document(error),
            }
            rows.change(connection, ident, **values)
            events.append(connection, ident, "job.paused", {"reason": reason, "error": rows.document(error)})

    def fail(self, ident: str, fence: int, error: ReprogError) -> None:
        """Raises StaleFence."""
        with write(self._engine) as connection:
            rows.held(connection, ident, fence)
            rows.end(connection, ident, "failed", error.code, error=rows.document(error))

    def leave_out(self, ident: str, fence: int, images: Sequence[dict[str, Any]]) -> None:
        """Name images that the provider will not score, in the report and in an event. Raises StaleFence."""
        with write(self._engine) as connection:
            job = rows.held(connection, ident, fence)
            told = [*job.metrics.get("left_out", []), *images]
            rows.change(connection, ident, metrics=job.metrics | {"left_out": told})
            events.append(
                connection, ident, "job.images_left_out", {"count": len(images), "images": list(images[:20])}
            )

    def learns_from(self, ident: str, fence: int, version: str) -> None:
        """Note the source model's version that the job's answers are of. Raises StaleFence."""
        with write(self._engine) as connection:
            job = rows.held(connection, ident, fence)
            rows.change(connection, ident, metrics=job.metrics | {"model_version": version})

    def warn(self, ident: str, fence: int, concern: dict[str, str]) -> None:
        """Tell of a concern {code, detail, hint}, each code once: an event, and `metrics.warnings`. Raises
        StaleFence."""
        with write(self._engine) as connection:
            job = rows.held(connection, ident, fence)
            told = job.metrics.get("warnings", [])
            if concern["code"] not in {old["code"] for old in told}:
                rows.change(connection, ident, metrics=job.metrics | {"warnings": [*told, concern]})
                events.append(connection, ident, "job.warning", dict(concern))

    def expect(self, ident: str, fence: int, document: dict[str, Any], *, pause: bool) -> bool:
        """Keep what the probe lets expect; with `pause` the job rests until it is resumed. Returns whether it
        does. Raises StaleFence."""
        with write(self._engine) as connection:
            job = rows.held(connection, ident, fence)
            rows.change(connection, ident, metrics=job.metrics | {"expectation": document})
            events.append(connection, ident, "job.expectation", document)
            if pause and job.want == "run":
                reason = {"want": "pause", "status": "paused", "status_reason": "after_probe"}
                rows.change(connection, ident, **reason)
                events.append(connection, ident, "job.paused", {"reason": "after_probe"})
                return True
        return False

    def progress(self, ident: str, fence: int, progress: dict[str, Any]) -> None:
        """Raises StaleFence."""
        with write(self._engine) as connection:
            rows.held(connection, ident, fence)
            rows.change(connection, ident, progress=progress)

    def save_state(
        self,
        ident: str,
        fence: int,
        step: int,
        blob: bytes,
        *,
        metrics: dict[str, Any],
        queries: int,
        spent_micros: int,
        phase: str,
    ) -> None:
        """State, point of the curve, latest metrics and event in one transaction. Raises StaleFence."""
        with write(self._engine) as connection:
            job = rows.held(connection, ident, fence)
            checkpoints.replace_state(connection, ident, step, blob, queries)
            data = {"phase": phase, **metrics}
            checkpoints.add_point(connection, ident, step, queries, spent_micros, data)
            rows.change(connection, ident, metrics=job.metrics | {"latest": {"step": step, **metrics}})
            told = {"step": step, "queries": queries, "spent_micros": spent_micros, **data}
            events.append(connection, ident, "job.step", told)

    def save_program(
        self,
        ident: str,
        fence: int,
        step: int,
        blob: bytes,
        *,
        metrics: dict[str, Any],
        validation_images: int,
        queries: int,
        config: dict[str, Any] | None = None,
    ) -> str:
        """Store a servable program and, when `metrics` says its `val_accuracy`, make it the best so far.
        Returns the checkpoint's id. Raises StaleFence."""
        with write(self._engine) as connection:
            job = rows.held(connection, ident, fence)
            checkpoint = checkpoints.put_program(
                connection, ident, step, blob, config=config or {}, metrics=metrics, queries=queries
            )
            if "val_accuracy" in metrics:
                best = {
                    "checkpoint_id": checkpoint,
                    "step": step,
                    "val_accuracy": metrics["val_accuracy"],
                    "validation_images": validation_images,
                }
                rows.change(connection, ident, metrics=job.metrics | {"best": best})
            events.append(
                connection, ident, "job.checkpoint", {"checkpoint_id": checkpoint, "step": step, **metrics}
            )
        return checkpoint

    def succeed(
        self,
        ident: str,
        fence: int,
        *,
        checkpoint_id: str,
        metrics: dict[str, Any],
        reason: str | None,
        endpoint: str | None,
        progress: dict[str, Any],
    ) -> None:
        """The end: `metrics` holds test, baselines and verdict. Raises StaleFence."""
        with write(self._engine) as connection:
            job = rows.held(connection, ident, fence)
            best = {**(job.metrics.get("best") or {}), "checkpoint_id": checkpoint_id}
            if endpoint is not None:
                told = {"endpoint": endpoint, "checkpoint_id": checkpoint_id}
                events.append(connection, ident, "job.published", told)
            values = {"metrics": job.metrics | metrics | {"best": best}, "progress": progress}
            rows.end(connection, ident, "succeeded", reason, **values)

    def live(self) -> list[str]:
        """Jobs that some worker should have, or take."""
        c = _jobs.c
        query = select(c.id).where(c.status.in_(("queued", *HELD)), c.deleted_at.is_(None)).order_by(c.id)
        with read(self._engine) as connection:
            return list(connection.execute(query).scalars())

    def down(self, reason: str) -> list[DownJob]:
        """Jobs paused for `reason`."""
        return down.jobs(self._engine, reason)

    def stands_after(self, ident: str, reason: str) -> bool:
        """Whether the job has taken no step since it was last paused, and that for `reason`."""
        return down.stands_after(self._engine, ident, reason)

    # ---------------------------------------------------------------- checkpoints and the curve

    def state(self, ident: str) -> bytes | None:
        """The state to resume from; None before the first step."""
        return checkpoints.state(self._engine, ident)

    def program(self, checkpoint_id: str) -> bytes:
        """Raises NotFound."""
        return checkpoints.program(self._engine, checkpoint_id)

    def has_program(self, ident: str, checkpoint_id: str) -> bool:
        return checkpoints.has_program(self._engine, ident, checkpoint_id)

    def programs(self, ident: str, after: str | None = None, limit: int = 20) -> list[CheckpointRecord]:
        """The job's programs, newest first."""
        return checkpoints.programs(self._engine, ident, after, limit)

    def add_evaluation(
        self, ident: str, blob: bytes, *, config: dict[str, Any], metrics: dict[str, Any]
    ) -> CheckpointRecord:
        """Keep a program of another head, fitted on paid answers. Raises NotFound."""
        with write(self._engine) as connection:
            rows.lock(connection, ident)
            made = checkpoints.add_evaluation(connection, ident, blob, config=config, metrics=metrics)
            events.append(connection, ident, "job.evaluated", {"checkpoint_id": made, **config})
        (record,) = (found for found in self.evaluations(ident, None, 10_000) if found.id == made)
        return record

    def evaluations(self, ident: str, after: str | None = None, limit: int = 20) -> list[CheckpointRecord]:
        """The programs of `add_evaluation`, newest first."""
        return checkpoints.programs(self._engine, ident, after, limit, evaluations=True)

    def latest_program(self, ident: str) -> CheckpointRecord:
        """The finished program, or the best so far. Raises NotFound `no_program_yet`."""
        return checkpoints.latest(self._engine, ident)

    def points(self, ident: str, limit: int = 500) -> list[Point]:
        return checkpoints.points(self._engine, ident, limit)
