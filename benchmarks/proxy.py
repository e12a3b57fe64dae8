"""Predict beside a pass-through proxy of ten lines, both before one and the same sandbox.

python -m benchmarks proxy [REQUESTS]

Processes: the sandbox (one scoring thread), the proxy, `reprog serve`, and this one, which sends. The proxy
is given the very bytes that our service sends for an image, predict the image. No image occurs twice.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import aiohttp
import numpy as np

from app.contracts import Limits, Price
from app.gateway.encoding import encode
from app.providers import make
from app.reprogramming import program as programs
from app.reprogramming.mapping import group_mapping
from app.reprogramming.program import Program
from app.reprogramming.transform import View, render_many
from app.sandbox.classifiers import load
from app.settings import Settings
from app.storage.connections import NewConnection
from app.wiring import House
from benchmarks.common import save, spread, table

SIDE, REPEATS, CONNECTIONS, NAME = 128, 3, (1, 16, 64), "bench"
MODEL = {"user_id": "clarifai", "app_id": "main", "model_id": "moderation-recognition-128"}
KEY = "sandbox-bench"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def running(command: Sequence[str], port: int, path: str, **settings: str) -> Generator[str]:
    """A process that answers on `port`; `path` tells that it is up."""
    process = subprocess.Popen([sys.executable, *command], env=os.environ | settings)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            assert process.poll() is None, command
            try:
                with urlopen(url + path, timeout=5):
                    break
            except OSError as error:
                if getattr(error, "code", None) is not None:
                    break  # an answer, if not a friendly one
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def a_program() -> Program:
    """One view, and a group for each source label."""
    labels = load("moderation", SIDE).labels
    return Program(
        views=(View(size=SIDE),),
        mapping=group_mapping(np.eye(len(labels))),
        source_labels=labels,
        target_labels=tuple(f"class {n}" for n in range(len(labels))),
        canonical=(28, 28),
        floor=1e-6,
    )


def publish(folder: Path, sandbox: str) -> None:
    """An endpoint with that program, as a job leaves it."""
    house = House(Settings(data_dir=folder, allow_private_hosts=True))
    limits = Limits(100_000, 80, 1)
    record = house.connections.create(
        NewConnection("c", "clarifai", sandbox, MODEL, {}, Price(1_200), limits, KEY)
    )
    dataset, _ = house.datasets.reserve()
    house.datasets.create(
        dataset, name="d", classes=("a", "b"), counts={}, content_sha256="", report={}, seed=0
    )
    job = house.jobs.create(
        name="j", spec={}, metadata={}, connection_id=record.id, dataset_id=dataset, cap=None,
        queries_cap=None,
    )  # fmt: skip
    begun = house.jobs.begin(job.id)
    assert begun is not None
    blob = programs.to_bytes(a_program())
    checkpoint = house.jobs.save_program(
        job.id, begun.fence, 1, blob, metrics={}, validation_images=1, queries=0
    )
    house.endpoints.publish(NAME, job.id, checkpoint)
    house.close()


@dataclass(frozen=True)
class Sending:
    """What to send: one body per request."""

    url: str
    headers: dict[str, str]
    bodies: list[bytes]


def requests(seed: int, count: int, service: str, proxy: str) -> dict[str, Sending]:
    """New images, as predict is given them and as the proxy is."""
    images = np.random.default_rng([seed]).integers(0, 256, (2 * count, 28, 28, 3), np.uint8)
    provider, program = make("clarifai", proxy, MODEL, KEY, {}), a_program()
    wires = [provider.request([png]) for png in encode(render_many(program.views, images[count:]))]
    return {
        "predict": Sending(
            f"{service}/v1/endpoints/{NAME}/predict", {"Content-Type": "image/png"}, encode(images[:count])
        ),
        "proxy": Sending(wires[0].url, dict(wires[0].headers), [wire.body for wire in wires]),
    }


async def send(what: Sending, connections: int) -> tuple[float, float]:
    """(median ms, requests per second) of a closed loop."""
    taken, todo = list[float](), iter(what.bodies)
    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector, headers=what.headers) as session:

        async def client() -> None:
            for body in todo:
                began = time.perf_counter()
                async with session.post(what.url, data=body) as reply:
                    text = await reply.read()
                    assert reply.status == 200, text
                taken.append((time.perf_counter() - began) * 1000)

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(connections)))
        seconds = time.perf_counter() - began
    return float(np.median(taken)), len(taken) / seconds


def measure(service: str, proxy: str, count: int) -> list[tuple[object, ...]]:
    rows, seed = list[tuple[object, ...]](), 0
    for connections in (0, *CONNECTIONS):  # the first warms all processes up
        added, share, medians = list[float](), list[float](), list[tuple[float, float]]()
        for _ in range(REPEATS if connections else 1):
            seed += 1
            both = requests(seed, count if connections else 50, service, proxy)
            found = {name: asyncio.run(send(what, connections or 4)) for name, what in both.items()}
            medians.append((found["predict"][0], found["proxy"][0]))
            added.append(found["predict"][0] - found["proxy"][0])
            share.append(found["predict"][1] / found["proxy"][1])
        if connections:
            ours, bare = np.median(medians, axis=0)
            rows.append((connections, f"{ours:.1f}", f"{bare:.1f}", spread(added, 1), spread(share, 2)))
    return rows


def main() -> None:
    count = int(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[1] == "proxy" else 600
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = [free_port() for _ in range(3)]
        options = ("--port", str(ports[0]), "--size", str(SIDE), "--rate-limit", "0", "--workers", "1")
        sandbox = stack.enter_context(running(("-m", "app.sandbox", *options), ports[0], "/healthz"))
        publish(folder, sandbox)
        script = str(Path(__file__).with_name("pass_through.py"))
        proxy = stack.enter_context(running((script, str(ports[1]), sandbox), ports[1], "/"))
        settings = {
            "REPROG_DATA_DIR": str(folder),
            "REPROG_PORT": str(ports[2]),
            "REPROG_ALLOW_PRIVATE_HOSTS": "true",
            "REPROG_WORKER": "false",
            "REPROG_LOG_LEVEL": "WARNING",
        }
        serving = running(("-m", "app.cli", "serve"), ports[2], "/readyz", **settings)
        service = stack.enter_context(serving)
        rows = measure(service, proxy, count)
    head = ("connections", "predict, median ms", "proxy, median ms", "added ms", "share of its throughput")
    text = table(head, rows)
    text += (
        f"\n\n{count} requests each, {REPEATS} times in turn, median (least to most); one view a prediction,"
        f" {SIDE} x {SIDE} images, sandbox with one scoring thread, no image twice, SQLite. Goals: at most"
        " 10 ms added at the median, at least 0.8 of the throughput.\n\nBetween the two stand three commits"
        " that wait for the disk (intent, settlement, audit line; at 16 connections shared) and our own CPU"
        " in one Python process: two thirds web framework, HTTP client, event loop, the rest the ledger."
        " Every connection waits for its answer before it asks again: with 64 of them, 0.8 of the throughput"
        " is a quarter more of the proxy's time at the median, whatever the cost of one prediction; with one,"
        " the share is the ratio of the two times."
    )
    save("proxy", "Predict beside a pass-through proxy", f"python -m benchmarks proxy {count}", text)


if __name__ == "__main__":
    main()
