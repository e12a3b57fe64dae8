"""The Clarifai models that the sandbox plays: their ids, versions and concepts."""

import hashlib
from dataclasses import dataclass

from app.sandbox.classifiers import Name, Size, labels_of
from app.sandbox.desk import Model

PRICE_MICROS = 1200
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Entry:
    """One model of the catalogue; `aliases` are its old 32-digit id and other ids that mean it."""

    id: str
    title: str
    classifier: Name
    aliases: tuple[str, ...]
    created_at: str
    version: str


ENTRIES = (
    Entry(
        "nsfw-recognition",
        "NSFW Recognition",
        "nsfw",
        ("e9576d86d2004ed1a38ba0cf39ecb4b1",),
        "2016-09-17T22:18:59.955626Z",
        "aa47919c9a8d4d94bfa283121281bcc4",
    ),
    Entry(
        "moderation-recognition",
        "Moderation Recognition",
        "moderation",
        ("d16f390eb32cad478c7ae150069bd2c6",),
        "2017-05-12T21:28:00.471607Z",
        "aa8be956dbaa4b7a858826a84253cab9",
    ),
    Entry(
        "imagenet-classification",
        "ImageNet Classification",
        "imagenet",
        ("general-image-recognition", "aaa03c23b3724a16a56b629203edc62c"),
        "2016-03-09T17:11:39.608845Z",
        "5b0a6f0f8d7e4c3fa1f2d3c4b5a69788",
    ),
)
_BY_ID = {name: entry for entry in ENTRIES for name in (entry.id, *entry.aliases)}
_KNOWN_CONCEPTS = {"nsfw": "ai_KxzHKtPl", "sfw": "ai_RT20lm2Q"}


@dataclass(frozen=True)
class Remote:
    """One model at one size: what a model id in a URL stands for."""

    entry: Entry
    model: Model

    @property
    def versions(self) -> tuple[str, str]:
        """The version id in force at first, and the one after a version change."""
        name, size = self.entry.id, self.model.size
        first = self.entry.version if size == 224 else _digest(f"{name}:{size}")
        return first, _digest(f"{name}:{size}:1")

    def concepts(self) -> list[tuple[str, str]]:
        """(id, name) of every concept, in the order of the classifier's labels."""
        labels = labels_of(self.entry.classifier)
        return [(_KNOWN_CONCEPTS.get(label) or _concept_id(label), label) for label in labels]


def find(model_id: str, default_size: Size) -> Remote | None:
    """The model behind a slug or 32-digit id; `-128` or `-224` behind it chooses the size."""
    for size in (128, 224):
        if model_id.endswith(f"-{size}"):
            entry = _BY_ID.get(model_id.removesuffix(f"-{size}"))
            return None if entry is None else _remote(entry, f"{entry.id}-{size}", size)
    entry = _BY_ID.get(model_id)
    return None if entry is None else _remote(entry, entry.id, default_size)


def everything(default_size: Size) -> list[Remote]:
    """All models, each under its plain id and both explicit ones, as the listing shows them."""
    ids = [f"{entry.id}{suffix}" for entry in ENTRIES for suffix in ("", "-128", "-224")]
    return [remote for name in ids if (remote := find(name, default_size)) is not None]


def _remote(entry: Entry, model_id: str, size: Size) -> Remote:
    return Remote(entry, Model(model_id, f"clarifai/{model_id}", entry.classifier, size, PRICE_MICROS))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _concept_id(label: str) -> str:
    number = int(_digest(label), 16)
    return "ai_" + "".join(_BASE62[number // 62**place % 62] for place in range(8))
