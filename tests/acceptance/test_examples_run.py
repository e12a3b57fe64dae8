"""The examples whose data may not be bundled, from file to an endpoint that answers, by `examples/run.sh`:
small made-up files in the shape of the real ones, and fewer queries. DNA is run with examples/README.md."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from service import running_service

from app.sandbox.server import SandboxConfig, running

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(5)


def lesions(folder: Path) -> None:
    """80 pictures, two of each lesion; melanomas are darker."""
    with zipfile.ZipFile(folder / "ham10000_small_jpg.zip", "w") as archive:
        rows = ["image_id,lesion_id,dx"]
        for i in range(80):
            dx = ("mel", "nv", "bcc", "nv", "mel")[i // 2 % 5]
            pixels = np.clip(RNG.normal(90 if dx == "mel" else 170, 30, (15, 20, 3)), 0, 255)
            out = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(out, "JPEG")
            archive.writestr(f"img/I{i}.jpg", out.getvalue())
            rows.append(f"I{i},L{i // 2},{dx}")
        archive.writestr("labels.csv", "\n".join(rows))


def heartbeats(folder: Path) -> None:
    """30 and 30 series of 96 values, label first."""
    for split in ("TRAIN", "TEST"):
        lines: list[str] = []
        for i in range(30):
            label = 1 if i % 2 else -1
            wave = np.sin(np.arange(96) / (6 + 4 * label)) + RNG.normal(0, 0.2, 96)
            lines.append("  ".join(f"{value: .7e}" for value in (label, *wave)))
        (folder / f"ECG200_{split}.txt").write_text("\n".join(lines) + "\n")


def retinas(folder: Path) -> None:
    """100 rows of 19 numbers and the class."""
    rows = [[*RNG.normal(i % 2, 1, 19).round(4), i % 2] for i in range(100)]
    lines = ["@relation dr", *(f"@attribute {i} numeric" for i in range(20)), "@data"]
    lines += [",".join(str(value) for value in row) for row in rows]
    (folder / "messidor_features.arff").write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("name", "job", "make", "labels"),
    [
        ("melanoma", "melanoma-auto", lesions, {"melanoma", "nevus"}),
        ("ecg200", "ecg200", heartbeats, {"-1", "1"}),
        ("messidor", "messidor", retinas, {"signs", "none"}),
    ],
)
@pytest.mark.timeout(280)
def test_from_file_to_endpoint(
    tmp_path: Path, name: str, job: str, make: Callable[[Path], None], labels: set[str]
) -> None:
    bench = tmp_path / "bench"
    bench.mkdir()
    make(bench)
    examples = shutil.copytree(ROOT / "examples", tmp_path / "examples")
    with (
        running(SandboxConfig(size=128, rate_limit_rps=0)) as sandbox,
        running_service(tmp_path / "data") as service,
    ):
        file = examples / f"{job}.yaml"
        text = re.sub(r"max_queries: \d+", "max_queries: 500", file.read_text())
        file.write_text(text.replace("{type: auto}", "{type: auto, size: 128}"))
        connection = (examples / "connection.yaml").read_text().replace("http://127.0.0.1:8900", sandbox)
        (examples / "connection.yaml").write_text(connection)
        settings = service.environment(
            REPROG_URL=str(service.client.base_url).rstrip("/"), REPROG_BENCH_DATA=str(bench),
            PYTHON=sys.executable, REPROG=f"{sys.executable} -m app.cli", PYTHONPATH=str(ROOT),
        )  # fmt: skip
        run = subprocess.run(
            ["sh", "examples/run.sh", name, f"examples/{job}.yaml"],
            cwd=tmp_path, env=os.environ | settings, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:] + service.log()[-2000:]
        true = re.search(r"The label is (\S+)\.", run.stdout)
        assert true is not None
        assert true[1] in labels
        said = run.stdout[true.end() :]
        answer = re.search(r"\t(\S+)\t(0\.\d+|1\.0+)\t\S+ USD", said)
        assert answer is not None, said
        assert answer[1] in labels
        assert float(answer[2]) >= 0.5, "the first of two labels"
        assert ('{"inputs":' in said) == (name != "melanoma"), "a row or a series goes in as it was sent"
        assert service.ok("GET", "/v1/jobs")["data"][0]["cost"]["billable_queries"] <= 500
