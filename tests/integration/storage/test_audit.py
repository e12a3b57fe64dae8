"""Lines of the audit log stay, unless a setting says for how long."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest
from service import running_service
from sqlalchemy import update

from app.storage import audit, tables
from app.storage.audit import Audit
from app.storage.database import migrate, now, open_engine

DAY = 86_400.0


def test_only_old_lines_go_and_only_when_asked(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_BATCH", 2)
    migrate(database_url)
    engine = open_engine(database_url)
    log = Audit(engine)
    for n in range(7):
        log.add(key_id="key_1", action=f"a{n}", resource="", request_id="", status=200).result()
    first_five = tables.audit.c.id <= log.list(limit=7)[2].id
    with engine.begin() as connection:
        old = now(connection) - 3 * DAY
        connection.execute(update(tables.audit).where(first_five).values(at=old))
    assert log.prune(0) == 0
    assert log.prune(4) == 0
    assert log.prune(2) == 5
    assert [line.action for line in log.list()] == ["a6", "a5"]
    engine.dispose()


def test_a_service_forgets_by_its_setting(tmp_path: Path) -> None:
    with running_service(tmp_path, REPROG_WORKER="false") as service:
        service.ok("POST", "/v1/webhooks", json={"url": f"http://127.0.0.1:{service.port}/"})
        service.stop()
        with sqlite3.connect(tmp_path / "reprog.sqlite") as database:
            database.execute("UPDATE audit SET at = at - ?", (2 * DAY,))
        database.close()
        service.start()
        assert [line["action"] for line in service.ok("GET", "/v1/audit")["data"]] == ["create_webhook"]
        service.stop()
        service.start(REPROG_AUDIT_DAYS="1")
        until = time.monotonic() + 20
        while service.ok("GET", "/v1/audit")["data"]:
            assert time.monotonic() < until
            time.sleep(0.2)
