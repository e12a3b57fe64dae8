"""The session: a key, sealed into a cookie. Nothing is kept here; revoking the key ends the session."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response

from app.errors import BadRequest
from app.storage.secrets import Vault

NAME = "reprog_session"
LASTS = 12 * 3600  # seconds


def put(answer: Response, vault: Vault, key: str, *, secure: bool) -> None:
    """Sign in."""
    token = vault.seal(f"{int(time.time()) + LASTS}:{key}".encode()).decode()
    answer.set_cookie(NAME, token, max_age=LASTS, httponly=True, samesite="strict", secure=secure)


def drop(answer: Response) -> None:
    """Sign out."""
    answer.delete_cookie(NAME, httponly=True, samesite="strict")


def key_of(request: Request, vault: Vault) -> str | None:
    """The key in the cookie; None without one, for one that is not ours and after its time."""
    token = request.cookies.get(NAME)
    if not token:
        return None
    try:
        until, _, key = vault.open(token.encode(errors="replace")).decode().partition(":")
        return key if int(until) > time.time() else None
    except (BadRequest, ValueError):
        return None
