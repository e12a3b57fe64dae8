"""Webhooks from REST to a receiver that checks the signature with the standard's own library."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from service import Service, running_service
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from app.jobs.courier import Courier
from app.storage import events, webhooks
from app.storage.database import migrate, open_engine
from app.storage.secrets import Vault
from app.storage.webhooks import Webhooks, matches


class Receiver:
    """Keeps what it is sent; answers `status`."""

    def __init__(self) -> None:
        self.status, self.got = 200, list[tuple[dict[str, str], bytes]]()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(receiver.status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=1"

    @contextmanager
    def serving(self) -> Iterator[Receiver]:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()

    def wait(self, count: int, seconds: float = 30) -> None:
        until = time.monotonic() + seconds
        while len(self.got) < count:
            assert time.monotonic() < until, self.got
            time.sleep(0.05)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().serving() as receiver:
        yield receiver


def wait(look: Any, seconds: float = 30) -> Any:
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


def test_signed_redelivered_and_retried_over_a_restart(tmp_path: Path, receiver: Receiver) -> None:
    with running_service(tmp_path, REPROG_WORKER="false") as service:
        made = service.ok("POST", "/v1/webhooks", json={"url": receiver.url})
        secret, path = made.pop("secret"), f"/v1/webhooks/{made['id']}"
        assert service.ok("GET", path) == made
        assert made["events"] == ["job.succeeded", "job.failed", "job.cancelled", "job.paused"]
        sent = service.ok("POST", f"{path}/test")
        assert (sent["status"], sent["http_status"], sent["attempts"]) == ("delivered", 200, 1)
        headers, body = receiver.got[0]
        told = Webhook(secret).verify(body, headers)
        assert (told["type"], told["data"]) == ("webhook.test", {"webhook_id": made["id"]})
        assert headers["webhook-id"] == sent["id"]
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body + b" ", headers)

        service.ok("POST", f"{path}/deliveries/{sent['id']}/redeliver")
        receiver.wait(2)
        assert receiver.got[1][0]["webhook-id"] == sent["id"]

        receiver.status = 302  # a redirect is not followed: it is a failure
        failed = service.ok("POST", f"{path}/test")
        assert (failed["status"], failed["http_status"]) == ("pending", 302)
        assert "302" in failed["error"]
        count = len(receiver.got)
        receiver.status = 204
        service.kill()
        service.start()
        receiver.wait(count + 1)  # five seconds after the first try, by another process
        assert receiver.got[-1][0]["webhook-id"] == failed["id"]
        listed = f"{path}/deliveries?status=delivered"
        wait(lambda: len(service.ok("GET", listed)["data"]) == 2)
        receiver.status = 410
        service.ok("POST", f"{path}/test")
        wait(lambda: service.ok("GET", path)["enabled"] is False)
        assert service.client.delete(path).status_code == 204
        assert service.client.get(path).status_code == 404
        _refused(service)


def _refused(service: Service) -> None:
    for body, param in (
        ({"url": "ftp://a.example"}, "url"),
        ({"url": "https://a:b@a.example"}, "url"),
        ({"url": "https://a.example", "events": ["job.done"]}, "events.0"),
        ({"url": "https://a.example", "events": []}, "events"),
    ):
        answer = service.client.post("/v1/webhooks", json=body)
        assert (answer.status_code, answer.json()["param"]) == (422, param), answer.text


def test_private_addresses_are_refused_when_given_and_when_called(tmp_path: Path, receiver: Receiver) -> None:
    with running_service(tmp_path, REPROG_WORKER="false") as service:
        made = service.ok("POST", "/v1/webhooks", json={"url": receiver.url})
        service.stop()
        service.start(REPROG_ALLOW_PRIVATE_HOSTS="false")
        answer = service.client.post("/v1/webhooks", json={"url": receiver.url})
        assert (answer.status_code, answer.json()["code"]) == (403, "private_host")
        sent = service.ok("POST", f"/v1/webhooks/{made['id']}/test")
        assert "private address" in sent["error"]
        assert receiver.got == []


@pytest.fixture
def store(database_url: str) -> Iterator[Webhooks]:
    migrate(database_url)
    engine = open_engine(database_url)
    yield Webhooks(engine, Vault("k"))
    engine.dispose()


def test_events_become_deliveries_in_their_transaction(store: Webhooks) -> None:
    ends, _ = store.create("ends", "https://a.example", ["job.succeeded"])
    everything, _ = store.create("all", "https://a.example", ["job.*"])
    off, _ = store.create("off", "https://a.example", ["*"])
    store.edit(off.id, {"enabled": 0})
    with store._engine.begin() as connection:
        for type in ("job.step", "job.succeeded"):
            webhooks.tell(connection, type, {"job_id": "job_1"})
    assert [d.type for d in store.deliveries(ends.id)] == ["job.succeeded"]
    assert [d.type for d in store.deliveries(everything.id)] == ["job.succeeded", "job.step"]
    assert store.deliveries(off.id) == []


def test_every_event_of_the_code_can_be_asked_for() -> None:
    root = Path(events.__file__).parents[1]
    told = {t for path in root.rglob("*.py") for t in re.findall(r'"(job\.[a-z_]+)"', path.read_text())}
    assert told - {"job.status", "job.html"} <= set(events.TYPES)
    assert matches("job.*", "job.failed")
    assert not matches("job.fail", "job.failed")


def test_two_secrets_sign_while_the_receiver_changes_over(tmp_path: Path, receiver: Receiver) -> None:
    with running_service(tmp_path, REPROG_WORKER="false") as service:
        made = service.ok("POST", "/v1/webhooks", json={"url": receiver.url})
        path, old = f"/v1/webhooks/{made['id']}", made["secret"]

        def fits(*secrets: str) -> list[bool]:
            service.ok("POST", f"{path}/test")
            headers, body = receiver.got[-1]
            found: list[bool] = []
            for secret in secrets:
                try:
                    found.append(bool(Webhook(secret).verify(body, headers)))
                except WebhookVerificationError:
                    found.append(False)
            return found

        turned = service.ok("POST", f"{path}/rotate")
        new = turned["secret"]
        assert turned["old_secret_until"] is not None
        assert "secret" not in service.ok("GET", path)
        assert fits(old, new) == [True, True]
        assert receiver.got[-1][0]["webhook-signature"].count("v1,") == 2
        last = service.ok("POST", f"{path}/rotate", json={"keep_hours": 0})
        assert last["old_secret_until"] is None
        assert fits(old, new, last["secret"]) == [False, False, True]
        for hours in (-1, 721, "x"):
            answer = service.client.post(f"{path}/rotate", json={"keep_hours": hours})
            assert (answer.status_code, answer.json()["param"]) == (422, "keep_hours")
        assert service.client.post("/v1/webhooks/wh_none/rotate").status_code == 404


def test_an_old_secret_ends_by_itself_and_is_forgotten(store: Webhooks) -> None:
    hook, old = store.create("", "https://a.example", ["*"])
    _, new = store.rotate(hook.id, 3600)
    assert store.secrets(hook.id) == [new, old]
    assert store.reseal() == 1
    assert store.secrets(hook.id) == [new, old]
    _, newest = store.rotate(hook.id, 1e-6)
    assert store.secrets(hook.id) == [newest]
    store.prune()
    assert store.get(hook.id).old_secret_until is None
    assert store._row(hook.id)[0]["old_secret_encrypted"] is None


def test_a_claim_is_one_senders_and_comes_back_when_it_dies(
    store: Webhooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook, _ = store.create("", "https://a.example", ["*"])
    store.test(hook.id)
    (mine,) = store.claim(8)
    assert store.claim(8) == []
    monkeypatch.setattr("app.storage.webhooks.LEASE_SECONDS", -1.0)
    store.redeliver(hook.id, mine.id)
    (dead,) = store.claim(8)
    (again,) = store.claim(8)
    assert (dead.attempts, again.attempts) == (1, 2)
    store.settle(dead, http_status=200, error=None, again_in=None)  # too late: another has it
    assert store.delivery(hook.id, mine.id).status == "pending"
    store.settle(again, http_status=500, error="no", again_in=None)
    assert store.delivery(hook.id, mine.id).status == "failed"


def test_the_tries_end(store: Webhooks, receiver: Receiver) -> None:
    receiver.status = 500
    hook, _ = store.create("", receiver.url, ["*"])
    sent = store.test(hook.id)
    courier = Courier(store, allow_private=True, schedule=(0.0, 0.0))
    courier.start()
    wait(lambda: store.delivery(hook.id, sent.id).status == "failed")
    courier.close()
    assert len(receiver.got) == 3
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
