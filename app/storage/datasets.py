"""Data sets: a row each; their images lie in a folder of the same name."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, RowMapping, insert, select, update

from app.errors import Conflict, NotFound
from app.storage import ids, tables
from app.storage.connections import LIVE
from app.storage.database import now, read, write

_datasets, _jobs = tables.datasets, tables.jobs


@dataclass(frozen=True)
class DatasetRecord:
    """`counts` is split -> class -> images."""

    id: str
    name: str
    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    content_sha256: str
    report: dict[str, Any]
    seed: int
    created_at: float

    def images(self) -> dict[str, int]:
        """Images per split."""
        return {split: sum(classes.values()) for split, classes in self.counts.items()}


class Datasets:
    """`root` holds a folder per data set."""

    def __init__(self, engine: Engine, root: Path) -> None:
        self._engine, self._root = engine, root

    def reserve(self) -> tuple[str, Path]:
        """A new id and the folder (not made yet) its images belong in."""
        self._root.mkdir(parents=True, exist_ok=True)
        ident = ids.new("ds_")
        return ident, self._root / ident

    def folder(self, ident: str) -> Path:
        return self._root / ident

    def create(
        self,
        ident: str,
        *,
        name: str,
        classes: tuple[str, ...],
        counts: dict[str, dict[str, int]],
        content_sha256: str,
        report: dict[str, Any],
        seed: int,
    ) -> DatasetRecord:
        with write(self._engine) as connection:
            connection.execute(
                insert(_datasets).values(
                    id=ident,
                    name=name,
                    classes=list(classes),
                    counts=counts,
                    content_sha256=content_sha256,
                    report=report,
                    seed=seed,
                    created_at=now(connection),
                )
            )
        return self.get(ident)

    def get(self, ident: str) -> DatasetRecord:
        """Raises NotFound."""
        query = select(_datasets).where(_datasets.c.id == ident, _datasets.c.deleted_at.is_(None))
        with read(self._engine) as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            raise NotFound(f"There is no data set {ident!r}.", param="dataset_id")
        return _record(row)

    def list(self, after: str | None = None, limit: int = 20) -> list[DatasetRecord]:
        """Newest first; ids below `after`."""
        c = _datasets.c
        query = select(_datasets).where(c.deleted_at.is_(None)).order_by(c.id.desc()).limit(limit)
        if after is not None:
            query = query.where(c.id < after)
        with read(self._engine) as connection:
            return [_record(row) for row in connection.execute(query).mappings()]

    def delete(self, ident: str) -> None:
        """Row and images. Raises NotFound, and Conflict while a job that is not over uses it."""
        self.get(ident)
        c = _jobs.c
        with write(self._engine) as connection:
            job = connection.execute(
                select(c.id).where(c.dataset_id == ident, c.status.in_(LIVE), c.deleted_at.is_(None))
            ).scalar()
            if job is not None:
                raise Conflict(
                    f"Job {job} uses the data set.", code="in_use", hint="Cancel or finish the job first."
                )
            gone = {"deleted_at": now(connection)}
            connection.execute(update(_datasets).where(_datasets.c.id == ident).values(gone))
        shutil.rmtree(self.folder(ident), ignore_errors=True)


def _record(row: RowMapping) -> DatasetRecord:
    names = ("id", "name", "counts", "content_sha256", "report", "seed", "created_at")
    return DatasetRecord(classes=tuple(row["classes"]), **{name: row[name] for name in names})
