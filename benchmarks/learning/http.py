"""One cell once more as a user would run it: a real job over HTTP against the sandbox's server.

The answers, the queries and the program must be those of the cell in process, or the grid counts wrongly.
"""

from __future__ import annotations

import io
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from threadpoolctl import threadpool_limits

from app.jobs.dataset import Dataset
from app.jobs.dataset import load as load_dataset
from app.reprogramming import program as programs
from app.reprogramming.transform import View
from app.sandbox.server import SandboxConfig, running
from benchmarks.learning import tasks
from benchmarks.learning.cell import VARIANTS, Cell, asked, learn, posed
from benchmarks.learning.sources import Source

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from service import running_service

CELL = Cell("digits", "mod5", "auto-scores", 4, 2_000, 0)  # auto as a job has it by default
KEY, MINUTES = "sandbox-equal", 30


def compare(cell: Cell = CELL) -> dict[str, Any]:
    """Both runs side by side, and a sentence. The cell's task has small pictures and no groups."""
    with tempfile.TemporaryDirectory() as folder:
        there, sent, data = _job(cell, Path(folder))
    with threadpool_limits(1):
        source = Source(cell.source)
        problem, images, labels = posed(cell, source, data.classes, data.images, data.labels)
        program, _, _ = learn(cell, problem, source)
        scores = asked(source, (View(size=source.side), *program.views), images)
    right = programs.score(program, scores[1:], images).argmax(axis=1) == labels
    here = {"queries": len(source.paid), "accuracy": round(float(right.mean()), 6)}
    same = sent == programs.to_bytes(program)
    equal = same and here["queries"] == there["queries"] == there["bill"]
    equal &= here["accuracy"] == there["accuracy"]
    sentence = (
        f"{cell.name}, test included, images in the order in which the service keeps them. In process: "
        f"{here['queries']:,} queries, accuracy {here['accuracy']:.3f}. Job over HTTP: {there['queries']:,} "
        f"queries in its ledger, {there['bill']:,} on the sandbox's bill, accuracy {there['accuracy']:.3f}. "
        f"The programs are {'the same' if same else 'NOT the same'}, byte for byte."
    )
    sentence += "" if equal else " **Not equal.**"
    return {"cell": cell.name, "here": here, "there": there, "equal": equal, "sentence": sentence}


def _job(cell: Cell, folder: Path) -> tuple[dict[str, Any], bytes, Dataset]:
    """Figures of the job, its program, and the data set as the service has it."""
    with (
        running(SandboxConfig(size=128, rate_limit_rps=0)) as sandbox,
        running_service(folder / "data") as service,
    ):
        upload = folder / "upload.npz"
        _write(cell, upload)
        dataset = service.ok(
            "POST", "/v1/datasets", params={"name": cell.task}, content=upload.read_bytes(),
            headers={"content-type": "application/x-npz"},
        )  # fmt: skip
        data = load_dataset(folder / "data" / "datasets" / dataset["id"], max_side=128)
        tested = len(data.labels["test"])
        limits = {
            "max_queries": cell.queries + tested * (1 + cell.views),
            "queries_per_prediction": cell.views,
        }
        kind, options = VARIANTS[cell.method]
        job = service.create(
            service.connect(sandbox, KEY), dataset, seed=cell.seed, limits=limits,
            method={"type": kind, **options, "size": 128},
        )  # fmt: skip
        done = service.wait(job, "succeeded", seconds=60 * MINUTES)
        bill = httpx.get(f"{sandbox}/bill", trust_env=False).json()["keys"][KEY]["billable_queries"]
        found = service.client.get(f"/v1/jobs/{job['id']}/artifact").content
    with zipfile.ZipFile(io.BytesIO(found)) as archive:
        program = archive.read("program.safetensors")
    figures = {"queries": done["cost"]["billable_queries"], "bill": bill}
    return {**figures, "accuracy": done["metrics"]["test"]["accuracy"]}, program, data


def _write(cell: Cell, path: Path) -> None:
    """The cell's splits in MedMNIST's layout."""
    task = tasks.load(cell.task)
    arrays: dict[str, Any] = {}
    for split, rows in task.rows(cell.seed, cell.queries).items():
        arrays |= {f"{split}_images": task.images[rows], f"{split}_labels": task.labels[rows]}
    np.savez(path, **arrays)
