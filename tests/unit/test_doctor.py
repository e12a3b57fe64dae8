"""What `reprog doctor` says of the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import doctor
from app.settings import ClientSettings, Settings


def test_settings_with_their_source_and_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "COLUMNS": "200",
        "REPROG_DATA_DIR": str(tmp_path),
        "REPROG_DATABASE_URL": "postgresql+psycopg://user:sesame@127.0.0.1:1/x",
        "REPROG_SECRET_KEY": "sesame",
        "REPROG_API_KEY": "sesame",
        "REPROG_AUDIT_DAYS": "90",
    }.items():
        monkeypatch.setenv(name, value)
    assert doctor.report(Settings(port=9000)) is False, "there is no such database"
    said = capsys.readouterr().out
    assert "sesame" not in said
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if "│" in line]
    found = {name: (value, source) for name, value, source in rows}
    assert found["REPROG_DATABASE_URL"] == ("postgresql+psycopg://user:***@127.0.0.1:1/x", "environment")
    assert found["REPROG_SECRET_KEY"] == found["REPROG_API_KEY"] == ("(set)", "environment")
    assert found["REPROG_AUDIT_DAYS"] == ("90", "environment")
    assert found["REPROG_PORT"] == ("9000", "option")
    assert found["REPROG_HOST"] == ("127.0.0.1", "default")
    assert set(found) == {f"REPROG_{n.upper()}" for of in (Settings, ClientSettings) for n in of.model_fields}
    assert "ILL  database" in said


def test_a_secret_file_is_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPROG_SECRET_KEY", raising=False)
    (tmp_path / "reprog_secret_key").write_text("sesame")
    monkeypatch.setitem(Settings.model_config, "secrets_dir", tmp_path)
    settings = Settings(data_dir=tmp_path)
    assert settings.secret_key is not None
    assert doctor._source(settings, "secret_key") == str(tmp_path)
