"""The whole story in a real browser: upload, quote, job against the sandbox, watch, try a picture.

Needs pip `playwright` and a Chromium (Debian's, or REPROG_TEST_CHROMIUM). Without them the tests skip, and
fail where CI is set. Screenshots go to REPROG_TEST_SHOTS when that is set.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from service import Service, free_port, running_service

from app.jobs.samples import write_digits_zip

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
SLOW = 90_000  # milliseconds a job may take on a busy machine

pytestmark = pytest.mark.timeout(300)


def _missing(what: str) -> None:
    message = f"NOT TESTED IN A BROWSER: {what}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = os.environ.get("REPROG_TEST_CHROMIUM") or shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("pip install playwright")
    if chromium is None:
        _missing("apt-get install chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, headless=True, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[str]:
    port = free_port()
    line = [
        sys.executable,
        "-m",
        "app.cli",
        "sandbox",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--size",
        "128",
    ]
    child = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                if httpx.get(f"{url}/healthz", trust_env=False).is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        httpx.post(f"{url}/faults", json={"rate_limit_rps": 0}, trust_env=False).raise_for_status()
        yield url
    finally:
        child.terminate()
        child.wait(15)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@contextmanager
def visit(browser: Any, service: Service, **options: Any) -> Iterator[Any]:
    """A page that may reach this service alone; what the browser complains of fails the test."""
    home = f"http://127.0.0.1:{service.port}"
    context = browser.new_context(base_url=home, **options)
    strangers: list[str] = []
    complaints: list[str] = []

    def let(route: Any) -> None:
        if route.request.url.startswith(home):
            route.continue_()
        else:
            strangers.append(route.request.url)
            route.abort()

    context.route("**/*", let)
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.set_default_timeout(15_000)
    yield page
    context.close()
    assert strangers == []
    assert complaints == []


def shoot(page: Any, name: str) -> None:
    if folder := os.environ.get("REPROG_TEST_SHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def test_the_story(browser: Any, service: Service, sandbox: str, tmp_path: Path) -> None:
    write_digits_zip(tmp_path / "digits.zip", 300)
    with visit(browser, service) as page:
        _connect(page, sandbox)
        page.set_input_files("input[name=file]", tmp_path / "digits.zip")
        page.get_by_role("button", name="Upload and check").click()
        page.get_by_role("heading", name="How I read your labels").wait_for()
        assert "300" in page.locator(".stats").first.inner_text()
        shoot(page, "data")
        page.get_by_role("link", name="Continue to method").click()
        _choose(page)
        page.get_by_role("button", name="Start").click()
        page.wait_for_url("**/jobs/job_*")
        page.locator("#live .state.good").wait_for(timeout=SLOW)  # the page follows by itself
        _look(page)
        page.get_by_role("link", name="Try it: digits").click()
        page.locator("button[name=sample]").first.click()
        page.locator("#answer .scores li").first.wait_for()
        assert "paid" in page.locator("#answer").inner_text()
        shoot(page, "endpoint")
    job = service.ok("GET", "/v1/jobs")["data"][0]
    bill = httpx.get(f"{sandbox}/bill", trust_env=False).json()
    spent = service.ok("GET", f"/v1/connections/{job['connection_id']}")["spent"]["amount"]
    assert float(spent) == pytest.approx(bill["amount"] / 1e6)


def _connect(page: Any, sandbox: str) -> None:
    page.goto("/new")
    page.get_by_role("link", name="Add a connection").click()
    page.get_by_label("Address").fill(sandbox)
    page.get_by_label("user_id").fill("clarifai")
    page.get_by_label("app_id").fill("main")
    page.get_by_label("model_id").fill("moderation-recognition-128")
    page.get_by_label("Secret").fill("sandbox-browser")
    page.get_by_label("Requests per second").fill("1000")
    shoot(page, "connection")
    page.get_by_role("button", name="Save connection").click()
    page.wait_for_url("**/new/data?*")


def _choose(page: Any) -> None:
    page.get_by_label("Most queries").fill("900")
    page.get_by_label("Publish as endpoint").fill("digits")
    page.get_by_label("Other methods").or_(page.get_by_text("Other methods")).first.click()
    page.get_by_text("Random views").click()
    page.get_by_text("Options of the method").click()
    page.locator("#options").fill('{"size": 128}')
    page.locator("#quote").get_by_text("of 900 allowed").wait_for()
    shoot(page, "method")
    page.get_by_role("button", name="Review").click()
    page.get_by_role("heading", name="The same from a shell").wait_for()
    shoot(page, "review")


def _look(page: Any) -> None:
    page.get_by_role("heading", name="Is it worth it?").wait_for()
    page.locator("[data-chart=accuracy] canvas").wait_for()
    page.get_by_role("button", name="Queries", exact=True).click()
    page.get_by_role("heading", name="Before and after").scroll_into_view_if_needed()
    page.locator(".strip img").first.wait_for()
    page.locator(".confusion a").first.click()
    page.locator("#cell img").first.wait_for()
    page.get_by_role("heading", name="To reproduce it").scroll_into_view_if_needed()
    page.locator("svg.reliability").wait_for()
    shoot(page, "job")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_the_screen(browser: Any, service: Service, scheme: str, width: int) -> None:
    with visit(browser, service, viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
        for path in ("/", "/jobs", "/datasets", "/endpoints", "/connections", "/new", *_filled(service)):
            page.goto(path)
            beyond = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert page.evaluate(beyond) == 0, path
            shoot(page, f"{path.strip('/').replace('/', '-') or 'overview'}-{width}-{scheme}")


def _filled(service: Service) -> list[str]:
    """Pages of what the story left behind, if it ran."""
    lists = {name: service.ok("GET", f"/v1/{name}")["data"] for name in ("jobs", "datasets", "connections")}
    return [f"/{name}/{found[0]['id']}" for name, found in lists.items() if found]


def test_without_a_script_forms_work(browser: Any, service: Service, tmp_path: Path) -> None:
    write_digits_zip(tmp_path / "plain.zip", 100)
    with visit(browser, service, java_script_enabled=False) as page:
        page.goto("/datasets")
        page.set_input_files("input[name=file]", tmp_path / "plain.zip")
        page.get_by_role("button", name="Upload and check").click()
        page.get_by_role("heading", name="plain").wait_for()
        page.get_by_label("Class", exact=True).select_option("3")
        page.get_by_role("button", name="Show").click()
        assert page.locator(".thumbs img").count() >= 1
