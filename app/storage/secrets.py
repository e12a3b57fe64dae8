"""The vault: what must not lie in the database in the clear is sealed with a key kept elsewhere."""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app import redaction
from app.errors import BadRequest


class Vault:
    """Seals with the first of several comma-separated keys, opens with any: that is how a key is rotated."""

    def __init__(self, key: str) -> None:
        parts = [part.strip() for part in key.split(",") if part.strip()]
        if not parts:
            raise BadRequest(
                "The secret key is empty.", code="secret_key_empty", hint="Set REPROG_SECRET_KEY."
            )
        for part in parts:
            redaction.remember(part)
        self._fernet = MultiFernet([Fernet(_derive(part)) for part in parts])

    def seal(self, data: bytes) -> bytes:
        return self._fernet.encrypt(data)

    def open(self, token: bytes) -> bytes:
        """Raises BadRequest `secret_unreadable` when no key of ours sealed it."""
        try:
            return self._fernet.decrypt(token)
        except InvalidToken as error:
            raise BadRequest(
                "A stored secret was sealed with a key that this process does not have.",
                code="secret_unreadable",
                hint="Add the old key to REPROG_SECRET_KEY after a comma, or set the secret again.",
            ) from error

    def rotate(self, token: bytes) -> bytes:
        """The same secret sealed with the first key. Raises BadRequest `secret_unreadable`."""
        return self.seal(self.open(token))


def add_key(path: Path) -> None:
    """Put a new key before those in `path` (made when it is missing). Raises OSError."""
    _replace(path, f"{secrets.token_urlsafe(32)},{key_file(path)}")


def drop_old_keys(path: Path) -> int:
    """Keep the first key of `path` alone; returns how many went. Raises OSError."""
    first, *old = [part for part in key_file(path).split(",") if part.strip()]
    _replace(path, first)
    return len(old)


def _replace(path: Path, text: str) -> None:
    """Whole or not at all, readable by its owner only."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _derive(key: str) -> bytes:
    """A Fernet key from a passphrase or random string of any length (HKDF-SHA256)."""
    derived = HKDF(SHA256(), 32, salt=None, info=b"reprog vault 1").derive(key.encode())
    return base64.urlsafe_b64encode(derived)


def key_file(path: Path) -> str:
    """The key in `path`, made (readable by its owner only) when there is none. Safe from several
    processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # fails when another process was first: then its key is the key
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()
