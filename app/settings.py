"""The only reader of the environment: `REPROG_*` variables and `/run/secrets`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

_SECRETS = Path("/run/secrets")


class Settings(BaseSettings):
    """Settings of one process. Every field is `REPROG_<NAME>`; docs/settings.md lists them all."""

    model_config = SettingsConfigDict(
        env_prefix="REPROG_", extra="ignore", secrets_dir=_SECRETS if _SECRETS.is_dir() else None
    )

    data_dir: Path = Field(
        default=Path("./data"), description="Data sets, the default database, the secret key."
    )
    database_url: str = Field(
        default="",
        description="`sqlite:///...` or `postgresql+psycopg://...`; empty: SQLite under the data dir.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, description="Port to listen on.")
    auth: Literal["off", "keys"] = Field(
        default="off", description="`off` is refused unless bound to loopback; `keys` asks for a bearer key."
    )
    secret_key: SecretStr | None = Field(default=None, description="Encrypts stored provider secrets.")
    secret_key_file: Path | None = Field(default=None, description="A file that holds the secret key.")
    allow_private_hosts: bool = Field(
        default=False, description="Allow provider URLs that resolve to private or loopback addresses."
    )
    worker: bool = Field(default=True, description="`reprog serve` also runs jobs.")
    executor_id: str = Field(
        default="", description="Unique, stable name of this process; empty: host and slot."
    )
    max_upload_bytes: int = Field(default=512 * 2**20, description="Largest data set upload, in bytes.")
    audit_days: int = Field(
        default=0, ge=0, description="Lines of the audit log are deleted after so many days; 0: never."
    )
    fault: str = Field(default="", description="Tests only: a named crash point, `name` or `name:n`.")
    otel: bool = Field(
        default=False, description="Send OpenTelemetry traces; where to, says OTEL_EXPORTER_OTLP_ENDPOINT."
    )
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")

    def database(self) -> str:
        """The SQLAlchemy URL of our tables."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve()}/reprog.sqlite"

    def engine_database(self) -> str:
        """The URL of the engine's own tables: a separate file on SQLite, the same server on PostgreSQL."""
        url = self.database()
        if url.startswith("sqlite"):
            return url.removesuffix(".sqlite") + ".engine.sqlite"
        return url


def environment(name: str) -> str | None:
    """An environment variable named by a `secret_ref: "env:NAME"`."""
    return os.environ.get(name)


class ClientSettings(BaseSettings):
    """Where the command line finds the service."""

    model_config = SettingsConfigDict(env_prefix="REPROG_", extra="ignore")

    url: str = Field(
        default="http://127.0.0.1:8000", description="Address of the service for the command line."
    )
    api_key: SecretStr | None = Field(default=None, description="Bearer key of the command line.")
