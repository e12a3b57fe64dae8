"""What every provider adapter must do. A new one subclasses the suite and records replies of its service.

`tests/recordings/<provider>/replies.json` holds replies with what they mean: per image a mapping of label to
score, or the name of an error; `errors.json` replies that fail as a whole, with the error's name.
"""

from __future__ import annotations

import json
import random
from base64 import b64decode
from email import message_from_bytes
from email.policy import HTTP
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import errors
from app.contracts import Provider, WireReply, WireRequest
from app.gateway.encoding import encode

RECORDINGS = Path(__file__).parents[1] / "recordings"
SECRET = "sk-very-secret-0123456789"


def wire(case: dict[str, Any]) -> WireReply:
    body = case["text"].encode() if "text" in case else json.dumps(case["body"]).encode()
    return WireReply(case["status"], case["headers"], body)


class ProviderSuite:
    """Set `name`; provide the fixture `provider`, made with SECRET; say in `images` how to read a request.

    `folder`: of the recordings, where it is not the name. `credential`: where the key is (`header`, `body`
    or, for a signature, `nowhere`). `positional`: lists of a reply may not be put in another order.
    """

    name: str
    folder: str = ""
    credential: str = "header"
    positional = False

    @pytest.fixture
    def provider(self) -> Provider:
        raise NotImplementedError

    def images(self, request: WireRequest) -> list[bytes]:
        raise NotImplementedError

    def recorded(self, kind: str) -> list[dict[str, Any]]:
        return json.loads((RECORDINGS / (self.folder or self.name) / f"{kind}.json").read_text())

    def test_requests_carry_the_images(self, provider: Provider) -> None:
        rng = np.random.default_rng([1, 2])
        for count in {1, 2, provider.info.max_batch} if provider.info.max_batch > 1 else {1}:
            pngs = encode(rng.integers(0, 256, (count, 3, 4, 3), np.uint8))
            request = provider.request(pngs)
            assert self.images(request) == pngs
            assert request.url.startswith("https://provider.example/prefix/")
            assert SECRET not in request.url
            assert (SECRET.encode() in request.body) == (self.credential == "body")
            in_header = any(SECRET in value for value in request.headers.values())
            assert in_header == (self.credential == "header")

    def test_recorded_replies(self, provider: Provider) -> None:
        for case in self.recorded("replies"):
            reply = provider.reply(wire(case), case["count"])
            assert (reply.version, reply.request_id) == (case["version"], case["request_id"]), case["name"]
            assert len(reply.outcomes) == case["count"]
            for outcome, expected in zip(reply.outcomes, case["outcomes"], strict=True):
                if isinstance(expected, str):
                    assert type(outcome) is getattr(errors, expected), case["name"]
                else:
                    assert outcome == expected, case["name"]

    def test_recorded_errors(self, provider: Provider) -> None:
        for case in self.recorded("errors"):
            with pytest.raises(errors.ProviderError) as caught:
                provider.reply(wire(case), 1)
            assert type(caught.value) is getattr(errors, case["family"]), case["name"]
            assert caught.value.http_status == case["status"], case["name"]
            if "retry_after" in case:
                assert caught.value.retry_after == case["retry_after"], case["name"]

    def test_outputs_in_any_order_are_matched_by_id(self, provider: Provider) -> None:
        for case in [] if self.positional else self.recorded("replies"):
            body = case["body"]
            holders = [body] if isinstance(body, list) else body.values()
            lists = [value for value in holders if isinstance(value, list)]
            expected = provider.reply(wire(case), case["count"])
            for rows in lists:
                random.Random(5).shuffle(rows)
            shuffled = provider.reply(wire(case), case["count"])
            for a, b in zip(expected.outcomes, shuffled.outcomes, strict=True):
                assert type(a) is type(b)
                if not isinstance(a, errors.ProviderError):
                    assert a == b

    @pytest.mark.parametrize(
        "body", [b"", b"<html>502</html>", b"[]", b"null", b'"x"', b"{}", b"{\xff", b"[" * 5000]
    )
    @pytest.mark.parametrize("status", [200, 207, 301, 400, 401, 404, 429, 500, 502, 503])
    def test_bodies_that_are_not_an_answer(self, provider: Provider, status: int, body: bytes) -> None:
        with pytest.raises(errors.ProviderError) as caught:
            provider.reply(WireReply(status, {"content-type": "text/html"}, body), 1)
        expected: dict[int, type[errors.ProviderError]] = {
            200: errors.ReplyInvalid, 207: errors.ReplyInvalid, 401: errors.KeyRefused, 429: errors.Throttled
        }  # fmt: skip
        fallback = errors.Unavailable if status >= 500 else errors.ConfigError
        assert type(caught.value) is expected.get(status, fallback)

    def test_truncated_and_mangled_replies_never_crash(self, provider: Provider) -> None:
        """Any cut, and any value replaced by another JSON value, gives an answer or a ProviderError."""
        rng = random.Random(7)
        for case in self.recorded("replies") + self.recorded("errors"):
            whole = wire(case)
            for _ in range(20):
                cut = whole.body[: rng.randrange(len(whole.body) + 1)]
                self.survives(provider, WireReply(case["status"], {}, cut))
            if "body" in case:
                for junk in (None, 7, "x", [], {}, [[1]], {"a": 1}, True, -1e308, [None]):
                    for _ in range(6):
                        mangled = _replace(case["body"], junk, rng)
                        self.survives(provider, WireReply(case["status"], {}, json.dumps(mangled).encode()))

    def survives(self, provider: Provider, reply: WireReply) -> None:
        try:
            outcomes = provider.reply(reply, 1).outcomes
        except errors.ProviderError:
            return
        assert len(outcomes) == 1

    def test_secrets_never_show(self, provider: Provider) -> None:
        assert SECRET not in repr(provider)
        assert SECRET not in provider.info.cache_scope
        echo = json.dumps({"status": {"code": 11009, "description": f"no key {SECRET}"}, "message": SECRET})
        for status in (200, 401, 500):
            with pytest.raises(errors.ProviderError) as caught:
                provider.reply(WireReply(status, {}, echo.encode()), 1)
            assert SECRET not in str(caught.value) + repr(caught.value) + str(caught.value.hint)

    def test_labels(self, provider: Provider) -> None:
        request = provider.labels_request()
        if request is None:
            with pytest.raises(errors.ProviderError):
                provider.labels(WireReply(200, {}, b"{}"))
            return
        recorded: Any = self.recorded("labels")
        assert list(provider.labels(wire(recorded))) == recorded["labels"]
        assert SECRET not in request.url
        for status, body in ((200, b"{}"), (404, b"not found"), (200, b"<html>")):
            with pytest.raises(errors.ProviderError):
                provider.labels(WireReply(status, {}, body))


def _replace(value: object, junk: object, rng: random.Random) -> object:
    """A copy with one value, somewhere, replaced by `junk`."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(list(value))
        return {**value, name: _replace(value[name], junk, rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        return [_replace(v, junk, rng) if n == place else v for n, v in enumerate(value)]
    return junk


def decoded(text: str) -> bytes:
    return b64decode(text, validate=True)


def file_part(request: WireRequest, name: str) -> bytes:
    """The content of one part of a multipart body, as the standard library's parser reads it."""
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    form = message_from_bytes(head + request.body, policy=HTTP)
    for part in form.iter_parts():
        if part.get_param("name", header="content-disposition") == name:
            return part.get_payload(decode=True)
    raise AssertionError(f"there is no part {name}")
