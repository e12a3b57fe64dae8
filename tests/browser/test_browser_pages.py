"""Every page in a real browser, signed in: axe, light and dark, narrow and wide, without a script, weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from service import Service
from stage import shoot, sign_in, through, visit

from app.jobs.samples import write_digits_zip

WEIGHT = 300_000  # bytes of a page with all it loads
BEYOND = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
LOADED = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .reduce((sum, one) => sum + one.encodedBodySize, 0)"""

OPENED = "[...document.querySelectorAll('main details')].slice(0, 30).forEach((one) => (one.open = true))"

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_breaks_a_rule_of_axe(
    browser: Any, service: Service, filled: dict[str, str], scheme: str
) -> None:
    found: dict[str, str] = {}

    def judge(name: str) -> None:
        shoot(page, f"{name}-wide-{scheme}")
        page.evaluate(OPENED)
        result = Axe().run(page)
        if result.violations_count:
            found[name] = result.generate_report()

    with visit(browser, service, viewport={"width": 1280, "height": 800}, color_scheme=scheme) as page:
        page.goto("/login")
        judge("login")
        sign_in(page, service)
        for name, path in filled.items():
            page.goto(path)
            through(page)
            judge(name)
    assert found == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_a_telephone(
    browser: Any, service: Service, filled: dict[str, str], scheme: str
) -> None:
    with visit(browser, service, viewport={"width": 390, "height": 800}, color_scheme=scheme) as page:
        sign_in(page, service)
        for name, path in filled.items():
            page.goto(path)
            shoot(page, f"{name}-narrow-{scheme}")
            assert page.evaluate(BEYOND) == 0, path


def test_every_page_with_all_it_loads_is_light(
    browser: Any, service: Service, filled: dict[str, str]
) -> None:
    weights: dict[str, int] = {}
    for name, path in filled.items():
        with visit(browser, service) as page:  # a browser that has seen nothing yet
            sign_in(page, service)
            page.goto(path)
            through(page)
            weights[name] = page.evaluate(LOADED)
    assert {name: weight for name, weight in weights.items() if weight >= WEIGHT} == {}


def test_every_page_reads_without_a_script(browser: Any, service: Service, filled: dict[str, str]) -> None:
    with visit(browser, service, java_script_enabled=False) as page:
        sign_in(page, service)
        for name, path in filled.items():
            page.goto(path)
            assert page.locator("h1").inner_text(), path
            assert page.locator("#main").inner_text().strip(), path
            # What a script would fetch is a link, or is there already.
            for part in page.locator("[hx-get][hx-trigger]").all():
                assert part.locator("a, table, .note").count(), path
            for chart in page.locator(".chart:visible").all():
                assert chart.locator("svg, p").count(), path
            shoot(page, f"{name}-without-script")
        assert page.goto(filled["compare"]).ok
        assert page.locator(".chart svg.curves polyline").count() == 1  # the baseline job learns nothing
        page.get_by_role("link", name="Queries", exact=True).click()
        page.get_by_text("queries paid", exact=True).wait_for()
        page.get_by_role("link", name="What each program says of the same test images").click()
        assert page.locator("tbody tr").count() >= 4


def test_without_a_script_forms_work(browser: Any, service: Service, tmp_path: Path) -> None:
    write_digits_zip(tmp_path / "plain.zip", 100)
    with visit(browser, service, java_script_enabled=False) as page:
        sign_in(page, service)
        page.goto("/datasets")
        page.set_input_files("input[name=file]", tmp_path / "plain.zip")
        page.get_by_role("button", name="Upload and check").click()
        page.get_by_role("heading", name="plain").wait_for()
        page.get_by_label("Class", exact=True).select_option("3")
        page.get_by_role("button", name="Show").click()
        assert page.locator(".thumbs img").count() >= 1


def test_by_keyboard_alone(browser: Any, service: Service, filled: dict[str, str]) -> None:
    with visit(browser, service) as page:
        sign_in(page, service)
        page.goto(filled["jobs"])
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.goto(filled["job"])
        slider = page.get_by_label("Evolution")
        slider.focus()
        before = page.locator("#program-image").get_attribute("src")
        page.keyboard.press("Home")
        assert page.locator("#program-image").get_attribute("src") != before
        said = page.locator("#program-said").inner_text()
        assert said.startswith("step")
        page.locator(".confusion a").first.focus()
        page.keyboard.press("Enter")
        page.locator("#cell img").first.wait_for()
