"""What a program says of the test images, read from answers that are paid already: it costs nothing."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from app.api.deps import Services
from app.contracts import Images, Labels, Scores, TargetScores
from app.errors import NotFound
from app.jobs import dataset
from app.reprogramming import program as programs
from app.reprogramming.program import Program
from app.reprogramming.transform import render_many
from app.storage.jobs import JobRecord

BINS = 10
_KEPT = 8
_TOP = 3
_CHUNK = 128  # images rendered at once: bounds memory


@dataclass(frozen=True)
class Reading:
    """n answered test images. `items` are their numbers in the data set, `source` (V, n, K) what the source
    model answered, `target` (n, T) what the program made of it."""

    program: Program
    checkpoint_id: str
    items: NDArray[np.intp]
    labels: Labels
    source: Scores
    target: TargetScores
    unanswered: int

    @property
    def predicted(self) -> Labels:
        return self.target.argmax(axis=1)

    def cell(self, true: int, predicted: int, limit: int = 60) -> list[tuple[int, float]]:
        """(item, score of the predicted label) of test images in one cell of the confusion matrix, most
        certain first."""
        found = np.flatnonzero((self.labels == true) & (self.predicted == predicted))
        order = found[np.argsort(-self.target[found, predicted], kind="stable")][:limit]
        return [(int(self.items[i]), float(self.target[i, predicted])) for i in order]

    def reliability(self) -> list[tuple[float, float, int]]:
        """(mean top score, share right, images) of each of BINS equal bins of the top score that has images
        (Guo et al. 2017, figure 1)."""
        top, right = self.target.max(axis=1), self.predicted == self.labels
        which = np.minimum((top * BINS).astype(np.intp), BINS - 1)
        return [
            (float(top[inside].mean()), float(right[inside].mean()), int(inside.sum()))
            for inside in (which == b for b in range(BINS))
            if inside.any()
        ]

    def heard(self, row: int, view: int) -> list[tuple[str, float]]:
        """The highest source labels that one view of an image got."""
        scores = np.nan_to_num(self.source[view, row], nan=-np.inf)
        order = np.argsort(-scores, kind="stable")[:_TOP]
        return [(self.program.source_labels[k], float(scores[k])) for k in order if np.isfinite(scores[k])]

    def spread(self, count: int) -> list[int]:
        """Rows of about `count` images, evenly over the classes that occur."""
        by_class = [list(np.flatnonzero(self.labels == j)) for j in np.unique(self.labels)]
        rows: list[int] = []
        while len(rows) < count and any(by_class):
            rows += [int(found.pop(0)) for found in by_class if found]
        return rows[:count]


_lock = Lock()
_known: OrderedDict[str, Reading] = OrderedDict()


def read(wired: Services, job: JobRecord, checkpoint_id: str | None = None) -> Reading:
    """The reading of a program, the finished or best one by default; a few are kept. Blocks for a second or
    so the first time. Raises NotFound without a program, or when nothing is known of the test images."""
    chosen = checkpoint_id or wired.jobs.latest_program(job.id).id
    with _lock:
        if chosen in _known:
            return _known[chosen]
    made = _read(wired, job, chosen)
    if job.over:  # until then more answers come
        with _lock:
            _known[chosen] = made
            while len(_known) > _KEPT:
                _known.popitem(last=False)
    return made


def _read(wired: Services, job: JobRecord, checkpoint_id: str) -> Reading:
    program = programs.from_bytes(wired.jobs.program(checkpoint_id))
    record = wired.datasets.get(job.dataset_id)
    data = dataset.load(wired.datasets.folder(record.id), max_side=program.views[0].size)
    images, labels = data.images["test"], data.labels["test"]
    source = _recall(wired, job.connection_id, program, images)
    answered = ~np.isnan(source).all(axis=2).any(axis=0)
    if not answered.any():
        raise NotFound(
            "This program has not been shown the test images yet.",
            code="not_tested",
            hint="The test is the last thing a job does; other checkpoints are never tested.",
        )
    counts = record.images()
    first = counts.get("train", 0) + counts.get("val", 0)  # items lie split by split
    kept = source[:, answered]
    return Reading(
        program=program,
        checkpoint_id=checkpoint_id,
        items=first + np.flatnonzero(answered),
        labels=labels[answered],
        source=kept,
        target=programs.score(program, kept, images[answered]),
        unanswered=int((~answered).sum()),
    )


def _recall(wired: Services, connection_id: str, program: Program, images: Images) -> Scores:
    """(V, n, K) known scores in the program's column order."""
    parts: list[Scores] = []
    for start in range(0, len(images), _CHUNK):
        pixels = render_many(program.views, images[start : start + _CHUNK])
        known = wired.recall(connection_id, pixels).under(program.source_labels)
        parts.append(known.reshape(len(program.views), -1, known.shape[1]))
    return np.concatenate(parts, axis=1)
