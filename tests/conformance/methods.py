"""What every method keeps to, shown on a small source model that runs in process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from app.contracts import Ask, Images, MethodState, Scores
from app.methods import Method, Problem, Shape
from app.methods.state import from_bytes, to_bytes
from app.reprogramming import program as programs
from app.reprogramming.program import Program
from app.reprogramming.scores import score_floor
from app.reprogramming.transform import View, render, render_many

SIZE, SIDE, LABELS, CLASSES = 32, 8, 5, 3
TRAIN, VAL, TEST = 90, 60, 300


@dataclass
class Source:
    """A fixed random network: 4 x 4 means of the pixels, one hidden layer, five labels. Counts what it is
    asked, each distinct image once, as the answer store does."""

    seen: set[bytes] = field(default_factory=set)
    silent: bool = False  # answers nothing for one image in six
    truncated: bool = False  # returns the best three labels only

    def __post_init__(self) -> None:
        rng = np.random.default_rng(11)
        self.first = rng.standard_normal((192, 24)) / 6
        self.second = rng.standard_normal((24, LABELS))

    def __call__(self, images: Images) -> Scores:
        self.seen.update(image.tobytes() for image in images)
        cells = images.reshape(len(images), 8, 4, 8, 4, 3).mean(axis=(2, 4)).reshape(len(images), -1)
        hidden = np.maximum(0, (cells / 127.5 - 1) @ self.first)
        powers = np.exp(hidden @ self.second)
        scores = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
        if self.truncated:
            scores[scores < np.sort(scores, axis=1)[:, -3:-2]] = np.nan
        if self.silent:
            scores[images.reshape(len(images), -1).sum(axis=1) % 6 == 0] = np.nan
        return scores


def drawn(count: int, seed: int) -> tuple[Images, np.ndarray]:
    """Three kinds of smooth blobs under noise."""
    patterns = np.random.default_rng(4).integers(60, 200, (CLASSES, SIDE, SIDE, 3))
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    noisy = patterns[labels] + 70 * rng.standard_normal((count, SIDE, SIDE, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8), labels.astype(np.intp)


def problem(
    source: Source, queries: int = 800, views: int = 2, seed: int = 3, grouped: bool = False
) -> Problem:
    """The blobs, probed."""
    images, labels = {}, {}
    images["train"], labels["train"] = drawn(TRAIN, 1)
    images["val"], labels["val"] = drawn(VAL, 5)
    probe = {split: source(render(View(size=SIZE), images[split])) for split in images}
    groups = {s: np.arange(len(labels[s])) // 3 + 1000 * (s == "val") for s in images} if grouped else None
    return Problem(
        images=images,
        labels=labels,
        target_labels=("a", "b", "c"),
        source_labels=tuple("vwxyz"),
        score_kind="probability",
        floor=score_floor(np.concatenate(list(probe.values())), "probability"),
        size=SIZE,
        seed=seed,
        queries=queries,
        queries_per_prediction=views,
        probe=probe,
        groups=groups,
    )


def answer(source: Source, task: Problem, wish: Ask) -> Scores:
    """Laid out in memory as a job gets them, columns picked by label: sums depend on it, bit for bit."""
    images = render_many(wish.views, task.images[wish.split][wish.rows])
    return source(images)[:, list(range(LABELS))].reshape(len(wish.views), len(wish.rows), -1)


def play(
    method: Method, task: Problem, source: Source, state: MethodState | None = None
) -> Iterator[MethodState]:
    """Every state from the given one to the end."""
    state = method.start(task) if state is None else state
    yield state
    while (wish := method.ask(task, state)) is not None:
        state = method.tell(task, state, answer(source, task, wish))
        yield state


def same(one: Ask | None, other: Ask | None) -> bool:
    if one is None or other is None:
        return one is other
    alike = (
        a.to_config() == b.to_config() and np.array_equal(a.overlay, b.overlay)
        for a, b in zip(one.views, other.views, strict=True)
    )
    rest = (one.split, one.purpose) == (other.split, other.purpose) and np.array_equal(one.rows, other.rows)
    return rest and all(alike)


def accuracy(program: Program, source: Source) -> float:
    images, labels = drawn(TEST, 9)
    scores = source(render_many(program.views, images)).reshape(len(program.views), TEST, -1)
    return float((programs.score(program, scores, images).argmax(axis=1) == labels).mean())


class MethodSuite:
    """Subclass with a fixture `method`."""

    @pytest.fixture(autouse=True)
    def one_thread(self) -> Iterator[None]:
        """Small matrices: threads of BLAS only wait for each other."""
        with threadpool_limits(1, "blas"):
            yield

    @pytest.fixture
    def method(self) -> Method:
        raise NotImplementedError

    def test_asking_twice_asks_the_same(self, method: Method) -> None:
        source = Source()
        task = problem(source)
        for state in play(method, task, source):
            assert same(method.ask(task, state), method.ask(task, from_bytes(to_bytes(state))))

    def test_replays_from_any_saved_state_bit_for_bit(self, method: Method) -> None:
        source = Source()
        task = problem(source)
        saved = [to_bytes(state) for state in play(method, task, source)]
        for i in {0, len(saved) // 3, 2 * len(saved) // 3, len(saved) - 1}:
            *_, last = play(method, task, source, from_bytes(saved[i]))
            assert to_bytes(last) == saved[-1]

    def test_telling_changes_no_argument(self, method: Method) -> None:
        source = Source()
        task = problem(source)
        for state in play(method, task, source):
            before, wish = to_bytes(state), method.ask(task, state)
            if wish is not None:
                scores = answer(source, task, wish)
                kept = scores.copy()
                method.tell(task, state, scores)
                assert np.array_equal(scores, kept)
            assert to_bytes(state) == before

    @pytest.mark.parametrize(("queries", "views"), [(0, 3), (TRAIN + VAL, 1), (400, 3), (1200, 2)])
    def test_stays_within_its_queries_and_its_plan(self, method: Method, queries: int, views: int) -> None:
        source = Source()
        task = problem(source, queries, views)
        stages = method.plan(Shape(TRAIN, VAL, CLASSES, LABELS, queries, views))
        assert stages[0].name == "probe"
        assert all(stage.queries >= 0 for stage in stages)
        *_, last = play(method, task, source)
        assert len(source.seen) <= max(queries, TRAIN + VAL)
        assert len(source.seen) <= sum(stage.queries for stage in stages) <= max(queries, TRAIN + VAL)
        assert len(method.program(task, last).views) <= views

    def test_has_a_program_to_serve_at_every_moment(self, method: Method) -> None:
        source = Source()
        task = problem(source)
        for state in play(method, task, source):
            program = programs.from_bytes(programs.to_bytes(method.program(task, state)))
            scores = source(render_many(program.views, task.images["val"]))
            target = programs.score(program, scores.reshape(len(program.views), VAL, -1), task.images["val"])
            assert np.allclose(target.sum(axis=1), 1)
            assert program.canonical == (SIDE, SIDE)
            assert all(np.isfinite(value) for value in state.metrics.values())

    def test_never_ends_below_the_head_it_began_with(self, method: Method) -> None:
        source = Source()
        task = problem(source, queries=1500, views=3)
        states = list(play(method, task, source))
        told = [state.metrics["val_accuracy"] for state in states if "val_accuracy" in state.metrics]
        assert told == sorted(told)
        begin, end = (accuracy(method.program(task, states[i]), source) for i in (0, -1))
        assert end >= begin - 0.06  # two standard errors of 300 test images

    def test_another_seed_is_another_run(self, method: Method) -> None:
        source = Source()
        one, other = (problem(source, seed=seed) for seed in (1, 2))
        ends = [to_bytes(list(play(method, task, source))[-1]) for task in (one, one, other)]
        asks = method.ask(one, method.start(one)) is not None
        assert ends[0] == ends[1]
        assert (ends[0] != ends[2]) or not asks

    @pytest.mark.parametrize("trouble", [{"silent": True}, {"truncated": True}])
    def test_lives_with_missing_answers(self, method: Method, trouble: dict[str, bool]) -> None:
        source = Source(**trouble)
        task = problem(source)
        answered = {s: ~np.isnan(task.probe[s]).all(axis=1) for s in task.probe}
        task = replace(
            task,
            images={s: task.images[s][answered[s]] for s in answered},
            labels={s: task.labels[s][answered[s]] for s in answered},
            probe={s: task.probe[s][answered[s]] for s in answered},
        )
        *_, last = play(method, task, source)
        assert method.program(task, last).views

    def test_keeps_groups_together(self, method: Method) -> None:
        source = Source()
        task = problem(source, grouped=True)
        *_, last = play(method, task, source)
        assert method.program(task, last).views
