"""The key that seals secrets is replaced while nothing is lost and nothing old stays readable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.contracts import Limits, Price
from app.errors import BadRequest
from app.settings import Settings
from app.storage import tables
from app.storage.connections import NewConnection
from app.storage.idempotency import StoredAnswer
from app.storage.secrets import Vault
from app.wiring import House


def reprog(folder: Path, *words: str, **more: str) -> tuple[int, str]:
    environment = {**os.environ, "REPROG_DATA_DIR": str(folder), **more}
    command = [sys.executable, "-m", "app.cli", *words]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    return run.returncode, run.stdout + run.stderr


def filled(folder: Path, **settings: Any) -> tuple[str, str, str]:
    """A connection and a webhook with secrets; their ids and the webhook's secret."""
    house = House(Settings(data_dir=folder, **settings))
    new = NewConnection(
        "n", "clarifai", "https://a.example", {"model_id": "m"}, {}, Price(0), Limits(), "pat-1234567"
    )
    made = house.connections.create(new)
    hook, secret = house.webhooks.create("", "https://a.example", ["*"])
    house.idempotency.begin("local", "k", "f")
    house.idempotency.finish("local", "k", StoredAnswer(200, {}, b"answer"))
    house.close()
    return made.id, hook.id, secret


def test_the_key_file_is_rotated_by_three_commands(tmp_path: Path) -> None:
    connection, hook, secret = filled(tmp_path)
    file = tmp_path / "secret.key"
    old = file.read_text()
    assert reprog(tmp_path, "secrets", "new-key")[0] == 0
    new, _, kept = file.read_text().partition(",")
    assert kept == old
    assert file.stat().st_mode & 0o077 == 0
    early = reprog(tmp_path, "secrets", "drop-old-keys")
    assert (early[0], "does not have" in early[1]) == (3, True), early
    assert file.read_text() == f"{new},{old}"
    assert reprog(tmp_path, "secrets", "rotate") == (
        0,
        "sealed again: 1 connections, 1 webhooks, 1 kept answers\n"
        "The older keys are no longer needed: drop them, and restart every process.\n",
    )
    assert reprog(tmp_path, "secrets", "drop-old-keys")[0] == 0
    assert file.read_text() == new
    house = House(Settings(data_dir=tmp_path))
    assert house.connections.secret(connection) == "pat-1234567"
    assert house.webhooks.secrets(hook) == [secret]
    kept_answer = house.idempotency.begin("local", "k", "f")
    assert kept_answer is not None
    assert kept_answer.body == b"answer"
    with house.engine.connect() as opened:
        sealed = opened.execute(select(tables.connections.c.secret_encrypted)).scalar_one()
        assert opened.execute(select(tables.audit.c.action)).scalars().first() == "rotate_secrets"
    house.close()
    with pytest.raises(BadRequest, match="does not have"):
        Vault(old).open(sealed.encode())


def test_a_key_of_the_environment_is_rotated_by_naming_both(tmp_path: Path) -> None:
    connection, *_ = filled(tmp_path, secret_key="old")
    refused = reprog(tmp_path, "secrets", "new-key", REPROG_SECRET_KEY="old")
    assert refused[0] == 3
    assert "comma" in refused[1]
    assert reprog(tmp_path, "secrets", "rotate", REPROG_SECRET_KEY="stranger")[0] == 3
    assert reprog(tmp_path, "secrets", "rotate", REPROG_SECRET_KEY="new,old")[0] == 0
    house = House(Settings(data_dir=tmp_path, secret_key="new"))
    assert house.connections.secret(connection) == "pat-1234567"
    house.close()
