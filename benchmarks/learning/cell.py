"""One cell of the grid: learn a task through a source model by a method, then look once at the test."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from app.contracts import Ask, Images, Labels, MethodState, Scores, Split
from app.jobs import report
from app.methods import Method, Problem, choice, make
from app.reprogramming import metrics
from app.reprogramming import program as programs
from app.reprogramming.mapping import LabelMapping, linear_mapping
from app.reprogramming.program import Program
from app.reprogramming.scores import score_floor
from app.reprogramming.transform import View, render_many
from benchmarks.learning import sources, tasks
from benchmarks.learning.sources import Source

CHUNK = 512  # images rendered at once
WIDE = 1_000  # columns of raw data, from which on forests and kernels take minutes

#: Name in the report -> method.type and its options; the others go by their own name, with defaults.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bar-paper": (
        "bar",
        {"directions": 25, "program": {"resolution": "pixel"}, "mapping": {"type": "random"}},
    ),
    "auto": ("auto", {"fused": "auto"}),
    "auto-scores": ("auto", {"fused": False}),
    "zoo-newton": ("zoo", {"solver": "newton"}),
    **{f"bar q={q}": ("bar", {"directions": q}) for q in (1, 25)},
    **{f"bar m={m}": ("bar", {"mapping": {"type": "frequency", "labels_per_class": m}}) for m in (1, 3)},
    "bar cross-entropy": ("bar", {"loss": {"type": "cross_entropy"}}),
    "bar random": ("bar", {"mapping": {"type": "random"}}),
}


@dataclass(frozen=True)
class Cell:
    """What to run. `queries` are those of learning, the probe pass included; the test comes on top."""

    task: str
    source: str
    method: str
    views: int  # queries per prediction allowed
    queries: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task}/{self.source}/{self.method}/r{self.views}/{self.queries}/s{self.seed}"


@dataclass
class Clock:
    """CPU seconds of the parts of a run."""

    render: float = 0.0
    ask: float = 0.0  # model, cache and bookkeeping of the benchmark
    learn: float = 0.0


def run(cell: Cell) -> dict[str, Any]:
    """The cell's line of results."""
    began, clock, source = time.monotonic(), Clock(), Source(cell.source)
    with threadpool_limits(1):
        problem, images, labels = problem_of(cell, source)
        if cell.method == "baselines":
            found = _rivals(cell, problem, images, labels, source)
        else:
            found = _learned(cell, problem, images, labels, source, clock)
    return {
        "cell": cell.name,
        **asdict(cell),
        "images": {**{split: len(rows) for split, rows in problem.labels.items()}, "test": len(labels)},
        **found,
        "cpu": {
            **{k: round(v, 3) for k, v in asdict(clock).items()},
            "model": round(source.model_seconds, 3),
        },
        "seconds": round(time.monotonic() - began, 1),
    }


def problem_of(cell: Cell, source: Source) -> tuple[Problem, Images, Labels]:
    """The problem, its probe paid, and the test images and labels that learning never sees."""
    task = tasks.load(cell.task)
    rows = task.rows(cell.seed, cell.queries)
    pictures = task.pictures(rows["train"])
    images = {split: pictures[at] for split, at in rows.items()}
    labels = {split: task.labels[at] for split, at in rows.items()}
    groups = None if task.groups is None else {split: task.groups[at] for split, at in rows.items()}
    return posed(cell, source, task.classes, images, labels, groups)


def posed(
    cell: Cell,
    source: Source,
    classes: tuple[str, ...],
    images: dict[Split, Images],
    labels: dict[Split, Labels],
    groups: dict[Split, NDArray[Any]] | None = None,
) -> tuple[Problem, Images, Labels]:
    """`problem_of` of images that are split already, test included."""
    learning: tuple[Split, Split] = ("train", "val")
    plain = (View(size=source.side),)
    probe = {split: asked(source, plain, images[split])[0] for split in learning}
    problem = Problem(
        images={split: images[split] for split in learning},
        labels={split: labels[split] for split in learning},
        target_labels=classes,
        source_labels=source.labels,
        score_kind="probability",
        floor=score_floor(np.concatenate(list(probe.values())), "probability"),
        size=source.side,
        seed=cell.seed,
        queries=cell.queries,
        queries_per_prediction=cell.views,
        probe=probe,
        groups=None if groups is None else {split: groups[split] for split in learning},
    )
    return problem, images["test"], labels["test"]


def asked(source: Source, views: tuple[View, ...], images: Images, clock: Clock | None = None) -> Scores:
    """(V, n, K) scores, a few images at a time."""
    clock = clock or Clock()
    rows = max(1, CHUNK // len(views))
    parts: list[Scores] = []
    for start in range(0, len(images), rows):
        t0 = time.process_time()
        pixels = render_many(views, images[start : start + rows])
        t1 = time.process_time()
        parts.append(source(pixels).reshape(len(views), -1, len(source.labels)))
        clock.render += t1 - t0
        clock.ask += time.process_time() - t1
    return np.concatenate(parts, axis=1)


def learner_of(cell: Cell) -> Method:
    name, options = VARIANTS.get(cell.method, (cell.method, {}))
    return make(name, options)


def learn(
    cell: Cell, problem: Problem, source: Source, clock: Clock | None = None
) -> tuple[Program, MethodState, Own]:
    """The finished program, the method's last state, and what the method made by itself."""
    learner, own, clock = learner_of(cell), Own(problem), clock or Clock()
    began = time.process_time()
    state = learner.start(problem)
    clock.learn += time.process_time() - began
    while (wish := learner.ask(problem, state)) is not None:
        scores = asked(source, wish.views, problem.images[wish.split][wish.rows], clock)
        began = time.process_time()
        told = learner.tell(problem, state, scores)
        clock.learn += time.process_time() - began
        own.saw(wish, state, told)
        state = told
    return learner.program(problem, state), state, own


def _learned(
    cell: Cell, problem: Problem, images: Images, labels: Labels, source: Source, clock: Clock
) -> dict[str, Any]:
    program, state, own = learn(cell, problem, source, clock)
    paid = len(source.paid)
    assert paid <= max(cell.queries, problem.count), f"{cell.name} asked {paid} queries"
    target = programs.score(program, asked(source, program.views, images), images)
    right = target.argmax(axis=1) == labels
    return {
        "paid": paid,
        "micros": paid * source.micros,
        "asks": len(program.views),
        "fused": program.pixel_features,
        "accuracy": float(right.mean()),
        "balanced_accuracy": metrics.balanced_accuracy(labels, target.argmax(axis=1)),
        "auroc": metrics.auroc(target, labels),
        "ece": metrics.ece(target, labels),
        "validation": float(state.meta["best_accuracy"]),
        "right": packed(right),
        **own.tested(images, labels, source),
    }


class Own:
    """The best program that a descending method made by itself: what it serves may be the plain head."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._program: Program | None = None
        self._validation = -1.0

    def saw(self, wish: Ask, state: MethodState, told: MethodState) -> None:
        """A judgement of the prompt as it stands: the mapping it was judged with is in the state."""
        accuracy = told.metrics.get("candidate_val_accuracy", -1.0)
        parts = {n.removeprefix("mapping."): a for n, a in state.arrays.items() if n.startswith("mapping.")}
        if not parts or accuracy <= self._validation:
            return
        kind = "group" if parts.pop("kind") else "linear"
        mapping = LabelMapping.from_arrays(parts, {"kind": kind, "gamma": 0.0})
        self._program = choice.assembled(self._problem, wish.views, mapping)
        self._validation = accuracy

    def tested(self, images: Images, labels: Labels, source: Source) -> dict[str, Any]:
        if self._program is None:
            return {}
        target = programs.score(self._program, asked(source, self._program.views, images), images)
        return {
            "own": {
                "accuracy": float((target.argmax(axis=1) == labels).mean()),
                "validation": self._validation,
            }
        }


def _rivals(cell: Cell, problem: Problem, images: Images, labels: Labels, source: Source) -> dict[str, Any]:
    """Everything a program is compared with, and a model on what the images were made of."""
    plain = asked(source, (View(size=source.side),), images)[0]
    paid = report.paid_rivals(problem, images, plain)
    right = {name: (rival.predicted == labels, rival.queries) for name, rival in paid.items()}
    found = _free(cell, problem, images, labels) | right
    return {
        "rivals": {
            name: {
                "accuracy": float(flags.mean()),
                "paid": queries,
                "micros": queries * source.micros,
                "right": packed(flags),
            }
            for name, (flags, queries) in found.items()
        }
    }


def _free(
    cell: Cell, problem: Problem, images: Images, labels: Labels
) -> dict[str, tuple[NDArray[np.bool_], int]]:
    """Rivals that ask no source model are right for every source alike: fitted once, then read back."""
    counts = "-".join(str(len(rows)) for rows in problem.labels.values())
    path = sources.CACHE / "free" / f"{cell.task}-{counts}-s{cell.seed}.json"
    if not path.exists():
        predictions = {name: rival.predicted for name, rival in report.free_rivals(problem, images).items()}
        if tasks.load(cell.task).raw is not None:
            predictions["raw_data"] = _raw_data(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        said = {name: packed(predicted == labels) for name, predicted in predictions.items()}
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(said))
        draft.replace(path)
    return {name: (unpacked(bits, len(labels)), 0) for name, bits in json.loads(path.read_text()).items()}


def _raw_data(cell: Cell) -> Labels:
    """Test predictions of a model on what the images were made of: the best of the classic ones, or of many
    columns a linear head with its penalty by cross-validation."""
    task = tasks.load(cell.task)
    assert task.raw is not None
    rows = task.rows(cell.seed, cell.queries)
    train = np.concatenate([rows["train"], rows["val"]])
    known, labels, asked_of = task.raw[train], task.labels[train], task.raw[rows["test"]]
    if known.shape[1] <= WIDE:
        return metrics.raw_pixel_baseline(known, labels, asked_of, cell.seed)
    head = linear_mapping(known, labels, len(task.classes), seed=cell.seed)
    return head.apply(asked_of).argmax(axis=1)


def packed(right: NDArray[np.bool_]) -> str:
    """One bit per test image, as hexadecimal."""
    return np.packbits(right).tobytes().hex()


def unpacked(text: str, count: int) -> NDArray[np.bool_]:
    """The inverse."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=count).astype(bool)
