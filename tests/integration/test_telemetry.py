"""What goes out where it is asked for: traces by OTLP, figures for Prometheus; nothing otherwise."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families
from service import running_service

from app import telemetry
from app.errors import BadRequest


def test_requests_are_traced_to_the_collector(tmp_path: Path) -> None:
    got: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    where = {
        "REPROG_OTEL": "true", "REPROG_WORKER": "false", "OTEL_SERVICE_NAME": "mine",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
    }  # fmt: skip
    with running_service(tmp_path / "data", **where) as service:
        service.client.get("/v1/jobs/job_nothing", headers={"x-request-id": "mine-12345"})
        service.connect("http://127.0.0.1:9")
        connection = service.ok("GET", "/v1/connections")["data"][0]["id"]
        assert service.client.post(f"/v1/connections/{connection}/test").status_code == 502
    server.shutdown()
    server.server_close()
    spans, names = [], set()
    for body in got:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names |= {a.value.string_value for a in resource.resource.attributes if a.key == "service.name"}
            spans += [span for scope in resource.scope_spans for span in scope.spans]
    assert names == {"mine"}
    by_name = {span.name: {a.key: a.value for a in span.attributes} for span in spans}
    read = by_name["GET /v1/jobs/{job_id}"]
    assert read["reprog.request_id"].string_value == "mine-12345"
    assert read["http.response.status_code"].int_value == 404
    asked = by_name["GET provider"] if "GET provider" in by_name else by_name["POST provider"]
    assert asked["server.address"].string_value == "127.0.0.1:9"
    assert asked["error.type"].string_value == "NotSent"
    assert b"sandbox-test" not in b"".join(got)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "installed", lambda: False)
    with pytest.raises(BadRequest, match="not installed") as refused:
        telemetry.start()
    assert refused.value.hint == "pip install 'reprog[otel]'"


def test_nothing_of_it_is_loaded_when_it_is_off() -> None:
    script = "import sys, app.main; sys.exit('opentelemetry.sdk' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_metrics_are_what_prometheus_reads(tmp_path: Path) -> None:
    with running_service(tmp_path / "data", REPROG_WORKER="false") as service:
        service.connect("http://127.0.0.1:9", name='quo"te')
        answer = service.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert {"reprog_http_requests", "reprog_http_request_seconds", "reprog_jobs"} <= families.keys()
    assert all(family.type != "unknown" for family in families.values()), families
    seconds = families["reprog_http_request_seconds"].samples
    buckets = [sample.value for sample in seconds if sample.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == next(sample.value for sample in seconds if sample.name.endswith("_count"))
    names = [line.split()[2] for line in answer.text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
