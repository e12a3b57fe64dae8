"""Traces by OpenTelemetry where the extra `otel` is installed and REPROG_OTEL says so; nothing otherwise.

Where they go is said by OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT` and the like). Spans
name routes, jobs and hosts, never bodies, headers or addresses in full.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Protocol

from app.errors import BadRequest


class Span(Protocol):
    """What callers may do with a span."""

    def update_name(self, name: str) -> None: ...
    def set_attribute(self, key: str, value: Any) -> None: ...  # noqa: ANN401


class _Nothing:
    def update_name(self, name: str) -> None: ...
    def set_attribute(self, key: str, value: object) -> None: ...


_NOTHING = _Nothing()
_tracer: Any = None
_provider: Any = None


def installed() -> bool:
    """Whether the extra is here."""
    try:
        return all(
            importlib.util.find_spec(name) is not None
            for name in ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")
        )
    except ModuleNotFoundError:
        return False


def start() -> None:
    """Trace from now on. Raises BadRequest `extra_missing`."""
    global _tracer, _provider
    if not installed():
        raise BadRequest(
            "REPROG_OTEL is on, and OpenTelemetry is not installed.",
            code="extra_missing",
            param="REPROG_OTEL",
            hint="pip install 'reprog[otel]'",
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = Resource({"service.name": "reprog"}).merge(Resource.create())
    _provider = TracerProvider(resource=named)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = _provider.get_tracer("reprog")


def stop() -> None:
    """Send what is left."""
    global _tracer, _provider
    if _provider is not None:
        _provider.shutdown()
    _tracer = _provider = None


@contextmanager
def span(name: str, **attributes: str | int | float) -> Generator[Span]:
    """Time what happens inside; two underscores in an attribute stand for a dot. An error is recorded by its
    type alone."""
    if _tracer is None:
        yield _NOTHING
        return
    given = {key.replace("__", "."): value for key, value in attributes.items()}
    options: dict[str, Any] = {"record_exception": False, "set_status_on_exception": False}
    with _tracer.start_as_current_span(name, attributes=given, **options) as found:
        try:
            yield found
        except BaseException as error:
            found.set_attribute("error.type", type(error).__name__)
            raise
