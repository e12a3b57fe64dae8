"""The whole story in a real browser: sign in, connect, upload, quote, watch, look, try a picture."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from service import Service
from stage import SLOW, shoot, sign_in, visit

from app.jobs.samples import write_digits_zip

pytestmark = pytest.mark.timeout(300)


def test_the_story(browser: Any, service: Service, sandbox: str, tmp_path: Path) -> None:
    write_digits_zip(tmp_path / "digits.zip", 300)
    with visit(browser, service) as page:
        sign_in(page, service)
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
    assert float(spent) == pytest.approx(bill["keys"]["sandbox-browser"]["billable_queries"] * 0.0012)


def _connect(page: Any, sandbox: str) -> None:
    page.goto("/new")
    page.get_by_role("link", name=re.compile("Add a(nother)? connection")).click()
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
    page.get_by_role("link", name="Queries", exact=True).click()
    page.get_by_role("heading", name="Before and after").scroll_into_view_if_needed()
    page.locator(".strip img").first.wait_for()
    page.locator(".confusion a").first.click()
    page.locator("#cell img").first.wait_for()
    page.get_by_role("heading", name="Do scores mean what they say?").scroll_into_view_if_needed()
    page.locator("svg.reliability").wait_for()
    page.get_by_label("Head").select_option("linear")
    page.get_by_role("button", name="Fit and judge").click()
    page.locator("#heads tbody tr").wait_for()  # for nothing, so the bill below still agrees
    shoot(page, "job")


def test_single_images_get_a_label_each(browser: Any, service: Service, tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(12)]
    for n, path in enumerate(paths):
        Image.new("RGB", (8, 8), (20 * n, 40, 60)).save(path)
    with visit(browser, service) as page:
        sign_in(page, service)
        page.goto("/datasets")
        page.set_input_files("input[name=file]", paths)
        for n, path in enumerate(paths):
            page.get_by_label(f"Label of {path.name}", exact=True).fill("cat" if n % 2 else "dog")
        page.get_by_text("How to read it").click()
        page.get_by_label("Name").fill("twelve")
        page.get_by_label("Colour under transparent pixels").fill("black")
        shoot(page, "single-images")
        page.get_by_role("button", name="Upload and check").click()
        page.get_by_role("heading", name="twelve").wait_for()
    data = service.ok("GET", "/v1/datasets")["data"][0]
    assert (data["name"], data["classes"], data["items"]) == ("twelve", ["cat", "dog"], 12)
    report = service.ok("GET", f"/v1/datasets/{data['id']}/report")
    assert report["image_sizes"]["background"] == "#000000"


def test_a_connections_test_says_what_more_it_was_asked_and_what_that_cost(
    browser: Any, service: Service, filled: dict[str, str]
) -> None:
    with visit(browser, service) as page:
        sign_in(page, service)
        page.goto(filled["connection"])
        page.get_by_label("Does it resize or re-compress images?").check()
        page.get_by_label("Send the same image again, times").fill("2")
        page.get_by_role("button", name="Test, from").click()
        page.get_by_text("Resizes images").wait_for()
        said = page.locator("#test").inner_text()
        shoot(page, "connection-tested")
    asked = int(re.findall(r"(\d+) queries for", said)[0])
    assert asked in (6, 7)  # one, two repeats, three or four probes
    assert f"for ${asked * 0.0012:.4f}" in said
    assert "2 times: every score the same" in said


def test_a_page_that_follows_a_job_brings_all_of_it_up_to_date(
    browser: Any, service: Service, sandbox: str, tmp_path: Path
) -> None:
    write_digits_zip(tmp_path / "slow.zip", 200)
    connection, data = service.connect(sandbox), service.upload(tmp_path / "slow.zip")
    limits = {"requests_per_second": 2, "concurrency": 1, "max_batch": 32}
    service.ok("PATCH", f"/v1/connections/{connection['id']}", json={"limits": limits})
    with visit(browser, service) as page:
        sign_in(page, service)
        job = service.create(connection, data, name="Slow", method={"type": "views", "size": 128})
        page.goto(f"/jobs/{job['id']}")
        # Loaded with nothing asked; the requests below and what was paid come by themselves.
        page.get_by_role("cell", name="first pass over the images").first.wait_for()
        assert page.locator("#live .stat b").nth(1).inner_text() != "0"
        assert not [said for said in page.locator("#logs time").all_inner_texts() if "UTC" in said]
    service.ok("POST", f"/v1/jobs/{job['id']}/cancel")
