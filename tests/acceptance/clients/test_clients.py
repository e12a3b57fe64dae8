"""Official clients, unmodified, against the sandbox and against a published endpoint.

`make clients` makes their environment and runs this; without it the tests are skipped, in CI they fail.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from service import Service, running_service

from app.sandbox.classifiers import Name, labels_of, load
from app.sandbox.server import SandboxConfig, running

ROOT = Path(__file__).parents[3]
PYTHON = Path(os.environ.get("REPROG_CLIENTS_PYTHON", ROOT / ".venv-clients" / "bin" / "python"))
NODE = shutil.which("node")
MODULES = ROOT / ".venv-clients" / "node" / "node_modules"
TRAFFIC_SIGNS = "43434343-4343-4343-8343-434343434343"

pytestmark = [
    pytest.mark.skipif(not PYTHON.exists(), reason="the clients are not installed: make clients"),
    pytest.mark.timeout(300),
]


def call(client: str, url: str, model: str, image: Path, key: str = "sandbox-clients") -> list[list[Any]]:
    command: list[str | Path] = [PYTHON, Path(__file__).with_name("calls.py")]
    if client.endswith("_node"):
        if NODE is None or not MODULES.is_dir():
            pytest.skip("node, or its clients, are not installed: make clients")
        command = [NODE, Path(__file__).with_name("calls.js")]
    asked = {"client": client, "url": url, "key": key, "model": model, "image": str(image)}
    done = subprocess.run(
        command,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=120,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(image.parent),
            "NO_PROXY": "127.0.0.1",
            "NODE_PATH": str(MODULES),
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def sandbox() -> Iterator[str]:
    with running(SandboxConfig(size=128, workers=2, rate_limit_rps=0)) as url:
        yield url


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cells = np.random.default_rng(4).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("images") / "image.png"
    Image.fromarray(cells).resize((128, 128), Image.Resampling.BICUBIC).save(path)
    return path


def truth(name: Name, image: Path) -> dict[str, float]:
    pixels = np.asarray(Image.open(image).convert("RGB"))
    return dict(zip(labels_of(name), load(name, 128).scores(pixels[None])[0].tolist(), strict=True))


# ---------------------------------------------------------------- the sandbox


@pytest.mark.parametrize(
    ("client", "path", "model", "name", "unit"),
    [
        ("custom_vision", "", f"{TRAFFIC_SIGNS}/traffic-signs", "traffic-signs", 1),
        ("clarifai", "", "moderation-recognition", "moderation", 1),
        ("custom_vision_node", "", f"{TRAFFIC_SIGNS}/traffic-signs", "traffic-signs", 1),
        ("clarifai_node", "", "moderation-recognition", "moderation", 1),
        ("huggingface", "/hf", "moderation", "moderation", 1),
        ("triton", "/oip", "moderation", "moderation", 1),
        ("huggingface_node", "/hf", "moderation", "moderation", 1),
        ("rekognition", "", "", "moderation", 100),
        ("rekognition_node", "", "", "moderation", 100),
    ],
)
def test_scores_of_the_sandbox(
    sandbox: str, image: Path, client: str, path: str, model: str, name: Name, unit: float
) -> None:
    rows = call(client, sandbox + path, model, image)
    expected = truth(name, image)
    assert len(rows) == len(expected)
    assert rows == sorted(rows, key=lambda row: -row[1])
    for label, score in rows:
        assert score == pytest.approx(expected[label] * unit, abs=2e-6 * unit)


def test_other_scores_of_the_sandbox(sandbox: str, image: Path) -> None:
    expected = truth("moderation", image)
    for client in ("openai", "openai_node"):
        openai = dict(call(client, sandbox, "omni-moderation-latest", image))
        assert openai["sexual"] == pytest.approx(expected["porn"])
        assert openai["sexual/minors"] == 0
    for client in ("content_safety", "content_safety_node"):
        severe = dict(call(client, sandbox, "", image))
        assert severe["Sexual"] == 2 * sum(expected["porn"] > bound for bound in (0.1, 0.4, 0.75))
    likely = dict(call("google", sandbox, "", image))
    assert likely["medical"] == 1 + sum(expected["neutral"] > bound for bound in (0.05, 0.2, 0.5, 0.8))
    nudity = dict(call("sightengine", sandbox, "nudity-2.1", image))
    assert nudity["none"] == pytest.approx(expected["neutral"])


# ---------------------------------------------------------------- a published endpoint


@pytest.fixture(scope="module")
def service(sandbox: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the endpoint `shapes`: a baseline, which is learned in seconds."""
    folder = tmp_path_factory.mktemp("clients")
    with running_service(folder) as service:
        connection = service.connect(sandbox)
        dataset = service.upload(shapes(folder / "shapes.zip"), name="shapes")
        job = service.create(connection, dataset, publish={"name": "shapes"})
        service.wait(job, "succeeded")
        yield service


def shapes(path: Path) -> Path:
    """Three classes that any features tell apart: stripes one way, the other way, and a disc."""
    rng = np.random.default_rng(8)
    y, x = np.mgrid[:32, :32]
    with zipfile.ZipFile(path, "w") as archive:
        for name, pattern in (
            ("across", y % 8 < 4),
            ("down", x % 8 < 4),
            ("disc", (x - 16) ** 2 + (y - 16) ** 2 < 90),
        ):
            for n in range(30):
                noise = rng.integers(0, 60, (32, 32, 3))
                out = io.BytesIO()
                Image.fromarray((pattern[..., None] * 180 + noise).astype(np.uint8)).save(out, "PNG")
                archive.writestr(f"{name}/{n}.png", out.getvalue())
    return path


@pytest.mark.parametrize(
    ("client", "path", "model"),
    [
        ("custom_vision", "/compat/azure", "11111111-2222-3333-4444-555555555555/shapes"),
        ("clarifai", "/compat/clarifai", "shapes"),
        ("custom_vision_node", "", "11111111-2222-3333-4444-555555555555/shapes"),
        ("clarifai_node", "/compat/clarifai", "shapes"),
        ("huggingface", "/compat/hf", "shapes"),
        ("huggingface_node", "/compat/hf", "shapes"),
        ("triton", "", "shapes"),
    ],
)
def test_an_endpoint_names_the_right_label(
    service: Service, tmp_path: Path, client: str, path: str, model: str
) -> None:
    with zipfile.ZipFile(shapes(tmp_path / "shapes.zip")) as archive:
        image = tmp_path / "disc.png"
        image.write_bytes(archive.read("disc/3.png"))
    native = service.ok("POST", "/v1/endpoints/shapes/predict", content=image.read_bytes())
    rows = call(client, f"http://127.0.0.1:{service.port}{path}", model, image, key="unused")
    assert rows[0][0] == native[0]["label"] == "disc"
    assert dict(rows) == pytest.approx({row["label"]: row["score"] for row in native}, abs=2e-6)
