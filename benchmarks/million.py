"""A long job without a provider: real ledger, answers, checkpoints and curve.

python -m benchmarks million [QUERIES]
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson

from app.api import views
from app.contracts import Limits, Price
from app.jobs.spec import JobSpec
from app.settings import Settings
from app.storage.connections import NewConnection
from app.wiring import House
from benchmarks.common import save, table

BATCH, STEP, LABELS, PRICE = 32, 1_000, 20, 1_200


def learn(house: House, queries: int) -> str:
    """Pay for `queries` answers, with a checkpoint every STEP of them. Returns the job's id."""
    record = house.connections.create(
        NewConnection(
            "c", "clarifai", "http://127.0.0.1", {"model_id": "m"}, {}, Price(PRICE), Limits(), "key"
        )
    )
    dataset, _ = house.datasets.reserve()
    house.datasets.create(
        dataset, name="d", classes=("a", "b"), counts={}, content_sha256="", report={}, seed=0
    )
    spec = JobSpec.model_validate({"name": "long", "connection_id": record.id, "dataset_id": dataset})
    job = house.jobs.create(
        name="long", spec=spec.model_dump(mode="json"), metadata={}, connection_id=record.id,
        dataset_id=dataset, cap=queries * PRICE, queries_cap=queries,
    )  # fmt: skip
    begun = house.jobs.begin(job.id)
    assert begun is not None
    rng, state, done = np.random.default_rng([0]), bytes(20_000), 0
    while done < queries:
        for _ in range(min(STEP, queries - done) // BATCH + 1):
            images = min(BATCH, queries - done)
            if images == 0:
                break
            keys = [rng.bytes(20) for _ in range(images)]
            attempt = house.ledger.reserve(
                job.id, record.id, fence=begun.fence, images=images, price_micros=PRICE, purpose="step",
                keys=[(one, one) for one in keys],
            )  # fmt: skip
            rows = rng.random((images, LABELS), np.float32)
            house.ledger.settle(
                attempt, list(zip(keys, rows, strict=True)), billed=images, unknown=0, outcome="answered",
                http_status=200, request_id=keys[0].hex()[:32],
            )  # fmt: skip
            done += images
        metrics = {"train_loss": 1.0, "val_accuracy": 0.5}
        house.jobs.save_state(
            job.id, begun.fence, done // STEP, state, metrics=metrics, queries=done,
            spent_micros=done * PRICE, phase="step",
        )  # fmt: skip
    return job.id


def milliseconds(read: object, repeat: int = 20) -> float:
    """Median time of a read."""
    assert callable(read)
    taken = list[float]()
    for _ in range(repeat):
        started = time.perf_counter()
        read()
        taken.append((time.perf_counter() - started) * 1000)
    return float(np.median(taken))


def main(queries: int = 100_000) -> None:
    queries = int(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[1] == "million" else queries
    with tempfile.TemporaryDirectory() as folder:
        house = House(Settings(data_dir=Path(folder)))
        started = time.perf_counter()
        job = learn(house, queries)
        seconds = time.perf_counter() - started
        services = house.services()
        currency = house.price(house.jobs.get(job).connection_id).currency
        get = milliseconds(lambda: orjson.dumps(views.job(services, house.jobs.get(job), currency)))
        curve = milliseconds(lambda: house.jobs.points(job))
        events = milliseconds(lambda: house.jobs.events(job, after=0, limit=100))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        house.close()  # the last connection folds the log into the file
        size = (Path(folder) / "reprog.sqlite").stat().st_size / queries
    rows = [
        ("peak memory of the process", f"{memory:.0f} MiB", "400 MB"),
        ("database per query", f"{size:.0f} B", "300 B"),
        ("job object (GET /v1/jobs/{id})", f"{get:.1f} ms", "50 ms"),
        ("metrics series, 500 points", f"{curve:.1f} ms", "50 ms"),
        ("events, 100", f"{events:.1f} ms", "50 ms"),
        ("paid and stored", f"{queries / seconds:.0f} queries/s", ""),
    ]
    text = (
        f"{queries} queries of {LABELS} labels in requests of {BATCH}, a checkpoint every {STEP}; SQLite.\n\n"
    )
    text += table(("what", "at the end", "goal"), rows)
    save("million", "A long job", f"python -m benchmarks million {queries}", text)


if __name__ == "__main__":
    main()
