"""Every page in a real browser, signed in: axe, light and dark, narrow and wide, without a script, weight."""

from __future__ import annotations

from dataclasses import dataclass, field
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
SCHEMES = ("light", "dark")
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 800}

pytestmark = pytest.mark.timeout(300)


@dataclass
class Walk:
    """What a reader found who opened every page once."""

    broken: dict[str, str] = field(default_factory=dict)  # page and scheme -> axe's report
    beyond: dict[str, int] = field(default_factory=dict)  # page and scheme -> pixels beside a telephone
    weights: dict[str, int] = field(default_factory=dict)  # page -> bytes with all it loads

    def look(self, page: Any, name: str) -> None:
        """At a page that has loaded: weight, both schemes, wide and narrow, every rule of axe."""
        self.weights[name] = page.evaluate(LOADED)
        for size, viewport in (("wide", WIDE), ("narrow", NARROW)):
            page.set_viewport_size(viewport)
            for scheme in SCHEMES:
                page.emulate_media(color_scheme=scheme)
                shoot(page, f"{name}-{size}-{scheme}")
                if size == "narrow":
                    self.beyond[f"{name} {scheme}"] = page.evaluate(BEYOND)
        page.set_viewport_size(WIDE)
        page.evaluate(OPENED)
        for scheme in reversed(SCHEMES):
            page.emulate_media(color_scheme=scheme)
            result = Axe().run(page)
            if result.violations_count:
                self.broken[f"{name} {scheme}"] = result.generate_report()


@pytest.fixture(scope="module")
def walk(browser: Any, service: Service, filled: dict[str, str]) -> Walk:
    """One browser, one load of each page."""
    found = Walk()
    with visit(browser, service, viewport=WIDE) as page:
        page.goto("/login")
        found.look(page, "login")
        sign_in(page, service)
        for name, path in filled.items():
            page.goto(path)
            through(page)
            found.look(page, name)
    assert len(found.weights) == len(filled) + 1
    return found


def test_no_page_breaks_a_rule_of_axe_in_either_scheme(walk: Walk) -> None:
    assert walk.broken == {}


def test_every_page_fits_a_telephone(walk: Walk) -> None:
    assert {page: pixels for page, pixels in walk.beyond.items() if pixels} == {}


def test_every_page_with_all_it_loads_is_light(walk: Walk) -> None:
    assert min(walk.weights.values()) > 10_000, "loaded from a cache, the style sheet counts as well"
    assert {name: weight for name, weight in walk.weights.items() if weight >= WEIGHT} == {}


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
            if name in ("job", "compare"):
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
