"""Learning curves: one document, which the script draws live and the server draws for a reader without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from markupsafe import Markup

from app.api.deps import Services
from app.dashboard import drawings
from app.dashboard.words import BASELINES
from app.reprogramming.metrics import ends, wilson
from app.storage.jobs import JobRecord

Axis = Literal["cost", "queries", "time"]
AXES: dict[Axis, tuple[str, str]] = {
    "cost": ("Money", "money spent, {currency}"),
    "queries": ("Queries", "queries paid"),
    "time": ("Time", "seconds since the start"),
}
POINTS = 500


def document(wired: Services, record: JobRecord, most: int = POINTS) -> dict[str, Any]:
    """One column per series, against all three axes, with baselines and what intervals are made of."""
    points = wired.jobs.points(record.id, most)
    start = record.started_at or (points[0].at if points else 0.0)
    best: dict[str, Any] = record.metrics.get("best") or {}
    return {
        "currency": wired.connections.currencies()[record.connection_id],
        "step": [point.step for point in points],
        "queries": [point.queries for point in points],
        "cost": [point.spent_micros / 1e6 for point in points],
        "time": [point.at - start for point in points],
        "at": [point.at for point in points],
        "phase": [str(point.data.get("phase") or "") for point in points],
        "loss": [_first(point.data, "train_loss", "val_loss", "loss") for point in points],
        "accuracy": [_first(point.data, "val_accuracy") for point in points],
        "validation_images": best.get("validation_images"),
        "baselines": levels(record.metrics),
    }


def levels(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """{name, accuracy, ci95} of what to hold the curve against: the rivals on the test split, and before
    there is a test the head on the plain image, on the validation images as the curve is."""
    rivals: dict[str, Any] = metrics.get("baselines") or {}
    if rivals:
        return [
            {"name": f"{BASELINES.get(k, (k,))[0]} (test)", "accuracy": v["accuracy"], "ci95": v["ci95"]}
            for k, v in rivals.items()
        ]
    expected: dict[str, Any] = metrics.get("expectation") or {}
    known = [("Head on the plain image", expected.get("head")), ("Pixels alone", expected.get("pixels"))]
    return [
        {"name": f"{name} (validation)", "accuracy": one["val_accuracy"], "ci95": one.get("ci95")}
        for name, one in known
        if one
    ]


def _first(data: dict[str, Any], *names: str) -> float | None:
    return next((float(data[name]) for name in names if data.get(name) is not None), None)


def table(found: dict[str, Any], most: int) -> list[dict[str, Any]]:
    """About `most` rows of a document, evenly thinned, the last one always there."""
    names: list[str] = ["step", "queries", "cost", "phase", "loss", "accuracy", "at"]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*(found[name] for name in names), strict=True)]
    images: int | None = found["validation_images"]
    for row in rows:
        share: float | None = row["accuracy"]
        row["ci95"] = ends(round(share * images), images) if images and share is not None else None
    stride = max(1, -(-len(rows) // most))
    return list(reversed(rows[::-1][::stride]))


def picture(documents: list[tuple[str, dict[str, Any]]], x: Axis) -> Markup | None:
    """Validation accuracy of jobs with its 95 % band; one alone with its rivals. None before a point."""
    lines = [(name, _track(found, x), found["validation_images"]) for name, found in documents]
    drawn = [(name, track, images) for name, track, images in lines if track]
    if not drawn:
        return None
    alone = len(documents) == 1
    rivals = [(one["name"], one["accuracy"]) for one in documents[0][1]["baselines"]] if alone else []
    bands = [
        [(at, *wilson(round(share * images), images)) for at, share in track] if images else []
        for _, track, images in drawn
    ]
    label = AXES[x][1].format(currency=documents[0][1]["currency"])
    return drawings.curves([(name, track) for name, track, _ in drawn], bands, rivals, label)


def _track(found: dict[str, Any], x: Axis) -> list[tuple[float, float]]:
    pairs = zip(found[x], found["accuracy"], strict=True)
    return [(float(at), share) for at, share in pairs if share is not None]
