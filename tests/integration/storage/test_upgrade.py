"""What a migration does to the data that an older release left."""

from __future__ import annotations

from alembic import command
from sqlalchemy import text

from app.storage.answers import Answers
from app.storage.database import _config, migrate, open_engine, write


def test_answers_of_an_older_release_are_known_as_such(database_url: str) -> None:
    """Those are looked up by the file that was sent as well: nothing is bought again after an upgrade."""
    engine = open_engine(database_url)
    with write(engine) as connection:
        command.upgrade(_config(connection), "0005")
        insert = text("INSERT INTO answers (key, scores) VALUES (:key, :scores)")
        connection.execute(insert, {"key": b"k" * 20, "scores": b"\0" * 8})
    migrate(database_url)
    assert Answers(engine).by_file
    assert Answers(engine).get([b"k" * 20])
    engine.dispose()


def test_a_new_database_has_none(database_url: str) -> None:
    migrate(database_url)
    engine = open_engine(database_url)
    assert not Answers(engine).by_file
    engine.dispose()
