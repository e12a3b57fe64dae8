"""THE main flow: from a stored job to a tested, published program.

`run_segment` is called again and again by the runner until it answers False. Whatever dies between two
calls costs nothing: the method's state is a checkpoint, every paid answer is in the cache, and the step
that was under way is asked again from there.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contracts import Ask, Labels, MethodState, Scores, Split
from app.errors import (
    BadRequest,
    BudgetExhausted,
    Forbidden,
    Interrupted,
    ModelChanged,
    ProviderError,
    ReprogError,
    Unusable,
)
from app.gateway.query import Gateway
from app.jobs import counsel, report
from app.jobs.bench import Answered, Bench, Run, ask, watched
from app.jobs.dataset import files
from app.jobs.dataset import load as load_dataset
from app.jobs.forecast import forecast
from app.jobs.progress import RECALL, VERDICT, Meter, finished
from app.jobs.quote import plan
from app.jobs.revive import DOWN
from app.jobs.spec import JobSpec, Money
from app.methods import Problem
from app.methods import state as method_state
from app.reprogramming import program as programs
from app.reprogramming.mapping import score_floor
from app.reprogramming.metrics import with_interval
from app.reprogramming.program import Program
from app.reprogramming.transform import View
from app.storage.jobs import JobRecord

NOBODY = 2**31 - 1  # a fence above every worker's
LEARNING_SPLITS: tuple[Split, ...] = ("train", "val")


async def run_segment(job_id: str, bench: Bench) -> bool:
    """Work on a job for about `bench.segment_seconds`. Returns True when more is to do. Raises StaleFence
    when another worker has taken the job, Unusable while the database is away: then try again."""
    job = await asyncio.to_thread(bench.jobs.begin, job_id)
    if job is None:  # paused, cancelled or over: nothing of it is under way, whatever a dead worker left
        await asyncio.to_thread(bench.ledger.recover, job_id, NOBODY)
        return False
    try:
        await asyncio.to_thread(bench.ledger.recover, job_id, job.fence)
        async with bench.gateway(job_id, job.connection_id, job.fence) as gateway:
            gateway.trial = await asyncio.to_thread(bench.jobs.stands_after, job_id, DOWN)
            run = await asyncio.to_thread(_open, job, bench, gateway)
            try:
                gateway.model.expect(job.metrics.get("model_version", ""))
                return await _work(run)
            except ModelChanged as change:
                await asyncio.to_thread(_drifted, run, change)
                raise
    except Interrupted:
        return await asyncio.to_thread(bench.jobs.stand_down, job_id, job.fence)
    except Unusable:
        raise
    except ReprogError as error:
        if _outside(error):
            reason = DOWN if isinstance(error, ProviderError) and error.retryable else None
            await asyncio.to_thread(bench.jobs.pause_for, job_id, job.fence, error, reason)
        else:
            await asyncio.to_thread(bench.jobs.fail, job_id, job.fence, error)
    return False


def _outside(error: ReprogError) -> bool:
    """Whether it is in the provider, the account or this machine's settings, and may pass."""
    return isinstance(error, ProviderError | Forbidden) or error.code.startswith("secret_")


def _drifted(run: Run, change: ModelChanged) -> None:
    """Say what resuming would mean, and note the version that a resumed job is to expect."""
    again = sum(len(run.data.labels[split]) for split in LEARNING_SPLITS)
    money = Money.of(again * run.source.price.micros, run.source.price.currency)
    change.hint = (
        f"Resume to go on with version {change.new}: the {again} training and validation images are asked "
        f"again (up to {again} queries, {money.amount} {money.currency}, from the same budget), and the "
        "program learned so far is kept and goes on from its last step, under the new version. Cancel and "
        "clone the job to learn from the start instead."
    )
    run.bench.jobs.learns_from(run.job_id, run.fence, change.new)


async def _work(run: Run) -> bool:
    """Probe, learn, judge: the whole job in the order it happens."""
    reason: str | None = None
    problem = await _probe(run)
    if run.version != run.gateway.model.version:
        run.version = run.gateway.model.version
        await asyncio.to_thread(run.bench.jobs.learns_from, run.job_id, run.fence, run.version)
    state = _resume(run)
    if state is None:
        state = await asyncio.to_thread(run.method.start, problem)
        if await asyncio.to_thread(_advise, run, problem, state):
            return False
    try:
        while (wish := run.method.ask(problem, state)) is not None:
            if run.segment_over():
                return True
            scores = await _scores(run, problem, wish)
            state = await asyncio.to_thread(run.method.tell, problem, state, scores)
            await asyncio.to_thread(_checkpoint, run, problem, state)
    except BudgetExhausted as stop:
        reason = stop.reason
    except TimeoutError:
        reason = "deadline"
    program = await asyncio.to_thread(run.method.program, problem, state)
    await _judge(run, problem, program, reason)
    return False


def _open(job: JobRecord, bench: Bench, gateway: Gateway) -> Run:
    spec = JobSpec.model_validate(job.spec)
    source = bench.source(job.connection_id)
    method = spec.method.build()
    size = method.size or source.input_size
    data = load_dataset(bench.dataset_folder(job.dataset_id), max_side=size)
    counts = {split: len(labels) for split, labels in data.labels.items()}
    shares = plan(spec, counts, len(data.classes), source.labels, source.price)
    best = float((job.metrics.get("best") or {}).get("val_accuracy", -1.0))
    left_out: dict[str, list[int]] = {}
    for line in job.metrics.get("left_out", []):
        left_out.setdefault(line["split"], []).append(line["index"])
    return Run(
        bench, job.id, job.fence, spec, method, shares, source, data, size, gateway,
        Meter(shares.planned), best, left_out, job.metrics.get("model_version", ""),
    )  # fmt: skip


async def _probe(run: Run) -> Problem:
    """The first pass: the plain program on every training and validation image.

    It fixes the source labels, pays for the baselines and tells the method where it stands. Images the
    provider will not score are left out.
    """
    plain = (View(size=run.size),)
    await asyncio.to_thread(_concerns, run)
    await _scout(run, plain)
    answers: dict[Split, Answered] = {}
    for split in LEARNING_SPLITS:
        answers[split] = await _whole(run, split, plain, "probe", keep=run.plan.test)
    labels = tuple(sorted({label for answer in answers.values() for label in _answered(answer)}))
    scores = {split: answer.under(labels)[0] for split, answer in answers.items()}
    kept = {split: ~np.isnan(rows).all(axis=1) for split, rows in scores.items()}
    if run.short is not None and not kept["val"].any():
        raise run.short
    _refuse_useless(run, labels, scores["train"][kept["train"]], run.data.labels["train"][kept["train"]])
    return Problem(
        images={split: run.data.images[split][kept[split]] for split in LEARNING_SPLITS},
        labels={split: run.data.labels[split][kept[split]] for split in LEARNING_SPLITS},
        target_labels=run.data.classes,
        source_labels=labels,
        score_kind=run.source.score_kind,
        floor=score_floor(
            np.concatenate([scores[s][kept[s]] for s in LEARNING_SPLITS]), run.source.score_kind
        ),
        size=run.size,
        seed=run.spec.seed,
        queries=run.plan.learning,
        queries_per_prediction=run.plan.views,
        probe={split: scores[split][kept[split]] for split in LEARNING_SPLITS},
        groups={s: run.data.groups[s][kept[s]] for s in LEARNING_SPLITS} if run.data.groups else None,
        encoder=run.data.encoder,
        records={s: run.data.features[s][kept[s]] for s in LEARNING_SPLITS} if run.data.features else None,
        background=run.data.background,
    )


def _concerns(run: Run) -> None:
    """What can be said before anything is spent. Raises BadRequest for what cannot work."""
    counts = np.bincount(np.concatenate(list(run.data.labels.values())), minlength=len(run.data.classes))
    per_class = dict(zip(run.data.classes, counts.tolist(), strict=True))
    found = counsel.concerns(run.spec, per_class, run.source.labels, run.source.score_kind, run.plan)
    _warn(run, found + counsel.enlarged(run.size, run.source.enlarges_below))


def _warn(run: Run, found: list[dict[str, str]]) -> None:
    for concern in found:
        if concern["code"] not in run.warned:
            run.warned.add(concern["code"])
            run.bench.jobs.warn(run.job_id, run.fence, concern)


async def _scout(run: Run, plain: tuple[View, ...]) -> None:
    """A few images first: a model that says the same of all of them costs no more than these."""
    rows = np.setdiff1d(
        counsel.scouts(run.data.labels["train"], run.spec.seed), run.left_out.get("train", [])
    )
    with suppress(BudgetExhausted):  # the whole pass sees to that
        answered = await ask(run, plain, run.data.images["train"][rows], "probe", keep=run.plan.test)
        if answered.rejected:
            await asyncio.to_thread(_leave_out, run, "train", rows, answered.rejected)
        counsel.refuse_constant(answered.scores[0], len(run.data.labels["train"]))


def _advise(run: Run, problem: Problem, state: MethodState) -> bool:
    """What the probe lets expect, told once. Whether the job rests now, as the user wanted. Raises BadRequest
    for answers that cannot name so many classes."""
    if run.source.score_kind == "label":
        counsel.refuse_blunt(problem.classes, len(problem.source_labels), "label", run.plan.views)
    if "expectation" in run.bench.jobs.get(run.job_id).metrics:
        return False
    price = run.source.price
    document = counsel.expectation(problem, state, run.plan, price.micros, price.currency)
    document |= {"settled": state.meta.get("settled", {})}  # what knobs that said "auto" came to
    return run.bench.jobs.expect(run.job_id, run.fence, document, pause=run.spec.limits.pause_after_probe)


async def _whole(run: Run, split: Split, views: tuple[View, ...], phase: str, keep: int = 0) -> Answered:
    """All images of a split but those left out. Retries may have eaten the money: then what is paid."""
    rows = np.setdiff1d(np.arange(len(run.data.labels[split])), run.left_out.get(split, []))
    images = run.data.images[split][rows]
    try:
        answered = await ask(run, views, images, phase, keep=keep)
    except BudgetExhausted as stop:
        run.short = stop
        answered = await ask(run, views, images, phase, cached=True)
    if answered.rejected:
        await asyncio.to_thread(_leave_out, run, split, rows, answered.rejected)
    scores = np.full((len(views), len(run.data.labels[split]), len(answered.labels)), np.nan)
    scores[:, rows] = answered.scores
    return Answered(answered.labels, scores)


def _leave_out(run: Run, split: Split, rows: NDArray[np.intp], rejected: dict[int, ProviderError]) -> None:
    """Images the provider will not score: named in the report, and never asked again by this job."""
    names = files(run.bench.dataset_folder(run.spec.dataset_id))[split]
    numbers = {int(rows[index]): error for index, error in sorted(rejected.items())}
    run.left_out[split] = [*run.left_out.get(split, []), *numbers]
    lines = [
        {"split": split, "index": n, "file": names[n], "code": error.code, "detail": error.detail}
        for n, error in numbers.items()
    ]
    run.bench.jobs.leave_out(run.job_id, run.fence, lines)


def _answered(answer: Answered) -> list[str]:
    columns = zip(answer.labels, np.moveaxis(answer.scores, 2, 0), strict=True)
    return [label for label, column in columns if not np.isnan(column).all()]


def _refuse_useless(run: Run, labels: tuple[str, ...], scores: Scores, classes: Labels) -> None:
    """Raises BadRequest when these answers can teach nothing; the probe is the most that was spent.
    Raises BudgetExhausted when that is for want of money: unknown outcomes are spent."""
    if len(np.unique(classes)) < len(run.data.classes):
        if run.short is not None:
            raise run.short
        raise BadRequest(
            "The provider scored no training image of at least one class.",
            code="classes_unanswered",
            hint="See the job's queries for the provider's reason, then clone the job.",
        )
    if len(labels) == 0 or counsel.constant(scores):
        raise BadRequest(
            f"The source model gave the same scores to all {len(scores)} training images.",
            code="constant_scores",
            hint="Try another model, or check that the images are what you meant to send.",
        )


async def _scores(run: Run, problem: Problem, wish: Ask) -> Scores:
    """(V, n, K) scores for what the method wants to know."""
    images = problem.images[wish.split][wish.rows]
    answered = await ask(run, wish.views, images, wish.purpose, keep=run.plan.test)
    return answered.under(problem.source_labels)


def _resume(run: Run) -> MethodState | None:
    blob = run.bench.jobs.state(run.job_id)
    return None if blob is None else method_state.from_bytes(blob)


def _checkpoint(run: Run, problem: Problem, state: MethodState) -> None:
    """The state, the point of the curve and the event in one transaction; then the program, if it is best."""
    cost, told = run.bench.ledger.cost(run.job_id), with_interval(state.metrics, len(run.data.labels["val"]))
    run.bench.jobs.save_state(
        run.job_id, run.fence, state.step, method_state.to_bytes(state),
        metrics=told, queries=cost.queries_spent, spent_micros=cost.spent, phase=state.phase,
    )  # fmt: skip
    _warn(run, counsel.told(state))
    if "val_accuracy" not in state.metrics:
        return
    accuracy, loss = state.metrics["val_accuracy"], state.metrics["val_loss"]
    if accuracy != run.best or loss != (run.best_loss or loss):
        run.best, run.best_loss = accuracy, loss
        _save_program(run, state.step, run.method.program(problem, state), told)


def _save_program(run: Run, step: int, program: Program, metrics: dict[str, Any]) -> str:
    return run.bench.jobs.save_program(
        run.job_id,
        run.fence,
        step,
        programs.to_bytes(program),
        metrics=metrics,
        validation_images=len(run.data.labels["val"]),
        queries=run.bench.ledger.cost(run.job_id).queries_spent,
    )


async def _judge(run: Run, problem: Problem, program: Program, reason: str | None) -> None:
    """The one look at the test split, then the report, the best program and its endpoint."""
    images, labels = run.data.images["test"], run.data.labels["test"]
    answered = await _whole(run, "test", (View(size=run.size), *program.views), "test")
    scores = answered.under(problem.source_labels)
    records = run.data.features["test"] if run.data.features else None
    paid: dict[Split, Scores] = {}
    for split in LEARNING_SPLITS:
        paid[split] = await _paid(run, problem, program, split)
    judging = asyncio.to_thread(report.judge, problem, program, images, labels, scores, paid, records)
    metrics = await watched(run, VERDICT, judging)
    await asyncio.to_thread(_finish, run, program, metrics, reason)


async def _paid(run: Run, problem: Problem, program: Program, split: Split) -> Scores:
    """(V, n, K) scores of the program's views that are paid already. Nothing is sent."""
    answered = await ask(run, program.views, problem.images[split], RECALL, cached=True)
    return answered.under(problem.source_labels)


def _forecast(run: Run) -> list[dict[str, Any]] | None:
    """What more queries would have bought."""
    points = run.bench.jobs.points(run.job_id)
    judged = [(point.queries, point.data["val_accuracy"]) for point in points if "val_accuracy" in point.data]
    price = run.source.price
    return forecast(judged, len(run.data.labels["val"]), price.micros, price.currency)


def _finish(run: Run, program: Program, metrics: dict[str, Any], reason: str | None) -> None:
    cost, now = run.bench.ledger.cost(run.job_id), time.time()
    metrics = metrics | {"forecast": _forecast(run)}
    final = _save_program(run, report.FINAL_STEP, program, report.flat(metrics))
    publish = run.spec.publish.name if run.spec.publish else None
    if publish is not None:
        run.bench.endpoints.publish(publish, run.job_id, final)
    run.bench.jobs.succeed(
        run.job_id, run.fence, checkpoint_id=final, metrics=metrics, reason=reason, endpoint=publish,
        progress=finished(cost.queries_spent, run.plan.planned, now),
    )  # fmt: skip
