"""What pages offer to copy, run as it is shown, with a key, against the service."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from service import Service
from stage import first_key

CLIENTS = Path(__file__).parents[2] / ".venv-clients" / "bin" / "python"

pytestmark = pytest.mark.timeout(300)
TITLES = ("curl", "Python", "Hugging Face", "Azure Custom Vision", "Clarifai", "Open Inference Protocol v2")


@pytest.fixture
def pages(service: Service) -> httpx.Client:
    """Somebody signed in."""
    home = f"http://127.0.0.1:{service.port}"
    client = httpx.Client(base_url=home, trust_env=False, headers={"origin": home}, timeout=60)
    client.post("/login", data={"key": first_key(service)})
    return client


SHOWN = re.compile(r'<h3>((?:(?!</h3>).)*)</h3><div class="copy"><pre([^>]*)>(.*?)</pre>', re.DOTALL)


def snippets(page: str) -> dict[str, tuple[str, str]]:
    """Title -> (language, text)."""
    found: dict[str, tuple[str, str]] = {}
    for title, attributes, text in SHOWN.findall(page):
        words = re.sub(r"<small>.*?</small>|<[^>]+>", "", title).strip()
        found[words] = ("python" if "python" in attributes else "sh", html.unescape(text))
    return found


def run(language: str, text: str, folder: Path, key: str, python: str = sys.executable) -> str:
    line = ["bash", "-euo", "pipefail", "-c", text] if language != "python" else [python, "-c", text]
    environment = os.environ | {"REPROG_API_KEY": key, "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        line, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("title", TITLES)
def test_lines_of_an_endpoint_answer_as_they_are(
    service: Service, filled: dict[str, str], pages: httpx.Client, tmp_path: Path, title: str
) -> None:
    shown = snippets(pages.get(filled["endpoint"]).text)
    assert tuple(shown) == TITLES
    language, text = shown[title]
    data = service.ok("GET", "/v1/datasets")["data"][-1]["id"]
    image = service.client.get(f"/v1/datasets/{data}/items/3/image").content
    (tmp_path / "image.png").write_bytes(image)
    python = sys.executable
    if title == "Hugging Face":
        if not CLIENTS.exists():
            message = "NOT TESTED: huggingface_hub is not installed: make clients"
            (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
        python = str(CLIENTS)
    answer = run(language, text, tmp_path, first_key(service), python)
    asked = {"content": image, "headers": {"content-type": "image/png"}}
    best = service.ok("POST", "/v1/endpoints/two-views/predict", **asked)[0]["label"]
    assert re.search(rf"[\"']{best}[\"']", answer), answer


def test_the_review_says_the_same_in_curl_and_yaml(
    service: Service, filled: dict[str, str], pages: httpx.Client, tmp_path: Path
) -> None:
    page = pages.get(filled["new-4-review"]).text
    shown = snippets(page)
    made = run("sh", shown["curl"][1], tmp_path, first_key(service))
    job = re.findall(r'"id":\s*"(job_\w+)"', made)[0]
    yaml = next(text for title, (_, text) in shown.items() if title.startswith("YAML"))
    (tmp_path / "job.yaml").write_text(yaml)
    environment = os.environ | {
        "REPROG_URL": f"http://127.0.0.1:{service.port}",
        "REPROG_API_KEY": first_key(service),
    }
    line = [sys.executable, "-m", "app.cli", "jobs", "create", "-f", str(tmp_path / "job.yaml"), "--watch"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    twin = re.findall(r'"id": "(job_\w+)"', done.stdout)[0]
    same = ("name", "seed", "method", "limits", "connection_id", "dataset_id", "publish")
    one, other = (service.ok("GET", f"/v1/jobs/{ident}") for ident in (job, twin))
    assert {name: one[name] for name in same} == {name: other[name] for name in same}
