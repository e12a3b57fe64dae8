"""Who is asking, and may they: bearer keys with scopes, or nobody on a loopback address."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, params
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.api.deps import Services, services
from app.errors import BadRequest, Forbidden, RateLimited, Unauthorised
from app.storage.keys import SCOPES, KeyRecord

LOCAL = KeyRecord("local", "local", "", SCOPES, 0.0, None, None)  # REPROG_AUTH=off: whoever can reach us
_scheme = HTTPBearer(auto_error=False, description="A key of POST /v1/keys. Not needed with REPROG_AUTH=off.")


def refuse_open_door(auth: str, host: str) -> None:
    """Raises BadRequest for `off` on an address that others can reach."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if auth == "off" and not loopback:
        raise BadRequest(
            f"REPROG_AUTH=off is refused on {host or 'every address'}: anybody could spend your money.",
            code="auth_required",
            param="REPROG_AUTH",
            hint="Set REPROG_AUTH=keys, or REPROG_HOST=127.0.0.1.",
        )


async def identify(request: Request, wired: Services) -> KeyRecord:
    """The key of a request, looked up once. Raises Unauthorised."""
    if wired.settings.auth == "off":
        return LOCAL
    if (known := getattr(request.state, "caller", None)) is not None:
        return known
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not key.strip():
        raise Unauthorised("A key is needed.", hint="Send Authorization: Bearer <key>.")
    found = await recognise(request, wired, key.strip())
    if found is None:
        raise Unauthorised("The key is unknown or revoked.", hint="Ask for a new one: POST /v1/keys.")
    return found


async def recognise(request: Request, wired: Services, key: str) -> KeyRecord | None:
    """The record of a valid key, which is the request's caller from now on. Raises RateLimited."""
    found = await asyncio.to_thread(wired.keys.verify, key)
    if found is None:
        return None
    request.state.caller = found
    wait = await asyncio.to_thread(wired.keys.wait, found)
    if wait > 0:
        raise RateLimited(
            f"The key {found.name!r} may make {found.requests_per_second:g} requests per second.",
            retry_after=wait,
            hint="Wait for the seconds in Retry-After, or raise the key's limits.requests_per_second.",
        )
    return found


def needs(scope: str) -> params.Depends:
    """A route's dependency: the caller's key has `scope`. Raises Unauthorised, Forbidden."""
    return params.Depends(_checker(scope))


def _checker(scope: str) -> Callable[..., Coroutine[Any, Any, KeyRecord]]:
    async def check(
        request: Request,
        wired: Annotated[Services, Depends(services)],
        _: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)],
    ) -> KeyRecord:
        caller = await identify(request, wired)
        demand(caller, scope)
        return caller

    return check


def caller_of(request: Request) -> KeyRecord:
    """The caller of a request that `needs` has let in."""
    return getattr(request.state, "caller", LOCAL)


def demand(caller: KeyRecord, scope: str) -> None:
    """Raises Forbidden."""
    if not caller.may(scope):
        raise Forbidden(
            f"The key {caller.name!r} lacks the scope {scope!r}.",
            code="scope_missing",
            hint=f"Use a key with {scope!r}; this one has: {', '.join(caller.scopes)}.",
        )
