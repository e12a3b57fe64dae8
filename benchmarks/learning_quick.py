"""How well methods learn per query: digits through the sandbox's five-label moderation model, in process.

    python -m benchmarks.learning_quick [--method race] [--views 1 2 4 8] [--queries 10000] [--seeds 0 1 2]

500 learning images (400 train, 100 validation) and 300 test images per seed, at 128 pixels. Learning and
test images come from two halves of the data that no seed mixes: what is tuned is tuned on the first half.
Prints accuracy, queries and seconds; exits with 1 when a mean falls short of its goal.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from app.contracts import Images, Scores
from app.jobs.samples import digits
from app.methods import Problem, make
from app.reprogramming import program as programs
from app.reprogramming.scores import score_floor
from app.reprogramming.transform import View, render, render_many
from app.sandbox.classifiers import Classifier, load

SIDE, TRAIN, VAL, TEST = 128, 400, 100, 300
HALF = 900
GOALS = {1: 0.46, 2: 0.68, 4: 0.78, 8: 0.88}  # accuracy by queries per prediction, at 10,000 queries


@dataclass
class Paid:
    """The source model behind a cache: every distinct image is paid for once."""

    model: Classifier
    answers: dict[bytes, Scores]

    def __call__(self, images: Images) -> Scores:
        for image in images:
            if (key := image.tobytes()) not in self.answers:
                self.answers[key] = self.model.scores(image[None])[0]
        return np.stack([self.answers[image.tobytes()] for image in images])


@dataclass(frozen=True)
class Outcome:
    """One run."""

    accuracy: float
    validation: float
    queries: int
    views: int
    seconds: float


def task(seed: int, queries: int, views: int, source: Paid) -> tuple[Problem, Images, np.ndarray]:
    """The problem, and the test images and labels that learning never sees."""
    sample = digits()
    halves = np.split(np.random.default_rng(12345).permutation(len(sample.labels)), [HALF])
    learning = np.random.default_rng([seed, 1]).permutation(halves[0])
    test = np.random.default_rng([seed, 2]).permutation(halves[1])[:TEST]
    rows = {"train": learning[:TRAIN], "val": learning[TRAIN : TRAIN + VAL]}
    probe = {split: source(render(View(size=SIDE), sample.images[at])) for split, at in rows.items()}
    problem = Problem(
        images={split: sample.images[at] for split, at in rows.items()},
        labels={split: sample.labels[at] for split, at in rows.items()},
        target_labels=sample.classes,
        source_labels=source.model.labels,
        score_kind="probability",
        floor=score_floor(np.concatenate(list(probe.values())), "probability"),
        size=SIDE,
        seed=seed,
        queries=queries,
        queries_per_prediction=views,
        probe=probe,
    )
    return problem, sample.images[test], sample.labels[test]


def run(method: str, views: int, queries: int, seed: int, model: Classifier) -> Outcome:
    """Learn from scratch, then test once."""
    began, source = time.monotonic(), Paid(model, {})
    problem, images, labels = task(seed, queries, views, source)
    learner = make(method, {})
    state = learner.start(problem)
    while (wish := learner.ask(problem, state)) is not None:
        asked = render_many(wish.views, problem.images[wish.split][wish.rows])
        scores = source(asked).reshape(len(wish.views), len(wish.rows), -1)
        state = learner.tell(problem, state, scores)
    program, paid = learner.program(problem, state), len(source.answers)
    scores = source(render_many(program.views, images)).reshape(len(program.views), TEST, -1)
    right = programs.score(program, scores, images).argmax(axis=1) == labels
    seconds = time.monotonic() - began
    return Outcome(float(right.mean()), state.meta["best_accuracy"], paid, len(program.views), seconds)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", default="auto")
    parser.add_argument("--views", type=int, nargs="+", default=sorted(GOALS))
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    model, short = load("moderation", SIDE), False
    with threadpool_limits(1, "blas"):
        for views in args.views:
            accuracies: list[float] = []
            for seed in args.seeds:
                out = run(args.method, views, args.queries, seed, model)
                accuracies.append(out.accuracy)
                print(
                    f"{args.method} views {out.views}/{views} seed {seed}: test {out.accuracy:.3f} "
                    f"validation {out.validation:.3f} queries {out.queries} in {out.seconds:.0f} s",
                    flush=True,
                )
            goal = GOALS.get(views) if args.queries == 10_000 else None
            mean, sd = float(np.mean(accuracies)), float(np.std(accuracies, ddof=len(accuracies) > 1))
            short |= goal is not None and mean < goal
            print(f"{args.method} views {views}: mean {mean:.3f} sd {sd:.3f} goal {goal}", flush=True)
    return int(short)


if __name__ == "__main__":
    sys.exit(main())
