"""The documentation is run: shell blocks in their order against a service and the sandbox, Python and data
blocks read. A block that cannot be run is marked `<!-- not run: why -->` and counted here."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from service import running_service

from app.sandbox.server import SandboxConfig, running

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"^(?P<mark><!-- not run: [^\n]+ -->\n)?```(?P<kind>[a-z]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *ROOT.glob("examples/*.md")]
RUN = ("README.md", "docs/quickstart.md")

#: What a page says of a real account -> what the test has instead.
INSTEAD = {
    "localhost:8000": "{service}",
    "https://api.clarifai.com": "{sandbox}",
    "model_id: moderation-recognition": "model_id: moderation-recognition-128",
    "max_queries: 8000": "max_queries: 700",
    "type: auto}": "type: auto, size: 128}",
}


def blocks(page: Path) -> list[tuple[bool, str, str]]:
    """(marked as not run, language, text)."""
    return [(bool(m["mark"]), m["kind"], m["text"]) for m in BLOCK.finditer(page.read_text())]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_data_and_python_blocks_can_be_read(page: Path) -> None:
    for _, kind, text in blocks(page):
        if kind == "json":
            json.loads(text)
        elif kind == "yaml":
            assert list(yaml.safe_load_all(text))
        elif kind == "python":
            ast.parse(text)


def test_every_shell_block_is_run_or_counted() -> None:
    """The others show a command and its surroundings; a new one has to be run, or marked and counted here."""
    left = Counter[str]()
    for page in PAGES:
        for marked, kind, _ in blocks(page):
            if kind in ("bash", "sh", "shell", "console") and (marked or name(page) not in RUN):
                left[name(page)] += 1
    assert left == NOT_RUN


NOT_RUN = Counter({"README.md": 1, "docs/quickstart.md": 1, "docs/datasets.md": 1, "examples/README.md": 2})


def fill(folder: Path) -> None:
    rng = np.random.default_rng(3)
    with zipfile.ZipFile(folder / "lesions.zip", "w") as zipped:
        for label, level in (("benign", 70), ("malignant", 180)):
            for n in range(40):
                pixels = np.clip(rng.normal(level, 40, (24, 24, 3)), 0, 255).astype(np.uint8)
                out = io.BytesIO()
                Image.fromarray(pixels).save(out, "PNG")
                zipped.writestr(f"{label}/{n}.png", out.getvalue())
    Image.new("RGB", (24, 24), (180, 180, 180)).save(folder / "one.jpg")


@pytest.mark.parametrize("page", RUN)
@pytest.mark.timeout(280)
def test_shell_blocks_run(tmp_path: Path, page: str) -> None:
    fill(tmp_path)
    script = "\n".join(t for marked, kind, t in blocks(ROOT / page) if kind == "bash" and not marked)
    assert script
    with (
        running(SandboxConfig(size=128, rate_limit_rps=0)) as sandbox,
        running_service(tmp_path / "data", CLARIFAI_PAT="sandbox-docs") as service,
    ):
        address = str(service.client.base_url).rstrip("/")
        for said, meant in INSTEAD.items():
            script = script.replace(said, meant.replace("{service}", address).replace("{sandbox}", sandbox))
        scripts = {"PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}", "REPROG_URL": address}
        run = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path, env=os.environ | scripts, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:] + service.log()[-2000:]
        assert '"label"' in run.stdout
        cost = service.ok("GET", "/v1/usage?group_by=connection")["data"][0]
        assert cost["billable_queries"] > 0
