from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from app import redaction
from app.redaction import HIDDEN, redact


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger with a handler of its own, as a library would bring one."""
    before = logging.getLogRecordFactory()
    redaction.install()
    redaction.install()
    out = io.StringIO()
    handler, logger = logging.StreamHandler(out), logging.getLogger("somebody.else")
    logger.addHandler(handler)
    logger.propagate = False
    yield logger, out
    logger.removeHandler(handler)
    logger.propagate = True
    logging.setLogRecordFactory(before)


def test_secrets_are_hidden_in_lines_arguments_and_traces(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, out = log
    redaction.remember("AKIA0042:s3cr3t/with+signs")
    logger.warning("sent %s to %s", "s3cr3t/with+signs", {"key": "AKIA0042"})
    logger.warning("quoted s3cr3t%2Fwith%2Bsigns")
    try:
        raise ValueError("no s3cr3t/with+signs") from KeyError("AKIA0042")
    except ValueError:
        logger.exception("failed")
    logger.warning(
        "Authorization: Bearer abcdefghijkl and rk_0123456789abcdefghij and whsec_0123456789abcdef=="
    )
    said = out.getvalue()
    for secret in ("s3cr3t", "AKIA0042", "abcdefghijkl", "rk_01", "whsec_01"):
        assert secret not in said, said
    assert said.count(HIDDEN) >= 7
    assert "ValueError: no" in said


def test_other_words_stay() -> None:
    redaction.remember("abc")  # too short to be looked for
    for text in ("abc def", "key_01k9w3v0q2x8f6m4t7c1n5b9za", "the bearer of news", "rk_short"):
        assert redact(text) == text


def test_a_wrong_format_string_is_logged_not_lost(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, out = log
    logger.warning("%d of %d", "one")
    assert "one" in out.getvalue()
