"""The documentation is run: shell blocks in their order against a service and the sandbox, Python and data
blocks read. A block that cannot be run is marked `<!-- not run: why -->`, and its reason stands here."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from service import running_service

from app.api.schemas.connections import ConnectionBody
from app.jobs.spec import JobSpec
from app.sandbox.server import SandboxConfig, running

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]+) -->\n)?```(?P<kind>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *ROOT.glob("examples/*.md")]
ASKING = ("README.md", "docs/quickstart.md", "examples/README.md")  # pages that spend queries
RUN = (*ASKING, "docs/datasets.md", "docs/operations.md", "docs/security.md")
NOT_RUN = {
    "README.md": ["each takes minutes, and each is a check of its own"],
    "docs/quickstart.md": ["the test has a service of its own"],
    "docs/operations.md": ["needs a container engine; a test holds the file to be one that compose accepts"],
    "examples/README.md": ["the test has a sandbox and a service of its own"],
}

#: What a page or an example says of a real account, or at full size -> what the test has instead.
INSTEAD = {
    "localhost:8000": "{service}",
    "https://api.clarifai.com": "{sandbox}",
    "http://127.0.0.1:8900": "{sandbox}",
    "https://ci.example.com/reprog": "{service}/livez",
    "model_id: moderation-recognition,": "model_id: moderation-recognition-128,",
    "requests_per_second: 100,": "requests_per_second: 1000,",
    "max_queries: 8000": "max_queries: 700",
    "max_queries: 6000": "max_queries: 1400",
    "type: auto}": "type: auto, size: 128}",
}


def blocks(page: Path) -> list[tuple[str | None, str, str]]:
    """(why it is not run, language, text)."""
    return [(m["why"], m["kind"], m["text"]) for m in BLOCK.finditer(page.read_text())]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_data_and_python_blocks_can_be_read(page: Path) -> None:
    for _, kind, text in blocks(page):
        assert kind in ("bash", "json", "yaml", "python", "text"), f"{kind!r}: nothing would check it"
        if kind == "python":
            ast.parse(text)
        for found in (
            [json.loads(text)] if kind == "json" else yaml.safe_load_all(text) if kind == "yaml" else ()
        ):
            if "provider" in found:
                ConnectionBody.model_validate({"name": "shown"} | found)
            elif "dataset_id" in found:
                JobSpec.model_validate(found)


def test_every_shell_block_is_run_or_says_why_not() -> None:
    shell = {name(page): [why for why, kind, _ in blocks(page) if kind == "bash"] for page in PAGES}
    assert {page for page, whys in shell.items() if None in whys} == set(RUN)
    assert {page: [why for why in whys if why] for page, whys in shell.items() if any(whys)} == NOT_RUN


def picture(level: float, rng: np.random.Generator) -> bytes:
    pixels = np.clip(rng.normal(level, 40, (24, 24, 3)), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def fill(folder: Path, meant: dict[str, str]) -> None:
    """What the pages take for granted: a zip, a picture, folders of pictures, the examples."""
    rng = np.random.default_rng(3)
    with zipfile.ZipFile(folder / "lesions.zip", "w") as zipped:
        for label, level in (("benign", 70), ("malignant", 180)):
            for n in range(40):
                zipped.writestr(f"{label}/{n}.png", picture(level, rng))
    Image.new("RGB", (24, 24), (180, 180, 180)).save(folder / "one.jpg")
    for animals in ("cats", "dogs"):
        (folder / animals).mkdir()
        for n in range(5):
            (folder / animals / f"{n}.png").write_bytes(picture(100, rng))
    shutil.copytree(ROOT / "examples", folder / "examples")
    for job in (folder / "examples").glob("*.yaml"):
        job.write_text(replaced(job.read_text(), meant))


def replaced(text: str, meant: dict[str, str]) -> str:
    for said, instead in INSTEAD.items():
        text = text.replace(said, instead.format(**meant) if instead.startswith("{") else instead)
    return text


@pytest.mark.parametrize("page", RUN)
@pytest.mark.timeout(280)
def test_shell_blocks_run(tmp_path: Path, page: str) -> None:
    script = "\n".join(text for why, kind, text in blocks(ROOT / page) if kind == "bash" and not why)
    with (
        running(SandboxConfig(size=128, rate_limit_rps=0)) as sandbox,
        running_service(tmp_path / "data", CLARIFAI_PAT="sandbox-docs") as service,
    ):
        meant = {"service": str(service.client.base_url).rstrip("/"), "sandbox": sandbox}
        fill(tmp_path, meant)
        scripts = service.environment(
            PATH=f"{ROOT / '.venv/bin'}:{os.environ['PATH']}", REPROG_URL=meant["service"],
            PYTHON=sys.executable, REPROG="reprog", PYTHONPATH=str(ROOT),
        )  # fmt: skip
        run = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", replaced(script, meant)],
            cwd=tmp_path, env=scripts, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:] + service.log()[-2000:]
        if page in ASKING:
            assert '"label"' in run.stdout
            cost = service.ok("GET", "/v1/usage?group_by=connection")["data"][0]
            assert cost["billable_queries"] > 0


def test_compose_accepts_its_file() -> None:
    """By the program itself where it is; it needs no engine for that."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert set(services) == {"api", "worker-1", "worker-2", "postgres", "sandbox"}
    asked = [["docker", "compose"], ["docker-compose"]]
    found = [line for line in asked if shutil.which(line[0]) and not subprocess.call([*line, "version"])]
    if not found:
        pytest.skip("NOT TESTED BY COMPOSE: docker compose is not installed")
    environment = os.environ | {"REPROG_SECRET_KEY": "k" * 32}
    line = [*found[0], "-f", str(ROOT / "docker-compose.yml"), "config"]
    run = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    shown = yaml.safe_load(run.stdout)["services"]
    assert shown["api"]["command"] == ["reprog", "serve"]
    assert "REPROG_SECRET_KEY" in shown["worker-1"]["environment"]
