"""How a race shares out its queries, and whom it keeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conformance.methods import Source, play, problem
from hypothesis import given, settings
from hypothesis import strategies as st

from app.contracts import MethodState
from app.methods import Race, Shape, finals
from app.methods import race as race_module
from app.methods.candidates import ZOOMED, candidates
from app.methods.race import FIRST, NEAR, SECOND, RaceOptions, spread
from app.reprogramming.program import to_bytes
from app.reprogramming.transform import render

DIGITS = Shape(
    train=400, val=100, target_labels=10, source_labels=5, queries=10_000, queries_per_prediction=8
)


@settings(deadline=None, max_examples=200)
@given(
    train=st.integers(10, 800),
    val=st.integers(2, 300),
    classes=st.integers(2, 50),
    labels=st.one_of(st.none(), st.integers(1, 1000)),
    queries=st.integers(0, 50_000),
    views=st.integers(1, 16),
    images=st.integers(20, 300),
)
def test_the_plan_never_passes_the_budget(
    train: int, val: int, classes: int, labels: int | None, queries: int, views: int, images: int
) -> None:
    shape = Shape(train, val, classes, labels, queries, views)
    race = Race(options=RaceOptions(images=images))
    stages = race.plan(shape)
    assert sum(stage.queries for stage in stages) <= max(queries, train + val)
    assert min(stage.queries for stage in stages) >= 0
    assert 1 <= race.rounds(shape).views <= views


def test_ten_thousand_queries_race_some_sixty_candidates_for_eight_views() -> None:
    rounds = Race().rounds(DIGITS)
    assert rounds.views == 8
    assert 50 <= rounds.candidates <= 90
    assert (rounds.first, rounds.second) == (60, 150)


def test_neighbours_are_for_few_views() -> None:
    many, few = Race().rounds(DIGITS), Race().rounds(replace(DIGITS, queries_per_prediction=2))
    assert many.drawn == many.candidates
    assert few.drawn == -(-few.candidates // 2)


def test_many_source_labels_need_few_candidates() -> None:
    """Money left over buys more images each, then twice as many."""
    found = {
        queries: Race().rounds(Shape(400, 100, 10, 1000, queries, 2))
        for queries in (2_000, 3_000, 4_000, 50_000)
    }
    assert {q: (r.candidates, r.first) for q, r in found.items()} == {
        2_000: (8, 60), 3_000: (15, 100), 4_000: (24, 100), 50_000: (24, 100)
    }  # fmt: skip
    asked = RaceOptions(candidates=6, images=40)
    rounds = Race(options=asked).rounds(Shape(400, 100, 4, 1000, 50_000, 2))
    assert (rounds.candidates, rounds.first) == (6, 40)
    too_few = RaceOptions(candidates=3)
    assert Race(options=too_few).rounds(Shape(400, 100, 4, 1000, 50_000, 2)).second == 0


def test_all_views_that_may_be_asked_are_raced_for() -> None:
    """Four candidates a view or more, more than the second round keeps, with many source labels too."""
    rounds = Race().rounds(Shape(400, 100, 7, 1000, 10_000, 8))
    assert rounds.views == 8
    assert 32 <= rounds.candidates <= 64
    assert rounds.kept > rounds.views


def test_money_for_less_than_a_race_buys_unselected_views() -> None:
    rounds = Race().rounds(Shape(400, 100, 10, 5, 500 + 1100, 4))
    assert (rounds.second, rounds.views) == (0, 3)
    assert Race().rounds(Shape(400, 100, 10, 5, 500, 4)).views == 1


def test_phases_follow_each_other_and_the_second_round_holds_the_first() -> None:
    source = Source()
    task = problem(source, queries=3000, views=2)
    race, rows = Race(), {}
    order: list[str] = []
    for state in play(race, task, source):
        if not order or order[-1] != state.phase:
            order.append(state.phase)
        if state.phase in (FIRST, NEAR, SECOND):
            wish = race.ask(task, state)
            assert wish is not None
            rows[state.phase] = set(wish.rows.tolist())
    assert order == [FIRST, NEAR, SECOND, "validate", "fit", "validate", "fit", "done"]
    assert rows[FIRST] == rows[NEAR] < rows[SECOND]


def test_a_race_too_long_for_its_checkpoint_asks_again_and_ends_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is paid is at hand, in the checkpoint or for the asking."""
    ends: list[bytes] = []
    for most in (finals.MOST_KEPT, 0):
        monkeypatch.setattr(finals, "MOST_KEPT", most)
        source = Source()
        task = problem(source, queries=5000, views=2)
        race, asked = Race(), 0
        for state in play(race, task, source):
            if state.phase == FIRST and (wish := race.ask(task, state)) is not None:
                asked = max(asked, len(wish.views))
            if state.phase == NEAR:
                assert (race_module.HEARD in state.arrays) == (most > 0)
            if state.phase in finals.SPLITS and state.meta["prefix"] == 2:
                wish = race.ask(task, state)
                assert wish is not None
                assert len(wish.views) == (1 if most else 2)
        ends.append(to_bytes(race.program(task, state)))
        assert (asked == race.rounds(task.shape).drawn) == (most == 0)
    assert ends[0] == ends[1]


def test_neighbours_descend_from_those_that_did_best() -> None:
    source = Source()
    task = problem(source, queries=3000, views=2)
    states = list(play(Race(), task, source))
    begun = next(state for state in states if state.phase == NEAR)
    drawn = [path for path in begun.meta["running"] if len(path) == 1]
    near = [path for path in begun.meta["running"] if len(path) == 2]
    assert abs(len(drawn) - len(near)) <= 1
    assert len({path[0] for path in near}) <= 6
    assert len({tuple(path) for path in begun.meta["running"]}) == len(begun.meta["running"])


def test_a_race_finds_the_candidate_that_tells_the_classes_apart() -> None:
    """All but one candidate answer noise."""
    source = Source()
    task = problem(source, queries=1500, views=1)
    race, rng = Race(), np.random.default_rng(0)
    state: MethodState = race.start(task)
    star = candidates(task.size, task.seed, [[3]])[0]
    while (wish := race.ask(task, state)) is not None:
        labels = task.labels[wish.split][wish.rows]
        scores = rng.dirichlet(np.ones(5), (len(wish.views), len(wish.rows)))
        for i, view in enumerate(wish.views):
            if view.to_config() == star.to_config():
                scores[i] = 0.05
                scores[i, np.arange(len(labels)), labels] = 0.8
        state = race.tell(task, state, scores)
    assert race.program(task, state).views[0].to_config() == star.to_config()
    assert state.meta["best_accuracy"] == 1.0


def test_a_checkpoint_of_a_race_on_fewer_images_goes_on() -> None:
    source = Source()
    task = problem(source, queries=8000, views=2)
    race = Race()
    old = next(state for state in play(race, task, source) if race_module.HEARD in state.arrays)
    old.arrays[race_module.HEARD] = old.arrays[race_module.HEARD][:, :40]
    *_, last = play(race, task, source, old)
    assert last.phase == "done"
    assert len(race.program(task, last).views) <= 2


def test_every_beginning_of_the_shared_subset_is_stratified() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    order = spread(labels, 5)
    assert sorted(order) == list(range(100))
    for n in (10, 20, 50):
        counts = np.bincount(labels[order[:n]], minlength=3)
        assert np.abs(counts - n * np.array([0.6, 0.3, 0.1])).max() <= 1.5


@given(
    seed=st.integers(0, 2**31 - 1),
    path=st.tuples(
        st.integers(0, 99) | st.integers(ZOOMED, ZOOMED + 99), st.lists(st.integers(0, 99), max_size=3)
    ).map(lambda drawn: [drawn[0], *drawn[1]]),
)
@settings(deadline=None, max_examples=60)
def test_a_candidate_is_its_path(seed: int, path: list[int]) -> None:
    """The same name is the same program, and any program can be rendered."""
    one, other = candidates(32, seed, [path, path])
    assert one.to_config() == other.to_config()

    assert render(one, np.zeros((1, 8, 8, 3), np.uint8)).shape == (1, 32, 32, 3)


def test_parts_of_the_image_race_where_it_has_more_pixels_than_the_source_image() -> None:
    source = Source()
    task = problem(source, queries=1500, views=2)
    assert not task.detailed
    large = {split: images.repeat(5, axis=1).repeat(5, axis=2) for split, images in task.images.items()}
    fine = replace(task, images=large)
    assert fine.detailed
    names = Race().start(fine).meta["running"]
    views = candidates(task.size, task.seed, names)
    assert views[0].plain
    assert [view.scale > 1 for view in views[1:]] == [i % 2 == 0 for i in range(1, len(views))]
    assert all(1 < view.scale < 3 for view in views[2::2])
    near = candidates(task.size, task.seed, [[*names[2], i] for i in range(20)])
    assert all(0.25 <= view.scale <= 4 for view in near)
    whole = Race().start(task).meta["running"]
    assert all(view.scale <= 1 for view in candidates(task.size, task.seed, whole))


def test_number_zero_is_the_plain_view() -> None:
    plain, other = candidates(32, 1, [[0], [1]])
    assert (plain.scale, plain.gain, plain.overlay) == (1.0, 1.0, None)
    assert other.to_config() != plain.to_config()


@pytest.mark.parametrize("queries", [2000, 5000])
def test_what_a_race_spends_is_what_it_planned(queries: int) -> None:
    source = Source()
    task = problem(source, queries=queries, views=2)
    race = Race()
    *_, last = play(race, task, source)
    planned = sum(stage.queries for stage in race.plan(Shape(90, 60, 3, 5, queries, 2)))
    assert last.phase == "done"
    assert 0.8 * planned <= len(source.seen) <= planned
