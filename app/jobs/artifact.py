"""The artifact: a finished program as a zip that anybody can read. No pickle in it, none accepted."""

from __future__ import annotations

import csv
import io
import zipfile
from typing import Any, cast

import numpy as np
import orjson

from app.contracts import Images
from app.errors import BadRequest
from app.gateway.encoding import encode
from app.jobs.report import BASELINES
from app.reprogramming import program as programs
from app.reprogramming.program import Program

FORMAT = "reprog.artifact/1"
PROGRAM, CONFIG = "program.safetensors", "config.json"
_LARGEST_CONFIG = 4 * 2**20
#: Where a provider's model says its name.
_NAMES = (
    "model_id", "published_name", "model", "model_name", "models", "categorizer_id", "project_version_arn",
    "operation", "feature",
)  # fmt: skip
_EPOCH = (2020, 1, 1, 0, 0, 0)  # equal programs make equal zips


def build(program: Program, blob: bytes, facts: dict[str, Any]) -> bytes:
    """The zip. `facts` (JSON values, no secret) say where the program comes from and how good it is."""
    config = {"format": FORMAT, **facts, "program": describe(program)}
    files = {
        PROGRAM: blob,
        CONFIG: orjson.dumps(config, option=orjson.OPT_INDENT_2),
        "README.md": card(program, facts).encode(),
        "mapping.csv": mapping_csv(program).encode(),
        "program.png": picture(program),
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def read(data: bytes) -> tuple[Program, bytes, dict[str, Any]]:
    """(program, its bytes, config) of an artifact from anybody. Raises BadRequest `artifact_invalid`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            blob = _member(archive, PROGRAM, programs.MAX_BYTES)
            config = orjson.loads(_member(archive, CONFIG, _LARGEST_CONFIG))
        if not isinstance(config, dict) or config.get("format") != FORMAT:
            raise ValueError(f"{CONFIG} is not of format {FORMAT}")
    except (zipfile.BadZipFile, KeyError, ValueError, RuntimeError, NotImplementedError, OSError) as error:
        raise BadRequest(
            f"The body is no artifact: {error}",
            code="artifact_invalid",
            hint="Send the zip of GET /v1/jobs/{id}/artifact, unchanged.",
        ) from error
    return programs.from_bytes(blob), blob, cast("dict[str, Any]", config)


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Inflated no further than `limit` bytes, whatever the directory says."""
    with archive.open(name) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{name} is larger than {limit} bytes")
    return data


def describe(program: Program) -> dict[str, Any]:
    """The program in JSON values, without its arrays."""
    return {
        "source_labels": list(program.source_labels),
        "target_labels": list(program.target_labels),
        "queries_per_prediction": len(program.views),
        "image_size": list(program.canonical),
        "background": list(program.background),
        "source_size": program.views[0].size,
        "score_kind": program.score_kind,
        "pixel_features": program.pixel_features,
        "mapping": program.mapping.kind,
        "views": [view.to_config() for view in program.views],
    }


def mapping_rows(program: Program) -> list[dict[str, Any]]:
    """One row per (view, source label): the weight of each target label on that column, null for a kernel
    mapping, which has none of its own for a label. Pixel features, where used, are not listed."""
    mapping, labels = program.mapping, program.source_labels
    rows: list[dict[str, Any]] = []
    for column in range(len(program.views) * len(labels)):
        view, k = divmod(column, len(labels))
        weights = None
        if mapping.support is None:
            weights = dict(zip(program.target_labels, mapping.weights[column].tolist(), strict=True))
        rows.append(
            {
                "view": view,
                "source_label": labels[k],
                "mean": float(mapping.mean[column]),
                "scale": float(mapping.scale[column]),
                "weights": weights,
            }
        )
    return rows


def mapping_csv(program: Program) -> str:
    """`mapping_rows` as CSV: a column per target label."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["view", "source_label", "mean", "scale", *program.target_labels])
    for row in mapping_rows(program):
        weights = row["weights"] or {}
        cells = [weights.get(label, "") for label in program.target_labels]
        writer.writerow([row["view"], row["source_label"], row["mean"], row["scale"], *cells])
    return out.getvalue()


def picture(program: Program) -> bytes:
    """A PNG of the views side by side, overlays amplified."""
    return png(np.concatenate(list(programs.picture(program)), axis=1))


def png(image: Images) -> bytes:
    """(H, W, 3) -> PNG."""
    return encode(image[None], compressed=True)[0]


def card(program: Program, facts: dict[str, Any]) -> str:
    """The model card: what it is, what it was judged on, what it costs to ask."""
    job, source = facts.get("job") or {}, facts.get("connection") or {}
    metrics = facts.get("metrics") or {}
    asked = "1 query" if len(program.views) == 1 else f"{len(program.views)} queries"
    return "\n".join([
        f"# {job.get('name', 'A reprogrammed model')}",
        "",
        f"A program that turns {_named(source)} into a classifier of {len(program.target_labels)} classes: "
        f"{', '.join(program.target_labels)}.",
        "",
        f"One prediction asks {asked}. Without that model the program does nothing.",
        "",
        *_judged(metrics, facts.get("checkpoint_id")),
        "",
        "Files: `program.safetensors` (arrays), `config.json` (the source model in full, and all else), "
        "`mapping.csv` (source label to target label), `program.png` (the views, overlays amplified).",
        "",
    ])  # fmt: skip


def _named(source: dict[str, Any]) -> str:
    """The source model in a few words; `config.json` has every member."""
    model: dict[str, Any] = source.get("model") or {}
    name = next((model[key] for key in _NAMES if model.get(key)), None)
    which = f"the source model `{name}`" if name else "the source model"
    return f"{which} of {str(source.get('provider') or 'an unknown provider').replace('_', ' ')}"


def _judged(metrics: dict[str, Any], checkpoint_id: str | None) -> list[str]:
    """Lines with the accuracy of the program and its baselines on the test split, and the verdict."""
    best: dict[str, Any] = metrics.get("best") or {}
    if checkpoint_id and best.get("checkpoint_id", checkpoint_id) != checkpoint_id:
        return ["It is not the program that the job tested: how good it is, is not told here."]
    lines = ["| on the test split | accuracy | 95 % interval |", "|---|---|---|"]
    rivals: dict[str, Any] = metrics.get("baselines") or {}
    for name, found in {"the program": metrics.get("test"), **rivals}.items():
        if found and "accuracy" in found:
            short, what = BASELINES.get(name, (name, ""))
            low, high = found["ci95"]
            said = f"{short.lower()}: {what}" if what else short
            lines.append(f"| {said} | {found['accuracy']:.4f} | {low:.4f} to {high:.4f} |")
    sentence = (metrics.get("verdict") or {}).get("sentence")
    return [*lines, "", sentence] if sentence else lines
