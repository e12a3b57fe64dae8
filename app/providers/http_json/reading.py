"""One image's answer, anywhere in JSON, to label -> score."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jmespath
import numpy as np
from jmespath.exceptions import JMESPathError

from app.contracts import Outcome, ScoreKind, WireReply
from app.errors import ReplyInvalid
from app.providers import wire
from app.providers.http_json.settings import Response

Find = Callable[[Any], Any]


class Reader:
    """One image's item to label -> score. Raises ReplyInvalid."""

    def __init__(self, response: Response) -> None:
        self._r = response
        self._labels_at, self._scores_at = response.labels_path, response.scores_path
        normalised = response.score.normalise != "none"
        self.kind: ScoreKind = "probability" if normalised else response.score.kind
        named = response.labels + ([response.complement] if response.complement else [])
        self.labels = tuple(dict.fromkeys(named))
        self._rows, self._label, self._score = (
            finder(self._labels_at),
            finder(None),
            finder(self._scores_at),
        )
        self._in_rows = False
        if self._labels_at and self._scores_at:
            # One expression for both keeps a row's label and score together when one of them is missing.
            a, b = (re.match(r"(?s)(.*\[\*?\]|)\.?(.*)", at) for at in (self._labels_at, self._scores_at))
            if a and b and a[1] and a[1] == b[1] and a[2] and b[2]:
                self._in_rows = True
                self._rows, self._label, self._score = (finder(at) for at in (a[1], a[2], b[2]))

    def __call__(self, item: object) -> Outcome:
        found: dict[str, list[float]] = {}
        for label, value in self._pairs(item):
            if not label:
                raise ReplyInvalid("A score without a label.")
            number = self._number(value)
            if number is not None:
                found.setdefault(label, []).append(number)
        outcome = {label: _aggregated(numbers, self._r.aggregate) for label, numbers in found.items()}
        if not outcome and not self._in_rows and self._r.missing != "zero":  # an empty list is an answer
            raise ReplyInvalid("An answer without scores.")
        return self._completed(self._normalised(outcome))

    def _pairs(self, item: object) -> list[tuple[str, Any]]:
        if self._in_rows:
            rows = self._rows(item)
            if not isinstance(rows, list):
                raise ReplyInvalid("There is no list at the common start of labels_path and scores_path.")
            return [(wire.text(self._label(row)), self._score(row)) for row in rows]
        if self._labels_at is not None:
            return self._parallel(self._rows(item), item)
        value = self._score(item)
        if isinstance(value, Mapping):
            if self._r.layout not in ("auto", "dict"):
                raise ReplyInvalid(f"There is an object where layout {self._r.layout} expects none.")
            return [(str(label), score) for label, score in value.items()]
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
            value = value[0]  # the only row of a matrix
        if not isinstance(value, list):
            return self._one(value)
        if len(value) != len(self._r.labels):
            raise ReplyInvalid(f"{len(value)} scores for {len(self._r.labels)} labels in the settings.")
        return list(zip(self._r.labels, value, strict=True))

    def _parallel(self, labels: object, item: object) -> list[tuple[str, Any]]:
        """A list of labels beside a list of scores; labels alone where only labels are answered."""
        labels = labels if isinstance(labels, list) else [labels]
        if self._scores_at is None:
            if self.kind != "label":
                raise ReplyInvalid("labels_path without scores_path needs score kind `label`.")
            return [(wire.text(label), 1.0) for label in labels]
        scores = self._score(item)
        scores = scores if isinstance(scores, list) else [scores]
        if len(scores) != len(labels):
            raise ReplyInvalid(f"{len(labels)} labels and {len(scores)} scores.")
        return [(wire.text(label), score) for label, score in zip(labels, scores, strict=True)]

    def _one(self, value: object) -> list[tuple[str, Any]]:
        if not self._r.labels or (len(self._r.labels) > 1 and self._r.complement is None):
            if len(self._r.labels) != 2:
                raise ReplyInvalid("One score needs one label in `labels`, and perhaps `complement`.")
            first, second = self._r.labels
        else:
            first, second = self._r.labels[0], self._r.complement
        number = self._number(value)
        if number is None or second is None:
            return [(first, value)]
        whole = 100.0 if self.kind == "percent" else 1.0
        # Scaled back, since `_number` is applied to every value once more.
        return [(first, value), (second, (whole - number) / (self._r.score.scale or 1.0))]

    def _number(self, value: object) -> float | None:
        """None: the service says that it does not know."""
        score = self._r.score
        if isinstance(value, str) and value in score.enum:
            return score.enum[value]
        if isinstance(value, bool) and self.kind == "label":
            return float(value)
        kind: ScoreKind = "logit" if score.normalise != "none" or score.scale != 1.0 else score.kind
        number = wire.score(value, kind) * score.scale
        return number if score.normalise != "none" else wire.score(number, score.kind)

    def _normalised(self, outcome: dict[str, float]) -> dict[str, float]:
        how, numbers = self._r.score.normalise, np.array(list(outcome.values()))
        if how == "none" or not outcome:
            return outcome
        if how == "softmax":
            numbers = np.exp(numbers - numbers.max())
        total = float(numbers.sum())
        if numbers.min() < 0 or not 0 < total < np.inf:
            raise ReplyInvalid("The scores cannot be made to add to one.")
        return dict(zip(outcome, (numbers / total).tolist(), strict=True))

    def _completed(self, outcome: dict[str, float]) -> dict[str, float]:
        """Labels that were not answered: left out (censored), zero or an error, as the settings say."""
        absent = [label for label in self.labels if label not in outcome]
        if absent and self._r.missing == "error":
            raise ReplyInvalid(f"No score for {absent[0]!r}.")
        return outcome | dict.fromkeys(absent, 0.0) if self._r.missing == "zero" else outcome


def _aggregated(numbers: Sequence[float], how: str) -> float:
    """Several scores of one label: the largest, or that of at least one being there."""
    if len(numbers) == 1 or how == "max":
        return max(numbers)
    return float(1 - np.prod([1 - number for number in numbers]))


def finder(path: str | None) -> Find:
    """Evaluates a JMESPath expression; None where it does not fit. No path: the value itself."""
    if path is None:
        return lambda value: value
    compiled = jmespath.compile(path)

    def find(value: Any) -> Any:  # noqa: ANN401 - JSON
        try:
            return compiled.search(value)
        except (JMESPathError, TypeError, ValueError, AttributeError, RecursionError):
            return None

    return find


def place(where: str | None) -> Callable[[WireReply, Any], Any]:
    if where is None:
        return lambda reply, body: None
    if where.startswith("header:"):
        name = where.removeprefix("header:").strip().lower()
        return lambda reply, body: reply.headers.get(name)
    find = finder(where)
    return lambda reply, body: find(body)
