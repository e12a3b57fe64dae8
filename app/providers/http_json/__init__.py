"""Any service that takes an image over HTTP and answers with JSON: told by settings, without code."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel

from app.contracts import Limits, Outcome, Price, ProviderInfo, Reply, WireReply, WireRequest
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
from app.providers import wire
from app.providers.http_json.asking import Asker
from app.providers.http_json.reading import Reader, finder, place
from app.providers.http_json.settings import Errors, Model, Options, Response, Rule

_FAMILIES: Mapping[str, type[ProviderError]] = {
    "throttled": Throttled,
    "transient": Unavailable,
    "permanent_input": Rejected,
    "permanent_config": ConfigError,
    "key": KeyRefused,
    "quota": QuotaExhausted,
}


class HttpJson(wire.Unlisted):
    """Translates images and replies; see `app.contracts.Provider`."""

    Model: ClassVar[type[BaseModel]] = Model
    Options: ClassVar[type[BaseModel]] = Options
    defaults: ClassVar[wire.Defaults] = wire.Defaults(Price(0), Limits(10.0, 8, 1), "2026-11")

    def __init__(self, base_url: str, model: Model, secret: str, options: Options) -> None:
        self._ask = Asker(base_url, model, secret)
        self._read = Reader(model.response)
        self._secrets = [secret]
        self._constant = model.version
        self._response, self._errors = model.response, model.errors
        self._status = place(model.response.status_path)
        self._item_status = finder(model.response.item_status_path)
        self._items, self._item_id = finder(model.response.items_path), finder(model.response.item_id_path)
        self._version = place(model.response.version_path)
        self._billed = place(model.response.billed_units_path)
        self._request_id = place(model.response.request_id_path)
        share = 3 / 4 if model.image.max_bytes_applies_to == "base64" else 1
        settings = model.model_dump_json(by_alias=True, exclude={"errors"}, exclude_defaults=True)
        self.info = ProviderInfo(
            provider="http_json",
            cache_scope=f"http_json {base_url.rstrip('/')} {settings}",
            labels=self._read.labels,
            score_kind=self._read.kind,
            input_size=model.image.input_size,
            max_batch=model.request.batch.max_inputs,
            max_image_bytes=int(model.image.max_bytes * share),
            min_side=model.image.min_side,
        )

    def __repr__(self) -> str:
        return f"HttpJson({self._ask.url})"

    def lend(self, environment: Callable[[str], str | None]) -> None:
        """Fill in `{env.NAME}`. Raises BadRequest `secret_missing`."""
        self._secrets += self._ask.lend(environment)

    def request(self, pngs: Sequence[bytes]) -> WireRequest:
        """The template, filled in. Inputs are named q0, q1, ..."""
        return self._ask.request(pngs)

    def reply(self, reply: WireReply, count: int) -> Reply:
        """Raises the ProviderError of the whole request."""
        for secret in self._secrets:
            reply = wire.redacted(reply, secret)
        body = wire.anything(reply)
        request_id = wire.text(self._request_id(reply, body)) or None
        error = _failure(self._errors, self._response, reply, body, self._status(reply, body))
        if error is None and (reply.status >= 300 or body is None):
            error = wire.by_status(reply, request_id=request_id)
        if error is not None:
            error.request_id, error.http_status = request_id, reply.status
            raise error
        items = self._split(body, count)
        outcomes = tuple(self._outcome(item, reply, request_id) for item in items)
        if count == 1 and isinstance(outcomes[0], ReplyInvalid):
            raise outcomes[0]
        version = wire.text(self._version(reply, body)) or self._constant
        units = self._billed(reply, body)
        billed = int(units) if isinstance(units, int | float) and 0 <= units < 2**31 else None
        return Reply(outcomes, version, request_id, billed)

    def _split(self, body: object, count: int) -> list[Any]:
        """One item (or None) per image."""
        if self._response.items_path is None:
            return [body] if count == 1 else [None] * count
        items = self._items(body)
        if not isinstance(items, list):
            return [None] * count
        names = [wire.text(self._item_id(item)) for item in items] if self._response.item_id_path else []
        if any(names):
            named = dict(zip(reversed(names), reversed(items), strict=True))
            return [named.get(f"q{n}") for n in range(count)]
        return items if len(items) == count else [None] * count

    def _outcome(self, item: object, reply: WireReply, request_id: str | None) -> Outcome:
        """Labels and scores of one image, or why there are none."""
        more: dict[str, Any] = {"request_id": request_id, "http_status": reply.status}
        if item is None:
            return ReplyInvalid("No answer for this image where the settings look for it.", **more)
        if self._response.item_status_path is not None:
            error = _failure(self._errors, self._response, reply, item, self._item_status(item))
            if error is not None:
                error.request_id, error.http_status = request_id, reply.status
                return error
        try:
            return self._read(item)
        except ReplyInvalid as error:
            error.request_id, error.http_status = request_id, reply.status
            return error


def _failure(
    errors: Errors, response: Response, reply: WireReply, holder: object, status: object
) -> ProviderError | None:
    """What a body or item says is wrong, or None."""
    stated = response.status_path is not None or response.item_status_path is not None
    known = stated and (response.ok_values or response.retry_values or response.config_error_values)
    if reply.status < 300 and not known and not errors.classify:
        return None
    code, message = (_first(paths, holder) for paths in (errors.code_paths, errors.message_paths))
    detail = f"{message or 'No message'} (code {code})" if code and code != message else message
    for rule in errors.classify:
        if _holds(rule, reply, code, message):
            return _made(rule, errors, reply, holder, message, detail)
    listed = status in response.config_error_values or status in response.retry_values
    wrong = listed or (response.ok_values and status not in response.ok_values)
    if known and status is not None and wrong:
        kind = (
            ConfigError if status in response.config_error_values
            else Unavailable if status in response.retry_values or reply.status < 300
            else None
        )  # fmt: skip
        if kind is not None:
            return kind(f"{detail or 'The service reports an error'} (status {status})")
    if reply.status >= 300:
        error = wire.by_status(reply, detail)
        if error.retry_after is None and errors.retry_after is not None:
            error.retry_after = _seconds(re.search(errors.retry_after, message))
        return error
    return None


def _holds(rule: Rule, reply: WireReply, code: str, message: str) -> bool:
    return (
        (rule.http is None or rule.http == reply.status)
        and (rule.code is None or re.fullmatch(rule.code, code) is not None)
        and (rule.message is None or re.search(rule.message, message) is not None)
    )


def _made(
    rule: Rule, errors: Errors, reply: WireReply, holder: object, message: str, detail: str
) -> ProviderError:
    wait = finder(rule.wait_path)(holder) if rule.wait_path else None
    asked = float(wait) if isinstance(wait, int | float) else wire.retry_after(reply, message)
    if asked is None and errors.retry_after is not None:
        asked = _seconds(re.search(errors.retry_after, message))
    return _FAMILIES[rule.family](detail or f"HTTP {reply.status}", retry_after=asked)


def _seconds(found: re.Match[str] | None) -> float | None:
    try:
        return float(found[1]) if found else None
    except (IndexError, ValueError, TypeError):
        return None


def _first(paths: Sequence[str], holder: object) -> str:
    """The first path that leads to a text or number, in 300 characters."""
    return next((text for path in paths if (text := wire.text(finder(path)(holder))[:300])), "")
