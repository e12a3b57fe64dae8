"""A program: the views to ask under and the mapping of their scores. The thing that is learned and served."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from app.contracts import Arrays, Images, Query, ScoreKind, Scores, TargetScores
from app.errors import BadRequest
from app.reprogramming import picture as pictures
from app.reprogramming.encoder import Encoder, from_config
from app.reprogramming.mapping import LabelMapping, log_scores, shares
from app.reprogramming.transform import View, offset, render_many

FORMAT = "reprog.program/1"
MAX_BYTES = 256 * 2**20
MAX_VIEWS = 64
MAX_CANONICAL = 4096  # pixels a side
_HEADER_BYTES = 8
_MAX_HEADER = 8 * 2**20
_KINDS = ("probability", "independent", "logit", "percent", "severity", "likelihood", "label")


@dataclass(frozen=True, eq=False)
class Program:
    """Views of one size, then a mapping of their V * K score columns (view-major) to T target labels.

    Raises ValueError when the parts do not fit together.
    """

    views: tuple[View, ...]
    mapping: LabelMapping
    source_labels: tuple[str, ...]  # K, in the order of score columns
    target_labels: tuple[str, ...]  # T
    canonical: tuple[int, int]  # height and width of target images, pixels
    floor: float  # see scores.score_floor
    score_kind: ScoreKind = "probability"
    encoder: Encoder | None = None  # draws the images from records; None: they come as such
    pixel_features: bool = False  # fused head: picture.features(images) follow the score columns
    background: pictures.Colour = pictures.WHITE  # that transparent pixels of a target image are laid on

    def __post_init__(self) -> None:
        if not 1 <= len(self.views) <= MAX_VIEWS or len({view.size for view in self.views}) != 1:
            raise ValueError(f"a program has 1 to {MAX_VIEWS} views of one size")
        if self.score_kind not in _KINDS:
            raise ValueError(f"no score kind is called {self.score_kind!r}")
        if not all(1 <= side <= MAX_CANONICAL for side in self.canonical) or not np.isfinite(self.floor):
            raise ValueError("canonical size or floor out of range")
        if len(self.background) != 3 or not all(0 <= level <= 255 for level in self.background):
            raise ValueError("a background is three levels from 0 to 255")
        if self.pixel_features and self.mapping.kind == "group":
            raise ValueError("pixel features need a fitted head")
        columns = len(self.views) * len(self.source_labels)
        if self.pixel_features:
            columns += pictures.features(np.zeros((1, 1, 1, 3), dtype=np.uint8)).shape[1]
        if self.mapping.mean.shape != (columns,) or self.mapping.bias.shape != (len(self.target_labels),):
            raise ValueError("the mapping does not fit the labels and views")


async def predict(program: Program, images: Images, query: Query) -> TargetScores:
    """(N, h, w, 3) target images to (N, T) target scores, at V queries an image. Training's evaluation, the
    test and serving all come through here."""
    scores = await query(render_many(program.views, images))
    return score(program, scores.reshape(len(program.views), len(images), -1), images)


def score(program: Program, scores: Scores, images: Images) -> TargetScores:
    """The pure part: (V, n, K) source scores of n images to (n, T) target scores."""
    return program.mapping.apply(columns(program, scores, images))


def columns(program: Program, scores: Scores, images: Images) -> NDArray[np.float64]:
    """(V, n, K) source scores to the (n, F) columns that the program's mapping reads."""
    if program.mapping.kind == "group":
        values = shares(scores, program.score_kind)
    else:
        values = log_scores(scores, program.floor, program.score_kind)
    return feature_columns(values, pictures.features(images) if program.pixel_features else None)


def feature_columns(values: Scores, pixels: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """(V, n, K) values, and (n, P) pixel features after them, as (n, V * K [+ P])."""
    flat = values.transpose(1, 0, 2).reshape(values.shape[1], -1)
    return flat if pixels is None else np.concatenate([flat, pixels], axis=1)


def picture(program: Program) -> Images:
    """(V, S, S, 3): each view's frame and overlay, the overlay stretched to the full pixel range, the placed
    image mid-grey."""
    out: list[Images] = []
    for view in program.views:
        canvas = np.full((view.size, view.size, 3), view.padding, dtype=np.float64)
        canvas[view.placed] = 127.5
        shift = offset(view)
        if shift is not None and np.abs(shift).max() > 0:
            canvas += shift * (127.5 / np.abs(shift).max())
        out.append(np.rint(np.clip(canvas, 0, 255)).astype(np.uint8))
    return np.stack(out)


def to_bytes(program: Program) -> bytes:
    """One safetensors blob; the configuration is JSON in its metadata. Equal programs give equal bytes."""
    arrays, mapping = program.mapping.to_arrays()
    tensors: Arrays = {f"mapping.{name}": np.ascontiguousarray(a) for name, a in arrays.items()}
    for i, view in enumerate(program.views):
        if view.overlay is not None:
            tensors[f"overlay.{i}"] = np.ascontiguousarray(view.overlay)
    config = {
        "format": FORMAT,
        "views": [view.to_config() for view in program.views],
        "mapping": mapping,
        "source_labels": list(program.source_labels),
        "target_labels": list(program.target_labels),
        "canonical": list(program.canonical),
        "floor": program.floor,
        "score_kind": program.score_kind,
        "pixel_features": program.pixel_features,
        **({"encoder": program.encoder.config()} if program.encoder else {}),
        **({"background": list(program.background)} if program.background != pictures.WHITE else {}),
    }
    return save(tensors, metadata={"config": json.dumps(config, sort_keys=True)})


def from_bytes(data: bytes) -> Program:
    """The inverse of `to_bytes`, safe on bytes from strangers. Raises BadRequest `artifact_invalid`."""
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        config = _config(data)
        return _program(config, load(data))
    except Exception as error:  # safetensors, JSON and every check of the parts
        raise BadRequest(
            f"The bytes are not a program: {error}",
            code="artifact_invalid",
            hint="Send the program.safetensors of an artifact, unchanged.",
        ) from error


def _config(data: bytes) -> dict[str, Any]:
    """The JSON configuration in the header: an 8-byte little-endian length, then a JSON object."""
    length = int.from_bytes(data[:_HEADER_BYTES], "little")
    if not 2 <= length <= min(_MAX_HEADER, len(data) - _HEADER_BYTES):
        raise ValueError("no safetensors header")
    header = json.loads(data[_HEADER_BYTES : _HEADER_BYTES + length])
    config = json.loads(header["__metadata__"]["config"])
    if config["format"] != FORMAT:
        raise ValueError(f"format {config['format']!r} is not {FORMAT!r}")
    return cast("dict[str, Any]", config)


def _program(config: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> Program:
    views = config["views"]
    if len(views) > MAX_VIEWS:
        raise ValueError(f"more than {MAX_VIEWS} views")
    if any(array.dtype != np.float64 for array in tensors.values()):
        raise ValueError("arrays are float64")
    height, width = config["canonical"]
    red, green, blue = config.get("background", pictures.WHITE)
    return Program(
        views=tuple(View.from_config(view, tensors.get(f"overlay.{i}")) for i, view in enumerate(views)),
        mapping=LabelMapping.from_arrays(
            {name[8:]: array for name, array in tensors.items() if name.startswith("mapping.")},
            config["mapping"],
        ),
        source_labels=tuple(str(label) for label in config["source_labels"]),
        target_labels=tuple(str(label) for label in config["target_labels"]),
        canonical=(int(height), int(width)),
        floor=float(config["floor"]),
        score_kind=config["score_kind"],
        encoder=from_config(config["encoder"]) if "encoder" in config else None,
        pixel_features=bool(config["pixel_features"]),
        background=(int(red), int(green), int(blue)),
    )
