"""Every page of the dashboard over real HTTP, in a service that has a lot to show.

python -m benchmarks pages [JOBS]

Two jobs really run, with a program of two views and an endpoint. Then the tables are filled: copies of the
first job up to JOBS, and 100 metric points for each, all of them at one job. First byte: from the request to
the first line of the answer, on one kept connection, signed in, one request at a time.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from sqlalchemy import create_engine, insert, select

from app.jobs.samples import write_digits_zip
from app.storage import tables
from benchmarks.common import save, table
from benchmarks.proxy import KEY, MODEL, SIDE, free_port, running

REPEATS, POINTS_PER_JOB = 30, 100
GOAL_MS, GOAL_BYTES = 200, 300_000
LOADED = re.compile(r"""<(?:link|script|img)\b[^>]*?\b(?:href|src)=["'](/[^"'#]*)""")


def learned(service: str, sandbox: str, folder: Path) -> tuple[str, str, str, str]:
    """Ids of a connection, a data set and two finished jobs; the first is behind the endpoint `bench`."""
    write_digits_zip(folder / "digits.zip", 300)
    with httpx.Client(base_url=f"{service}/v1", timeout=120, trust_env=False) as client:

        def ask(path: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401
            answer = client.post(path, **options)
            assert answer.is_success, answer.text
            return answer.json()

        limits = {"requests_per_second": 1000, "concurrency": 4, "max_batch": 32}
        account = {"name": "sandbox", "provider": "clarifai", "base_url": sandbox, "model": MODEL}
        price = {"per_1000": "1.20", "currency": "USD"}
        connection = ask("/connections", json=account | {"secret": KEY, "price": price, "limits": limits})
        headers = {"content-type": "application/zip"}
        archive = (folder / "digits.zip").read_bytes()
        dataset = ask("/datasets?name=digits", content=archive, headers=headers)
        body = {"name": "two views", "connection_id": connection["id"], "dataset_id": dataset["id"]}
        body |= {"method": {"type": "views", "size": SIDE}, "publish": {"name": "bench"}}
        body["limits"] = {"max_queries": 900, "queries_per_prediction": 2}
        other = {"name": "plain", "method": {"type": "baseline"}, "publish": None}
        jobs = [ask("/jobs", json=body)["id"], ask("/jobs", json=body | other)["id"]]
        for job in jobs:
            while (found := client.get(f"/jobs/{job}").json())["status"] not in ("succeeded", "failed"):
                time.sleep(0.5)
            assert found["status"] == "succeeded", found
    return connection["id"], dataset["id"], jobs[0], jobs[1]


def fill(database: Path, job: str, jobs: int) -> str:
    """Copies of a job, and all metric points at the one in the middle: its id."""
    engine = create_engine(f"sqlite:///{database}")
    with engine.begin() as connection:
        row = dict(connection.execute(select(tables.jobs).where(tables.jobs.c.id == job)).mappings().one())
        point = connection.execute(select(tables.points).where(tables.points.c.job_id == job)).mappings()
        last = dict(list(point)[-1])
        made = [f"job_{n:026d}" for n in range(jobs - 2)]
        copies = [row | {"id": ident, "name": f"copy {n}"} for n, ident in enumerate(made)]
        connection.execute(insert(tables.jobs), copies)
        busy = made[len(made) // 2]
        rows = [
            last | {"job_id": busy, "step": n, "queries": n, "spent_micros": 1200 * n, "at": last["at"] + n}
            for n in range(POINTS_PER_JOB * jobs)
        ]
        connection.execute(insert(tables.points), rows)
    engine.dispose()
    return busy


def addresses(connection: str, dataset: str, first: str, second: str, busy: str) -> dict[str, str]:
    chosen = f"connection_id={connection}&dataset_id={dataset}"
    return {
        "overview": "/",
        "jobs": "/jobs",
        "job, all the points": f"/jobs/{busy}",
        "its curve": f"/jobs/{busy}/curve",
        "job, finished": f"/jobs/{first}",
        "before and after": f"/jobs/{first}/strip",
        "label mapping": f"/jobs/{first}/mapping",
        "reliability": f"/jobs/{first}/reliability",
        "compare": f"/compare?job={busy}&job={first}&job={second}",
        "compare, images": f"/compare/images?job={first}&job={second}",
        "data sets": "/datasets",
        "data set": f"/datasets/{dataset}",
        "endpoints": "/endpoints",
        "endpoint": "/endpoints/bench",
        "connections": "/connections",
        "connection": f"/connections/{connection}",
        "new job, 1": "/new",
        "new job, 2": f"/new/data?{chosen}",
        "new job, 3": f"/new/method?{chosen}",
        "new job, 4": f"/new/review?{chosen}&name=again&method=auto&max_queries=9000&budget=9.00",
        "usage": "/usage?group_by=job",
        "keys": "/keys",
        "webhooks": "/webhooks",
        "audit": "/audit",
        "API reference": "/docs",
    }


def get(http: HTTPConnection, path: str) -> tuple[float, bytes]:
    """Seconds to the first byte, and the body."""
    began = time.perf_counter()
    http.request("GET", path)
    answer = http.getresponse()
    took = time.perf_counter() - began
    body = answer.read()
    assert answer.status == 200, (path, answer.status, body[:300])
    return took, body


def measure(port: int, pages: dict[str, str]) -> list[tuple[object, ...]]:
    """(page, first ms, median ms, worst ms, kB of the page, kB with all that it names)."""
    http, rows = HTTPConnection("127.0.0.1", port, timeout=60), list[tuple[object, ...]]()
    for name, path in pages.items():
        first, body = get(http, path)
        named = set(LOADED.findall(body.decode()))
        weight = len(body) + sum(len(get(http, url.replace("&amp;", "&"))[1]) for url in named)
        taken = [1000 * get(http, path)[0] for _ in range(REPEATS)]
        assert weight < GOAL_BYTES, (name, weight)
        sizes = (f"{len(body) / 1000:.0f}", f"{weight / 1000:.0f}")
        rows.append((name, f"{1000 * first:.0f}", f"{np.median(taken):.0f}", f"{max(taken):.0f}", *sizes))
    return rows


def main() -> None:
    jobs = int(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[1] == "pages" else 1000
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = [free_port() for _ in range(3)]
        options = ("--port", str(ports[0]), "--size", str(SIDE), "--rate-limit", "0")
        settings = {
            "REPROG_DATA_DIR": str(folder / "data"),
            "REPROG_ALLOW_PRIVATE_HOSTS": "true",
            "REPROG_LOG_LEVEL": "WARNING",
        }
        serve = ("-m", "app.cli", "serve", "--port")
        with (
            running(("-m", "app.sandbox", *options), ports[0], "/healthz") as sandbox,
            running((*serve, str(ports[1])), ports[1], "/readyz", **settings) as service,
        ):
            made = learned(service, sandbox, folder)
        busy = fill(folder / "data" / "reprog.sqlite", made[2], jobs)
        command = (*serve, str(ports[2]))
        stack.enter_context(running(command, ports[2], "/readyz", **settings, REPROG_WORKER="false"))
        rows = measure(ports[2], addresses(*made, busy))
    head = ("page", "first time, ms", "median ms", "worst ms", "page, kB", "with all it loads, kB")
    text = table(head, rows)
    text += (
        f"\n\n{jobs:,} jobs, {POINTS_PER_JOB * jobs:,} metric points, all at one job; first byte over HTTP on"
        f" one connection, {REPEATS} times after a first; SQLite, one process. `first time` has templates to"
        " compile and programs to read. Weight is uncompressed: the page, and styles, scripts and pictures"
        f" that it names. Goals: {GOAL_MS} ms, {GOAL_BYTES // 1000} kB."
    )
    save("pages", "Pages", f"python -m benchmarks pages {jobs}", text)


if __name__ == "__main__":
    main()
