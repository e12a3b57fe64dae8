"""The sandbox's classifiers in process, each distinct image paid for once, as over HTTP.

Answers are kept on disk by the pixels asked, so that methods, seeds and repeated runs share what the model
computes. What a run *pays* is counted apart from that: every run begins with nothing paid.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.contracts import Images, Scores
from app.sandbox import clarifai_models, custom_vision
from app.sandbox.classifiers import Classifier, Name, Size, load

CACHE = Path(__file__).parents[2] / ".bench-cache"
KEY_BYTES = 16
MOST_ASKED = 500  # keys in one SQL statement


class SourceModel(NamedTuple):
    """One classifier of the sandbox, and what the service it plays takes for a query (micro-units of USD)."""

    classifier: Name
    size: Size
    micros: int


SOURCES: dict[str, SourceModel] = {
    "mod5": SourceModel("moderation", 128, clarifai_models.PRICE_MICROS),
    "nsfw2": SourceModel("nsfw", 128, clarifai_models.PRICE_MICROS),
    "img1000": SourceModel("imagenet", 128, clarifai_models.PRICE_MICROS),
    "signs43": SourceModel("traffic-signs", 128, custom_vision.PRICE_MICROS),
    "mod5@224": SourceModel("moderation", 224, clarifai_models.PRICE_MICROS),
    "img1000@224": SourceModel("imagenet", 224, clarifai_models.PRICE_MICROS),
}


@cache
def _answers(name: str) -> sqlite3.Connection:
    CACHE.mkdir(exist_ok=True)
    database = sqlite3.connect(CACHE / f"answers-{name}.sqlite", timeout=120, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=OFF")  # a lost answer is computed again
    database.execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, scores BLOB)")
    return database


@dataclass
class Source:
    """One run's account with one classifier. Labels are sorted, as a job sorts them."""

    name: str
    paid: dict[bytes, NDArray[np.float32]] = field(default_factory=dict)
    model_seconds: float = 0.0  # CPU, of images that no run had asked before

    def __post_init__(self) -> None:
        model = SOURCES[self.name]
        self.classifier: Classifier = load(model.classifier, model.size)
        self.side = self.classifier.side
        self.micros = model.micros
        self._order = np.argsort(np.array(self.classifier.labels), kind="stable")
        self.labels = tuple(self.classifier.labels[i] for i in self._order)

    def __call__(self, images: Images) -> Scores:
        """(N, S, S, 3) -> (N, K), as precise as a job's store of answers: float32."""
        keys = [hashlib.blake2b(image.tobytes(), digest_size=KEY_BYTES).digest() for image in images]
        new = {key: i for i, key in enumerate(keys) if key not in self.paid}
        known = self._stored(new)
        self.paid |= known
        fresh = [key for key in new if key not in known]
        if fresh:
            began = time.process_time()
            rows = self.classifier.scores(images[[new[key] for key in fresh]]).astype(np.float32)
            self.model_seconds += time.process_time() - began
            self.paid |= dict(zip(fresh, rows, strict=True))
            self._store(fresh)
        return np.stack([self.paid[key] for key in keys])[:, self._order].astype(np.float64)

    def _stored(self, keys: Iterable[bytes]) -> dict[bytes, NDArray[np.float32]]:
        wanted, found = list(keys), dict[bytes, NDArray[np.float32]]()
        for start in range(0, len(wanted), MOST_ASKED):
            part = wanted[start : start + MOST_ASKED]
            marks = ",".join("?" * len(part))
            query = f"SELECT key, scores FROM answers WHERE key IN ({marks})"
            for key, blob in _answers(self.name).execute(query, part):
                found[key] = np.frombuffer(blob, np.float32)
        return found

    def _store(self, keys: list[bytes]) -> None:
        database = _answers(self.name)
        database.execute("BEGIN IMMEDIATE")
        rows = [(key, self.paid[key].tobytes()) for key in keys]
        database.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)
        database.execute("COMMIT")
