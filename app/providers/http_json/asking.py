"""The request template, filled in with images."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import orjson
from PIL import Image
from pybase64 import b64encode

from app.contracts import WireRequest
from app.errors import BadRequest
from app.providers import sigv4, wire
from app.providers.http_json.settings import ALIASES, ENVIRONMENT, VARIABLE, Model, Request


class Asker:
    """Fills the request template."""

    def __init__(self, base_url: str, model: Model, secret: str) -> None:
        self._request: Request = model.request
        self._encode = model.image.encode
        self._secret = secret
        self._constants = {"model": model.model, "version": model.version, "secret": secret}
        self.url = _url(base_url, self._request.url)
        if self._request.auth.kind == "aws_sigv4":
            sigv4.require_package()
        settings = self._request.model_dump_json(by_alias=True)
        named = VARIABLE.findall(settings)
        self._named = any(
            ALIASES.get(name, name) == "secret" or name.startswith(ENVIRONMENT) for name in named
        )
        self._borrowed = {name for name in named if name.startswith(ENVIRONMENT)}
        if self._request.batch.max_inputs > 1:
            self._repeated(self._request.body.json_)

    def lend(self, environment: Callable[[str], str | None]) -> list[str]:
        """Look up the variables that the templates name; returns their values. Raises BadRequest."""
        for name in sorted(self._borrowed):
            variable = name.removeprefix("env.")
            value = environment(variable)
            if not value or not (value.isascii() and value.isprintable()):
                raise BadRequest(
                    f"The templates name {variable}, which is not set, or not to printable characters.",
                    code="secret_missing",
                    param="model.request",
                    hint="Set it where the service and its workers run.",
                )
            self._constants[name] = value
        return [self._constants[name] for name in self._borrowed]

    def request(self, pngs: Sequence[bytes]) -> WireRequest:
        request = self._request
        images = [png if self._encode == "png" else _jpeg(png, self._encode) for png in pngs]
        values = [self._values(image, n) for n, image in enumerate(images)]
        headers = {name: _filled(text, values[0]) for name, text in request.headers.items()}
        query = {name: _filled(text, values[0]) for name, text in request.query.items()}
        kind, body = self._body(images, values)
        given = {name.lower() for name in headers}
        if kind is not None and "content-type" not in given:
            headers["Content-Type"] = kind
        if "accept" not in given:
            headers["Accept"] = "application/json"
        self._sign_in(headers, query)
        url = _filled(self.url, values[0], quoted=True)
        if query:
            url += ("&" if "?" in url else "?") + urlencode(query)
        wired = WireRequest(request.method, url, headers, body)
        if request.auth.kind == "aws_sigv4" and self._secret:
            return sigv4.signed(wired, request.auth.service, request.auth.region, self._secret)
        return wired

    def _values(self, image: bytes, n: int) -> dict[str, str]:
        text = b64encode(image).decode()
        kind = "png" if self._encode == "png" else "jpeg"
        return self._constants | {
            "image.b64": text,
            "image.data_url": f"data:image/{kind};base64,{text}",
            "image.sha256": sha256(image).hexdigest(),
            "input.id": f"q{n}",
        }

    def _body(self, images: Sequence[bytes], values: Sequence[dict[str, str]]) -> tuple[str | None, bytes]:
        """(content type, bytes)."""
        body, image_type = self._request.body, "image/png" if self._encode == "png" else "image/jpeg"
        if body.kind in ("none", "url_query"):
            return None, b""
        if body.kind == "raw":
            return (image_type if body.content_type == "" else body.content_type), images[0]
        if body.kind == "form":
            fields = {name: _filled(text, values[0]) for name, text in body.form.items()}
            return body.content_type or "application/x-www-form-urlencoded", urlencode(
                self._form(fields)
            ).encode()
        if body.kind == "multipart":
            extra = {name: _filled(text, values[0]) for name, text in body.multipart.extra.items()}
            file = (body.multipart.field, body.multipart.filename, body.multipart.content_type, images[0])
            return f"multipart/form-data; boundary={wire.BOUNDARY}", wire.multipart(self._form(extra), file)
        template = body.json_
        if self._request.batch.max_inputs > 1:
            holder, place, item = self._repeated(template)
            row = [_fill(item, one) for one in values]
            template = _replaced(_fill(template, values[0]), place, row) if holder else row
        else:
            template = _fill(template, values[0])
        return body.content_type or "application/json", orjson.dumps(template)

    def _form(self, fields: dict[str, str]) -> dict[str, str]:
        auth = self._request.auth
        return (
            fields | {auth.name: auth.prefix + self._secret}
            if auth.kind == "form" and self._secret
            else fields
        )

    def _repeated(self, template: object) -> tuple[bool, list[str], object]:
        """(below a member?, where the repeated list is, its element). Raises BadRequest."""
        place = [part for part in (self._request.batch.repeat_path or "").split(".") if part]
        found = wire.member(template, *place) if place else template
        if not (isinstance(found, list) and len(found) == 1):
            raise BadRequest(
                "Several images per request need a JSON body with a list of one element to repeat.",
                param="model.request.batch.repeat_path",
                hint='For example repeat_path "inputs" with the body {"inputs": [{"data": "{image.b64}"}]}.',
            )
        return bool(place), place, found[0]

    def _sign_in(self, headers: dict[str, str], query: dict[str, str]) -> None:
        """Put the secret where it belongs, unless the templates name it."""
        auth, secret = self._request.auth, self._secret
        if not secret or auth.kind in ("none", "form", "aws_sigv4") or (auth.kind == "auto" and self._named):
            return
        if auth.kind == "header":
            headers[auth.name] = auth.prefix + secret
        elif auth.kind == "query":
            query[auth.name] = auth.prefix + secret
        elif auth.kind == "basic":
            headers["Authorization"] = f"Basic {b64encode(secret.encode()).decode()}"
        else:
            headers["Authorization"] = f"Bearer {secret}"


def _url(base_url: str, url: str) -> str:
    """The URL template. Raises BadRequest for one on another host: the secret must not travel."""
    base, parts = base_url.rstrip("/"), urlsplit(url)
    if parts.scheme:
        ours = urlsplit(base)
        if (parts.scheme, parts.netloc.lower()) != (ours.scheme, ours.netloc.lower()):
            raise BadRequest(
                f"model.request.url is on {parts.scheme}://{parts.netloc}, the connection on {base}.",
                param="model.request.url",
                hint="Give the path alone, or make base_url that host.",
            )
        return url
    return base if not url else f"{base}{url if url.startswith(('/', '?')) else '/' + url}"


def _filled(text: str, values: Mapping[str, str], *, quoted: bool = False) -> str:
    def value(match: re.Match[str]) -> str:
        found = values[ALIASES.get(match[1], match[1])]
        return quote(found, safe="") if quoted else found

    return VARIABLE.sub(value, text)


def _fill(template: object, values: Mapping[str, str]) -> Any:  # noqa: ANN401 - JSON
    if isinstance(template, str):
        return _filled(template, values)
    if isinstance(template, Mapping):
        return {_filled(str(name), values): _fill(value, values) for name, value in template.items()}
    return [_fill(value, values) for value in template] if isinstance(template, list) else template


def _replaced(template: Any, place: Sequence[str], value: object) -> Any:  # noqa: ANN401 - JSON
    if not place:
        return value
    return {**template, place[0]: _replaced(template[place[0]], place[1:], value)}


def _jpeg(png: bytes, encode: str) -> bytes:
    """`encode`: jpeg:QUALITY[:420|:444]."""
    _, quality, *sampling = encode.split(":")
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.save(buffer, "JPEG", quality=int(quality), subsampling=0 if sampling == ["444"] else 2)
    return buffer.getvalue()
