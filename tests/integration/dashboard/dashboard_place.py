"""A service over real stores; only the engine and the predictor are stand-ins."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
from fastapi import APIRouter, FastAPI

from app import dashboard
from app.api.application import create_app
from app.contracts import Limits, Price
from app.jobs import dataset
from app.jobs.samples import write_digits_zip
from app.reprogramming import program as programs
from app.reprogramming.mapping import group_mapping
from app.reprogramming.program import Program
from app.reprogramming.transform import View
from app.settings import Settings
from app.storage.connections import NewConnection
from app.wiring import House

ORIGIN = "http://127.0.0.1"
CLASSES = 10


class Idle:
    """A runner that runs nothing."""

    def enqueue(self, job_id: str) -> None: ...


class Predictor:
    """Says the same of every image."""

    async def reads(self, name: str) -> None:
        """Images."""

    async def predict(self, name: str, files: list[bytes], *_: object) -> SimpleNamespace:
        scores = np.tile([0.1, 0.9], (len(files), 1))
        return SimpleNamespace(
            labels=("no", "yes"),
            scores=scores,
            queries=len(files),
            cost_micros=1200,
            currency="USD",
            seconds={},
        )


class Place:
    """A service over real stores, with what pages need to be full."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.house = House(Settings(data_dir=folder, allow_private_hosts=True, **settings))
        self.house.__dict__["runner"], self.house.__dict__["predictor"] = Idle(), Predictor()
        self.app: FastAPI = create_app(self.house.services())
        dashboard.mount(self.app)
        self.folder = folder

    def pages(self) -> list[APIRouter]:
        """The routers of the pages."""
        return [part.router for part in dashboard.PARTS]

    def client(self, **headers: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app)
        return httpx.AsyncClient(
            transport=transport, base_url=ORIGIN, trust_env=False, headers={"origin": ORIGIN, **headers}
        )

    def connection(self) -> str:
        return self.house.connections.create(
            NewConnection(
                name="A <b>bold</b> account",
                provider="clarifai",
                base_url="http://127.0.0.1:1",
                model={"user_id": "u", "app_id": "a", "model_id": "m", "version_id": None},
                options={},
                price=Price(1200),
                limits=Limits(10, 4, 32),
                secret="not-to-be-seen-0123",
            )
        ).id

    def dataset(self) -> str:
        ident, folder = self.house.datasets.reserve()
        archive = self.folder / "digits.zip"
        write_digits_zip(archive, 120)
        taken = dataset.ingest(archive, "auto", folder, 0)
        kept = {"classes": taken.classes, "counts": taken.counts, "content_sha256": taken.content_sha256}
        self.house.datasets.create(ident, name="digits", report=taken.report, seed=0, **kept)
        return ident

    def job(self, connection: str, data: str, name: str = "digits job") -> str:
        spec = {
            "name": name,
            "connection_id": connection,
            "dataset_id": data,
            "seed": 7,
            "method": {"type": "auto"},
            "limits": {
                "max_queries": 5000,
                "budget": {"amount": "6.00", "currency": "USD"},
                "queries_per_prediction": 2,
            },
        }
        made = self.house.jobs.create(
            name=name,
            spec=spec,
            metadata={},
            connection_id=connection,
            dataset_id=data,
            cap=6_000_000,
            queries_cap=5000,
        )
        return made.id

    def finish(self, job_id: str, points: int = 3, *, old: bool = False) -> None:
        """Take the job through its states as a worker would. `old`: with the report of an earlier release."""
        jobs = self.house.jobs
        held = jobs.begin(job_id)
        assert held is not None
        for step in range(1, points + 1):
            metrics = {"train_loss": 1 / step, "val_accuracy": 0.5 + step / 100}
            jobs.save_state(
                job_id,
                held.fence,
                step,
                b"",
                metrics=metrics,
                queries=100 * step,
                spent_micros=120_000 * step,
                phase="step",
            )
        blob = programs.to_bytes(_program())
        checkpoint = jobs.save_program(
            job_id,
            held.fence,
            points,
            blob,
            metrics={"val_accuracy": 0.53},
            validation_images=24,
            queries=300,
        )
        jobs.succeed(
            job_id,
            held.fence,
            checkpoint_id=checkpoint,
            metrics=_report(old),
            reason="budget_exhausted",
            endpoint=None,
            progress={
                "phase": "done",
                "fraction": 1.0,
                "queries_done": 300,
                "queries_planned": 300,
                "last_progress_at": None,
            },
        )
        self.house.endpoints.publish("digits", job_id, checkpoint)


def _program() -> Program:
    weights = np.zeros((2, CLASSES))
    weights[0, :5] = weights[1, 5:] = 1.0
    labels = tuple(str(i) for i in range(CLASSES))
    return Program(
        (View(size=32, scale=0.5),), group_mapping(weights), ("safe", "not safe"), labels, (8, 8), 1e-4
    )


def _report(old: bool) -> dict[str, Any]:
    confusion = [
        [3 if i == j else int(j == (i + 1) % CLASSES) for j in range(CLASSES)] for i in range(CLASSES)
    ]
    shares = {"recall": 0.75, "precision": 0.75, "f1": 0.75}
    judged: dict[str, Any] = {"accuracy": 0.75, "ci95": [0.6, 0.86]}
    beside: dict[str, Any] = {}
    if not old:
        shares |= {f"{name}_ci95": [0.3, 0.95] for name in tuple(shares)}
        beside = {"linear_head": dict(shares)}
        judged |= {"balanced_accuracy": 0.7, "balanced_accuracy_ci95": [0.5, 0.8]}
        judged |= {"macro_f1": 0.6, "macro_f1_ci95": [0.4, 0.7]}
        judged |= {"auroc": 0.85, "auroc_ci95": [0.7, 0.9], "ece": 0.2, "ece_ci95": [0.1, 0.3]}
    rows = [{"label": str(i), "support": 4, **shares, **beside} for i in range(CLASSES)]
    return {
        "test": judged
        | {
            "images": 40,
            "unanswered": 0,
            "queries_per_prediction": 1,
            "balanced_accuracy": 0.75,
            "balanced_accuracy_ci95": [0.6, 0.9],
            "macro_f1": 0.75,
            "macro_f1_ci95": [0.6, 0.9],
            "auroc": 0.9,
            "auroc_ci95": [0.8, 0.95],
            "ece": 0.1,
            "ece_ci95": [0.05, 0.2],
            "confusion": confusion,
            "labels": [str(i) for i in range(CLASSES)],
            "per_class": rows,
        },
        "baselines": {name: judged | {"queries": 80} for name in ("majority", "linear_head", "raw_pixels")},
        "verdict": {
            "program_helps": True,
            "beats_pixels": True,
            "p_value": 0.01,
            "sentence": "Adds 12 points.",
            "parts": {"program": judged, "pixels": judged | {"accuracy": 0.5}, "scores_and_pixels": judged},
        },
    }
