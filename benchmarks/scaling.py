"""Past one database: which statement saturates first? Real statements against a real PostgreSQL, a clock for
the providers.

python -m benchmarks scaling

Each client is one of many workers. A statement is measured alone at growing numbers of clients until its rate
stops growing; docs/scaling.md says what 1,000 workers and 10,000 jobs need of each.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from app.contracts import Limits, Price
from app.settings import Settings
from app.storage.budget import Ledger
from app.storage.connections import NewConnection
from app.storage.rate import Rates
from app.wiring import House
from benchmarks.common import databases, save, table

JOBS, SECONDS, PRICE, BATCH, LABELS = 64, 4.0, 1_200, 8, 20
CLIENTS = (1, 4, 16)


def rate_of(clients: int, act: Callable[[int, int], object]) -> float:
    """Calls per second of `clients` threads; `act(client, n)`."""
    counts, until = [0] * clients, time.monotonic() + SECONDS

    def run(client: int) -> None:
        while time.monotonic() < until:
            act(client, counts[client])
            counts[client] += 1

    threads = [threading.Thread(target=run, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / SECONDS


def statements(house: House) -> dict[str, Callable[[int, int], object]]:
    def connect() -> str:
        limits = Limits(1e9, 16, BATCH)
        new = NewConnection(
            "c", "clarifai", "http://127.0.0.1", {"model_id": "m"}, {}, Price(PRICE), limits, "k"
        )
        return house.connections.create(new).id

    shared, own = connect(), [connect() for _ in range(JOBS)]
    dataset, _ = house.datasets.reserve()
    house.datasets.create(
        dataset, name="d", classes=("a", "b"), counts={}, content_sha256="", report={}, seed=0
    )
    jobs, fences = list[str](), list[int]()
    for n in range(JOBS):
        record = house.jobs.create(
            name="n",
            spec={},
            metadata={},
            connection_id=own[n],
            dataset_id=dataset,
            cap=None,
            queries_cap=None,
        )
        begun = house.jobs.begin(record.id)
        assert begun is not None
        jobs.append(record.id)
        fences.append(begun.fence)
    ledgers = [Ledger(house.engine) for _ in range(JOBS)]  # one per worker: no group commit between them
    rates = [Rates(house.engine) for _ in range(JOBS)]
    rngs = [np.random.default_rng([n]) for n in range(JOBS)]
    state = bytes(20_000)

    def request(client: int, account: str) -> None:
        keys = [rngs[client].bytes(20) for _ in range(BATCH)]
        attempt = ledgers[client].reserve(
            jobs[client], account, fence=fences[client], images=BATCH, price_micros=PRICE, purpose="step",
            keys=[(one, one) for one in keys],
        )  # fmt: skip
        rows = rngs[client].random((BATCH, LABELS), np.float32)
        ledgers[client].settle(
            attempt, list(zip(keys, rows, strict=True)), billed=BATCH, unknown=0, outcome="answered"
        )

    def checkpoint(client: int, n: int) -> None:
        house.jobs.save_state(
            jobs[client],
            fences[client],
            n,
            state,
            metrics={"train_loss": 1.0},
            queries=n,
            spent_micros=n,
            phase="step",
        )

    return {
        "reserve + settle, all jobs on one connection": lambda c, n: request(c, shared),
        "reserve + settle, a connection per job": lambda c, n: request(c, own[c]),
        "lease of slots, one credential": lambda c, n: rates[c]._lease("one", 1, 1e-9),  # pyright: ignore[reportPrivateUsage]
        "lease of slots, a credential per job": lambda c, n: rates[c]._lease(own[c], 1, 1e-9),  # pyright: ignore[reportPrivateUsage]
        "checkpoint": checkpoint,
        "progress": lambda c, n: house.jobs.progress(jobs[c], fences[c], {"n": n}),
        "look at what the user wants": lambda c, n: house.jobs.wanted(jobs[c], fences[c]),
    }


def main() -> None:
    import tempfile
    from pathlib import Path

    rows = list[tuple[object, ...]]()
    with databases() as urls, tempfile.TemporaryDirectory() as folder:
        house = House(Settings(data_dir=Path(folder), database_url=urls["PostgreSQL"]))
        for name, act in statements(house).items():
            rows.append((name, *(f"{rate_of(clients, act):.0f}" for clients in CLIENTS)))
        house.close()
    text = table(("statement, calls per second", *(f"{n} clients" for n in CLIENTS)), rows)
    text += (
        f"\n\nRequests of {BATCH} images, {LABELS} labels. Clients are threads of one process, on the machine"
        " that also runs PostgreSQL (synchronous commit on): a lower bound for a server of its own."
    )
    save("scaling", "Statements against one PostgreSQL", "python -m benchmarks scaling", text)


if __name__ == "__main__":
    main()
