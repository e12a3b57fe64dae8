"""What every adapter needs: lenient JSON, score checks, waits in headers and text, fallback on the status."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from app.contracts import Limits, Price, ScoreKind, WireReply, WireRequest
from app.errors import (
    ConfigError,
    KeyRefused,
    ProviderError,
    QuotaExhausted,
    Rejected,
    ReplyInvalid,
    Throttled,
    Unavailable,
)

Json = Mapping[str, Any]

BOUNDARY = "reprog-6c1f0f4e8a2d4b7c"  # of multipart bodies
_TOLERANCE = 1e-6  # float32 printed as decimal: 1.0000001 is 1
_WAIT = re.compile(
    r"(?:retry|try again|wait)\D{0,40}?(\d+(?:\.\d+)?)\s*(second|minute|hour|day)", re.IGNORECASE
)
_UNITS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0}
_RESET = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h))+")
_RESET_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_RESET_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_QUOTA = re.compile(
    r"out of call volume|insufficient_quota|quota (?:is |has been |was )?exce|exceeded .{0,30}quota", re.I
)
_HIDDEN_429 = re.compile(r"""\\?["'](?:code|status|statusCode|status_code)\\?["']\s*:\s*\\?["']?429\b""")


@dataclass(frozen=True)
class Defaults:
    """What to assume of an account until its owner says otherwise. List prices change: see `as_of`."""

    price: Price
    limits: Limits
    as_of: str  # year and month
    terms: str = ""  # where the provider's terms are; "": a service of the user's own


class Unlisted:
    """The part of a provider whose service lists no labels: settings have them, or answers bring them."""

    def labels_request(self) -> WireRequest | None:
        return None

    def labels(self, reply: WireReply) -> tuple[str, ...]:
        """Raises ConfigError."""
        raise ConfigError("The service lists no labels.", http_status=reply.status)


def redacted(reply: WireReply, secret: str) -> WireReply:
    """The reply without the secret, should the provider echo it: error texts reach users and logs. Shorter
    ones than any service gives out are left: they may be parts of labels."""
    if len(secret) >= 8 and secret.encode() in reply.body:
        return replace(reply, body=reply.body.replace(secret.encode(), b"***"))
    return reply


def parse(reply: WireReply) -> Json | None:
    """The JSON object in the body, or None."""
    value = anything(reply)
    return value if isinstance(value, dict) else None


def anything(reply: WireReply) -> Any:  # noqa: ANN401 - JSON
    """The JSON value in the body, or None. Accepts NaN and Infinity, which some servers write."""
    try:
        return orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        try:
            return json.loads(reply.body)
        except (ValueError, RecursionError):
            return None


def member(value: object, *path: str) -> Any:  # noqa: ANN401 - JSON
    """The member at `path` of nested objects, or None."""
    for name in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def text(value: object) -> str:
    """A string or number as text, anything else as ""."""
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def objects(value: object) -> list[Json]:
    """The objects in a JSON array; [] for anything else."""
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def score(value: object, kind: ScoreKind) -> float:
    """One score as a float. Raises ReplyInvalid for what is no number, NaN, and a probability out of 0..1
    by more than 1e-6; within that it is clamped."""
    try:
        number = (
            float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
        )
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ReplyInvalid("A score is missing or no finite number.")
    if kind in ("probability", "independent"):
        if not -_TOLERANCE <= number <= 1 + _TOLERANCE:
            raise ReplyInvalid(f"A score of {number:g} is no probability.")
        return min(1.0, max(0.0, number))
    return number


def distinct(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Labels of (name, id): the name, or the id without one; names that occur twice carry their id."""
    names = [name or ident for name, ident in pairs]
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set[str]()
    return [
        f"{name} [{ident}]" if name in twice else name for name, (_, ident) in zip(names, pairs, strict=True)
    ]


def retry_after(reply: WireReply, message: str = "") -> float | None:
    """Seconds the provider asks us to wait: from Retry-After (seconds or HTTP date) and its relatives in
    milliseconds or as `6m0s`, else from the text."""
    header = reply.headers.get("retry-after", "").strip()
    if header:
        try:
            return max(0.0, float(header))
        except ValueError:
            pass
        if (at := _date(header)) is not None:
            sent = _date(reply.headers.get("date", ""))  # against the server's own clock where it gives one
            return max(0.0, at - (time.time() if sent is None else sent))
    milliseconds = reply.headers.get("retry-after-ms", "")
    if milliseconds.isdecimal():
        return int(milliseconds) / 1000
    if reply.status == 429 and (
        reset := _RESET.fullmatch(reply.headers.get("x-ratelimit-reset-requests", ""))
    ):
        return sum(float(number) * _RESET_UNITS[unit] for number, unit in _RESET_PART.findall(reset[0]))
    if found := _WAIT.search(message):
        return float(found[1]) * _UNITS[found[2].lower()]
    return None


def refusal(
    kind: type[ProviderError] | None,
    message: str,
    code: str,
    reply: WireReply,
    *,
    request_id: str | None = None,
    wait: float | None = None,
    hint: str | None = None,
) -> ProviderError:
    """An error of a known kind, in the provider's words; of an unknown kind (None), what the status says."""
    if kind is None:
        return by_status(
            reply, f"{message} (code {code})" if code and message else message or code, request_id=request_id
        )
    return kind(
        f"{message[:300] or 'No message'}" + (f" (code {code})" if code else ""),
        retry_after=wait if wait is not None else retry_after(reply, message or _start(reply)),
        request_id=request_id,
        http_status=reply.status,
        hint=hint,
    )


def listed(
    rows: Sequence[Json], name: str, value: str, kind: ScoreKind, reply: WireReply
) -> dict[str, float]:
    """Label -> score of [{name: label, value: score}]; of a label that comes twice the higher one. Raises
    ReplyInvalid for rows that are none."""
    found = dict[str, float]()
    try:
        for row in rows:
            label, number = text(row.get(name)), score(row.get(value), kind)
            if not label:
                raise ReplyInvalid("A score without a label.")
            found[label] = max(number, found.get(label, number))
    except ReplyInvalid as error:
        error.http_status = reply.status
        raise
    return found


def _date(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError):
        return None


def _start(reply: WireReply) -> str:
    """The first of the body, for words in it."""
    return reply.body[:4096].decode("utf-8", "replace")


def by_status(reply: WireReply, message: str = "", *, request_id: str | None = None) -> ProviderError:
    """What a reply means whose body says nothing we know. A rate limit or quota hidden in the text of another
    error goes before the HTTP status."""
    status = reply.status
    body = _start(reply)
    detail = f"HTTP {status}" + (f": {message[:300]}" if message else "")
    more: dict[str, Any] = {"http_status": status, "request_id": request_id}
    said = message or body
    if status >= 400 and status != 401 and _QUOTA.search(said):
        return QuotaExhausted(detail, retry_after=retry_after(reply, said), **more)
    if status == 429 or (status >= 500 and _HIDDEN_429.search(body)):
        return Throttled(detail, retry_after=retry_after(reply, said), **more)
    if status >= 500 or status == 408:
        return Unavailable(detail, retry_after=retry_after(reply), **more)
    if status in (401, 403):
        return KeyRefused(detail, **more)
    if status in (413, 415):
        return Rejected(detail, **more)
    if status >= 300:
        return ConfigError(detail, **more)
    return ReplyInvalid(f"{detail}: not the JSON this provider answers with.", **more)


def multipart(fields: Mapping[str, str], file: tuple[str, str | None, str | None, bytes]) -> bytes:
    """A form with text fields and one file: (field, file name, content type, bytes)."""
    parts = list[bytes]()
    for name, text in fields.items():
        parts.append(
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
        )
    field, filename, kind, content = file
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"'
    head += f'; filename="{filename}"' if filename is not None else ""
    head += f"\r\nContent-Type: {kind}" if kind is not None else ""
    return b"".join([*parts, f"{head}\r\n\r\n".encode(), content, f"\r\n--{BOUNDARY}--\r\n".encode()])
