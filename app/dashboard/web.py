"""What every page shares: templates, policy, who is looking, and errors as pages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, cast
from urllib.parse import quote, urlencode

import orjson
from fastapi import APIRouter, Depends, Request, params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app import __version__
from app.api import auth, problems
from app.api.deps import Services, services
from app.dashboard import cookie, happenings, words
from app.errors import BadRequest, Forbidden, ReprogError, Unauthorised
from app.storage.keys import KeyRecord

HERE = Path(__file__).parent
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",  # with `no-referrer` browsers would hide the Origin of our own forms
    "Cache-Control": "no-store",
    "Vary": "HX-Request",
}

_templates = Environment(
    loader=FileSystemLoader(HERE / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
_templates.filters.update({**words.FILTERS, **happenings.FILTERS})
cast("dict[str, Any]", _templates.globals).update(version=__version__, **words.GLOBALS)


def render(request: Request, template: str, code: int = 200, /, **values: object) -> HTMLResponse:
    """A page. Templates know the request's path and who is looking."""
    caller: KeyRecord | None = getattr(request.state, "caller", None)
    known = {
        "path": request.url.path,
        "query": request.url.query,
        "caller": caller,
        "host": str(request.base_url).rstrip("/"),
    }
    return HTMLResponse(_templates.get_template(template).render(**known, **values), code, _HEADERS)


def see(path: str, **query: object) -> RedirectResponse:
    """After a form: go and look at `path`."""
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return RedirectResponse(
        f"{path}?{urlencode(given)}" if given else path, 303, {"Cache-Control": "no-store"}
    )


def partial(request: Request) -> bool:
    """Whether a script asked for a part of a page."""
    return request.headers.get("hx-request") == "true"


# ---------------------------------------------------------------- who is looking


def visitor(scope: str) -> params.Depends:
    """A page's dependency: who is looking has `scope`. Raises Unauthorised, Forbidden."""
    return params.Depends(_checker(scope))


def _checker(scope: str) -> Callable[..., Coroutine[Any, Any, KeyRecord]]:
    async def check(request: Request, wired: Annotated[Services, Depends(services)]) -> KeyRecord:
        caller = await _identify(request, wired)
        request.state.caller = caller
        auth.demand(caller, scope)
        return caller

    return check


async def _identify(request: Request, wired: Services) -> KeyRecord:
    """Raises Unauthorised, and Forbidden for a form that does not say which page it came from (the edge has
    refused those of other sites)."""
    if request.method != "GET" and "origin" not in request.headers:
        raise Forbidden("The form does not say which page it came from.", code="cross_origin")
    if wired.settings.auth == "off":
        return auth.LOCAL
    key = cookie.key_of(request, wired.vault)
    found = None if key is None else await asyncio.to_thread(wired.keys.verify, key)
    if found is None:
        raise Unauthorised(
            "Sign in first.", hint="The first key was printed when the service was first started."
        )
    return found


# ---------------------------------------------------------------- errors


class PageRoute(APIRoute):
    """Errors of a page are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await answer(request)
            except Unauthorised as error:
                if request.method == "GET" and not partial(request):
                    return see("/login", next=request.url.path)
                return problem(request, error)
            except RequestValidationError as error:
                return problem(request, problems.translate(error.errors(), ""))
            except ReprogError as error:
                return problem(request, error)

        return handler


def problem(request: Request, error: ReprogError) -> HTMLResponse:
    """The error as a page, or as a part of one."""
    template = "_problem.html" if partial(request) else "problem.html"
    return render(request, template, error.status, problem=error)


def router() -> APIRouter:
    return APIRouter(include_in_schema=False, route_class=PageRoute)


# ---------------------------------------------------------------- forms

_Body = Any


def body(kind: type[BaseModel], values: dict[str, Any]) -> _Body:
    """The body of a REST call from a form's values. Raises the same error as the REST call would."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise problems.translate(error.errors(), "") from error


def document(text: str, param: str, example: str) -> dict[str, Any]:
    """A JSON object that was typed; {} for nothing. Raises BadRequest."""
    try:
        found = orjson.loads(text) if text.strip() else {}
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"{param} is not JSON: {error}.", param=param, hint=f"Like {example}.") from error
    if not isinstance(found, dict):
        raise BadRequest(f"{param} is no JSON object.", param=param, hint=f"Like {example}.")
    return cast("dict[str, Any]", found)


def money(typed: str, currency: str) -> dict[str, str] | None:
    """An amount that was typed, as REST takes it; None for nothing."""
    return {"amount": typed.strip(), "currency": currency} if typed.strip() else None


def utc(typed: str) -> str:
    """A form's date and time, which has no zone: it is UTC."""
    return typed if typed.endswith("Z") else f"{typed}Z"


def text(form: FormData, name: str) -> str:
    """A form's text member, without blanks around it; "" when absent."""
    value = form.get(name)
    return value.strip() if isinstance(value, str) else ""


def segment(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")
