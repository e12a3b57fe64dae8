"""What happened to a job, in words: its events and the stages it goes through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from app.dashboard import words
from app.jobs.report import FINAL_STEP
from app.jobs.spec import amount

#: What a job does, by the phase or the quoted stage of the job or its method; others keep their name.
STAGES = {
    "waiting": "waiting",
    "probe": "first pass over the images",
    "test": "test",
    "recall": "reading stored answers back",
    "verdict": "judging the test",
    "select": "choosing among programs",
    "validate": "validation",
    "refined, validate": "validation of the refined programs",
    "fit": "fitting the head",
    "refined, fit": "fitting the head of the refined programs",
    "refine": "refining the winners",
    "refined": "refined",
    "first round": "first round: many programs on few images",
    "neighbours": "variations of the best of them",
    "second round": "second round: the best on more images",
    "views": "the winners on every image",
    "steps": "learning",
    "step": "learning",
    "refit": "fitting the mapping again",
    "done": "done",
}
Data = Mapping[str, Any]


def stage(phase: str) -> str:
    """A phase in words."""
    return STAGES.get(phase, phase.replace("_", " "))


def right(figures: Data) -> str:
    """How right a step's or a stored program's figures say it is, with the 95 % interval; "" without any."""
    for name, ends, where in (
        ("test_accuracy", "test_ci95", "test"),
        ("val_accuracy", "val_ci95", "validation"),
    ):
        if figures.get(name) is not None:
            sure = f" ({words.interval(figures[ends])})" if figures.get(ends) else ""
            return f"{words.percent(figures[name])} right on {where}{sure}"
    return ""


def _step(data: Data, currency: str) -> str:
    spent = words.money({"amount": amount(data.get("spent_micros", 0)), "currency": currency})
    paid = words.plural(data.get("queries", 0), "query", "queries")
    told = [f"Step {data['step']}, {stage(str(data.get('phase', '')))}", paid, f"{spent} spent", right(data)]
    return ", ".join(one for one in told if one)


def _stored(data: Data, _: str) -> str:
    which = "Finished program" if data["step"] >= FINAL_STEP else f"Program of step {data['step']}"
    return f"{which} stored" + (f": {right(data)}" if right(data) else "")


def _paused(data: Data, _: str) -> str:
    error: Data = data.get("error") or {}
    why = error.get("detail") or words.REASONS.get(str(data.get("reason")), "")
    return f"Paused. {why}".strip()


_SAID: dict[str, Callable[[Data, str], str]] = {
    "job.created": lambda data, _: "Created",
    "job.started": lambda data, _: "Started",
    "job.continued": lambda data, _: "Taken up where it was",
    "job.step": _step,
    "job.checkpoint": _stored,
    "job.evaluated": lambda data, _: f"Another head fitted: {(data.get('mapping') or {}).get('type', '')}",
    "job.images_left_out": lambda data, _: f"{words.plural(data['count'], 'image')} refused by the provider",
    "job.changed": lambda data, _: f"Changed: {', '.join(data.get('members', []))}",
    "job.paused": _paused,
    "job.resumed": lambda data, _: "Resumed" + (" by itself" if data.get("by") not in (None, "user") else ""),
    "job.cancelling": lambda data, _: "Asked to stop for good",
    "job.cancelled": lambda data, _: "Cancelled",
    "job.published": lambda data, _: f"Published as {data.get('endpoint', '')}",
    "job.imported": lambda data, _: "Imported",
    "job.succeeded": lambda data, _: f"Done. {words.REASONS.get(str(data.get('reason')), '')}".strip(),
    "job.failed": lambda data, _: f"Failed. {(data.get('error') or {}).get('detail', '')}".strip(),
    "job.warning": lambda data, _: str(data.get("detail", "")),
    "job.expectation": lambda data, _: str(data.get("sentence", "")),
    "endpoint.degraded": lambda data, _: f"The canary of {data.get('endpoint')}: answers have moved",
    "endpoint.recovered": lambda data, _: f"The canary of {data.get('endpoint')}: answers are as at first",
}  # fmt: skip


def said(event: Data, currency: str) -> str:
    """An event of the REST surface as a sentence; its type and members where there is none for it."""
    try:
        return _SAID[event["type"]](event["data"], currency)
    except (KeyError, TypeError):  # of another release
        return f"{event['type']} {words.brief(event['data'])}"


FILTERS: dict[str, Callable[..., str]] = {"stage": stage, "right": right, "said": said}
