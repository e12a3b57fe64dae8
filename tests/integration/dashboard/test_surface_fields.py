"""Every parameter and every member of a body that REST takes is a field, a link or a box of a page, or it is
said here why not. A new one that is neither fails."""

from __future__ import annotations

import re
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qsl, urlsplit

import pytest
from rest_fields import body_fields, operations, query_fields
from starlette.routing import Match, Route
from test_pages import pages
from test_surface import PAGES, WITHOUT

DASHBOARD = Path(__file__).parents[3] / "app" / "dashboard"

#: (operation, field) -> what the page calls it, where that is not the field's own name or its last part.
CALLED = {
    ("POST /v1/connections", "price.per_1000"): "price",
    ("POST /v1/connections", "model"): "model.model_id",
    ("PATCH /v1/connections/{connection_id}", "price.per_1000"): "price",
    ("POST /v1/jobs", "method.type"): "method",
    ("POST /v1/jobs", "method.*"): "options",
    ("POST /v1/jobs", "publish.name"): "publish",
    ("POST /v1/jobs/quote", "method.type"): "method",
    ("POST /v1/jobs/quote", "method.*"): "options",
    ("POST /v1/jobs/quote", "publish.name"): "publish",
    ("POST /v1/jobs/{job_id}/evaluations", "mapping.type"): "head",
    ("PATCH /v1/endpoints/{name}", "canary.every_seconds"): "canary_minutes",
    ("POST /v1/keys", "scopes"): "scope",
    ("POST /v1/keys", "limits.requests_per_second"): "rate",
    ("PATCH /v1/keys/{key_id}", "limits.requests_per_second"): "rate",
}
#: Operations whose fields lie in more than one form.
MORE = {
    "PATCH /v1/connections/{connection_id}": {"POST /connections/{connection_id}/secret"},
    "PATCH /v1/jobs/{job_id}": {"POST /jobs/{job_id}/name"},
    "GET /v1/audit": {"GET /audit.csv"},
    "GET /v1/jobs/{job_id}/metrics": {"GET /jobs/{job_id}"},
    "POST /v1/jobs": {"GET /new/review"},  # which carries every choice on
}
#: (operation, field), or a field alone for all of them -> why no page has it.
NOT_ON_A_PAGE: dict[tuple[str, str] | str, str] = {
    "limit": "a page has a length of its own",
    ("GET /v1/audit", "format"): "the page is the one, its link to CSV the other",
    ("GET /v1/jobs/{job_id}/queries", "format"): "the page shows the newest, its link is the CSV",
    ("GET /v1/jobs/{job_id}/queries", "after"): "the CSV has all lines",
    ("GET /v1/jobs/{job_id}/checkpoints", "after"): "shown spread evenly from first to last",
    ("GET /v1/jobs/{job_id}/evaluations", "after"): "the newest hundred are shown",
    ("GET /v1/jobs/{job_id}/metrics", "points"): "as many as a chart can show",
    ("PATCH /v1/connections/{connection_id}", "price.currency"): "REST refuses another one",
}
#: (operation, field) -> (file, what makes the field there) where the pages of this test do not need it.
MADE_WHEN_NEEDED = {
    ("POST /v1/datasets", "label"): ("static/app.js", 'name: "label"'),  # for several single images
    ("POST /v1/endpoints/{name}/predict", "inputs"): (
        "templates/endpoint.html",
        '<textarea id="inputs" name',
    ),
    ("GET /v1/jobs/{job_id}/samples/{n}.png", "view"): ("templates/_strip.html", ".webp?view="),
    ("GET /v1/jobs/{job_id}/samples/{n}.png", "checkpoint_id"): (
        "templates/_strip.html",
        "&amp;checkpoint_id=",
    ),
}


class Controls(HTMLParser):
    """(METHOD, path) -> names that forms send there and links ask there with."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._form: tuple[str, str] | None = None
        self._named: dict[str, tuple[str, str]] = {}  # a form's id -> where it goes
        self._borrowed: list[tuple[str, str]] = []  # (address, id of the form that fills it)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._form = given.get("method", "get").upper(), self._asked("", given.get("action", ""))
            self._asked(self._form[0], given.get("action", ""))
            if "id" in given:
                self._named[given["id"]] = self._form
        elif given.get("name") and self._form and tag in ("input", "select", "textarea", "button"):
            self.found[self._form].add(given["name"])
        for name in ("href", "src", "hx-get", "data-stream"):
            if given.get(name, "").startswith("/"):
                self._asked("GET", given[name])
        if "hx-include" in given:
            self._borrowed.append((given["hx-get"], given["hx-include"].removeprefix("#")))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None

    def _asked(self, method: str, url: str) -> str:
        parts = urlsplit(url)
        if method:
            self.found[method, parts.path] |= {name for name, _ in parse_qsl(parts.query, True)}
        return parts.path

    def close(self) -> None:
        super().close()
        for address, form in self._borrowed:
            self.found["GET", address] |= self.found[self._named[form]]


def route_of(full: SimpleNamespace, method: str, path: str) -> Route | None:
    scope = {"type": "http", "method": method, "path": path, "headers": []}
    for part in full.place.pages():
        for route in part.routes:
            if isinstance(route, Route) and route.matches(scope)[0] is Match.FULL:
                return route
    return None


@pytest.fixture
async def offered(full: SimpleNamespace) -> dict[str, set[str]]:
    """`METHOD /path/{of}/a/page` -> what can be said to it there."""
    place = full.place
    spare, hook = place.connection(), place.house.webhooks.create("hook", "http://127.0.0.1:9/", [])[0].id
    place.house.keys.create("ci", ["read"])
    paths = [*pages(full), f"/jobs/{full.fresh}", "/webhooks", f"/webhooks/{hook}", "/audit?action=x"]
    found: dict[str, set[str]] = defaultdict(set)
    async with place.client() as client:
        for path in [*paths, f"/connections/{spare}"]:
            controls = Controls()
            controls.feed((await client.get(path)).text)
            controls.close()
            for (method, address), names in controls.found.items():
                if route := route_of(full, method, address):
                    found[f"{method} {route.path}"] |= names
    for part in place.pages():  # the link to the next page is there when there is one
        for route in part.routes:
            dependant = getattr(route, "dependant", None)
            if dependant and any(one.name == "after" for one in dependant.query_params):
                found[f"GET {route.path}"].add("after")
    return found


def names_of(operation: str, field: str) -> set[str]:
    told = CALLED.get((operation, field))
    return {told} if told else {field, field.rpartition(".")[2], field.replace(".", "_")}


def test_everything_that_can_be_said_to_rest_can_be_said_on_a_page(offered: dict[str, set[str]]) -> None:
    missing: dict[str, list[str]] = {}
    for operation in sorted(operations()):
        if any(re.fullmatch(rule, operation) for rule in WITHOUT):
            continue
        there = set[str]().union(*(offered[page] for page in {PAGES[operation], *MORE.get(operation, ())}))
        for field in query_fields(operation) | body_fields(operation):
            if field in NOT_ON_A_PAGE or (operation, field) in NOT_ON_A_PAGE:
                continue
            if (operation, field) not in MADE_WHEN_NEEDED and not names_of(operation, field) & there:
                missing.setdefault(f"{operation} at {PAGES[operation]}", []).append(field)
    assert missing == {}


def test_no_exception_has_outlived_its_field() -> None:
    fields = {(op, field) for op in operations() for field in query_fields(op) | body_fields(op)}
    listed = {*CALLED, *NOT_ON_A_PAGE, *MADE_WHEN_NEEDED}
    known = fields | {field for _, field in fields}
    assert {one for one in listed if one not in known} == set()
    for file, text in MADE_WHEN_NEEDED.values():
        assert text in (DASHBOARD / file).read_text(), (file, text)
