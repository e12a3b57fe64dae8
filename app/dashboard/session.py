"""Signing in and out."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from app.api.deps import Wired
from app.dashboard import cookie, web
from app.errors import Forbidden, Unauthorised

router = APIRouter(include_in_schema=False)


@router.get("/login")
def ask(request: Request, wired: Wired, next: str = "/") -> Response:
    """The form that takes a key."""
    if wired.settings.auth == "off":
        return web.see("/")
    return web.render(request, "login.html", next=_ours(next))


@router.post("/login")
async def sign_in(
    request: Request, wired: Wired, key: Annotated[str, Form()] = "", next: Annotated[str, Form()] = "/"
) -> Response:
    """Seal the key into the cookie when it is valid."""
    if "origin" not in request.headers:
        return web.problem(
            request, Forbidden("The form does not say which page it came from.", code="cross_origin")
        )
    found = await asyncio.to_thread(wired.keys.verify, key.strip())
    if found is None or not found.may("read"):
        error = Unauthorised(
            "The key is unknown, revoked or may not read.", hint="Paste it whole; it starts with rk_."
        )
        return web.render(request, "login.html", 401, next=_ours(next), problem=error)
    answer = web.see(_ours(next))
    cookie.put(answer, wired.vault, key.strip(), secure=request.url.scheme == "https")
    return answer


@router.post("/logout")
def sign_out(request: Request) -> Response:
    """Forget the cookie."""
    answer = web.see("/login")
    cookie.drop(answer)
    return answer


def _ours(path: str) -> str:
    """A path of this service, never another site's address."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"
