"""A real browser before a real service and sandbox. Debian's Chromium, driven by playwright.

Without them the tests skip, and fail where CI is set. Screenshots go to REPROG_TEST_SHOTS, by default
artifacts/screenshots.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service import Service

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
MISSING = "/jobs/job_none"  # the one page that is meant to be missing
SLOW = 90_000  # milliseconds a job may take on a busy machine
SHOTS = Path(os.environ.get("REPROG_TEST_SHOTS") or Path(__file__).parents[2] / "artifacts" / "screenshots")


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

    def hear(said: Any) -> None:
        if said.type == "error" and MISSING not in said.location.get("url", ""):
            complaints.append(said.text)

    page.on("console", hear)
    page.set_default_timeout(15_000)
    yield page
    context.close()
    assert strangers == []
    assert complaints == []


def sign_in(page: Any, service: Service) -> None:
    """With the key that the service printed when it was first started."""
    page.goto("/login")
    page.get_by_label("Key").fill(first_key(service))
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Overview").wait_for()


def first_key(service: Service) -> str:
    return re.findall(r"shown this once[^:]*: (rk_\S+)", service.log())[0]


def shoot(page: Any, name: str) -> None:
    """Keep a picture of the whole page."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(SHOTS / f"{name}.png"), full_page=True)


def through(page: Any) -> None:
    """Down the page and up again, so that everything that waits to be seen has come."""
    height = page.evaluate("document.documentElement.scrollHeight")
    for place in range(0, height, 700):
        page.evaluate(f"window.scrollTo(0, {place})")
        page.wait_for_timeout(60)
    page.wait_for_load_state("networkidle")
    page.evaluate("window.scrollTo(0, 0)")
