"""Data sets: an upload becomes labelled, split, normalised images with a report on every file of it."""

from __future__ import annotations

import errno
import hashlib
import shutil
import statistics
import tempfile
from collections import Counter
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from app.contracts import Images, Labels, Split
from app.errors import BadRequest, Conflict, NotFound, Unusable
from app.jobs import pack
from app.jobs.archive import LIMITS, IngestLimits
from app.jobs.inspection import inspect
from app.jobs.intake import FORMATS, Files, encode, take_in
from app.jobs.pack import Item
from app.jobs.splits import SPLITS, assign, clusters
from app.reprogramming.encoder import Encoder
from app.reprogramming.picture import WHITE, Colour

__all__ = ["FORMATS", "LIMITS", "Dataset", "IngestLimits", "Ingested", "ingest", "item_png", "items", "load"]

REPORTED = 1000  # files listed by name in a report
RAW = "raw.pack"
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


@dataclass(frozen=True)
class Ingested:
    """What became of an upload. `counts` is split -> class -> images; sizes are canonical ones in pixels."""

    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    content_sha256: str  # over (label, split, pixels) of all images, however they were packed
    report: dict[str, Any]
    height: int
    width: int
    items: int


@dataclass(frozen=True)
class Dataset:
    """A data set in memory. Images are uint8 (n, h, w, 3), read-only, all of `canonical` (h, w) size;
    groups number what must stay together (equal numbers across splits mean the same group)."""

    images: dict[Split, Images]
    labels: dict[Split, Labels]
    classes: tuple[str, ...]
    groups: dict[Split, NDArray[np.intp]] | None
    canonical: tuple[int, int]
    encoder: Encoder | None = None  # drew the images from records
    background: Colour = WHITE  # that their transparent pixels were laid on
    features: dict[Split, NDArray[np.float64]] | None = None  # (n, F) of the records


# ---------------------------------------------------------------- reading what was stored


def files(folder: Path) -> dict[Split, list[str]]:
    """The uploaded names of the images of each split, in the order of `load`. Raises NotFound."""
    listed = list(pack.items(folder))
    return {split: [item.file for item in listed[span]] for split, span in _spans(listed).items()}


def load(folder: Path, *, max_side: int) -> Dataset:
    """The data set at its canonical size: the images' own when all share one of at most `max_side`, else a
    square of min(max_side, median longer side). Raises NotFound."""
    names, listed = pack.classes(folder), list(pack.items(folder))
    canonical = canonical_size([(item.height, item.width) for item in listed], max_side)
    pixels = pack.fitted(folder, *canonical)
    number = {name: i for i, name in enumerate(names)}
    labels = np.array([number[item.label] for item in listed], np.intp)
    spans = _spans(listed)
    groups: dict[Split, NDArray[np.intp]] | None = None
    if any(item.group is not None for item in listed):
        keys = [item.group or f"\0{i}" for i, item in enumerate(listed)]  # without one: alone
        codes = np.unique(np.array(keys), return_inverse=True)[1].astype(np.intp)
        groups = {split: codes[span] for split, span in spans.items()}
    rows = pack.features(folder)
    return Dataset(
        images={split: pixels[span] for split, span in spans.items()},
        labels={split: labels[span] for split, span in spans.items()},
        classes=names,
        groups=groups,
        canonical=canonical,
        encoder=pack.encoder(folder),
        background=pack.background(folder),
        features=None if rows is None else {split: rows[span] for split, span in spans.items()},
    )


def _spans(listed: Sequence[Item]) -> dict[Split, slice]:
    """Items are stored split by split."""
    sizes = Counter(item.split for item in listed)
    spans: dict[Split, slice] = {}
    start = 0
    for split in SPLITS:
        spans[split] = slice(start, start + sizes[split])
        start += sizes[split]
    return spans


def canonical_size(sizes: Sequence[tuple[int, int]], max_side: int) -> tuple[int, int]:
    """(height, width) every image is fitted to."""
    if len(set(sizes)) == 1 and max(sizes[0]) <= max_side:
        return sizes[0]
    side = min(max_side, int(statistics.median_low([max(size) for size in sizes])))
    return side, side


def items(folder: Path, offset: int, limit: int) -> list[dict[str, Any]]:
    """{n, file, label, split, width, height, sha256} of items offset, offset + 1, ...; `input` where they are
    records. Raises NotFound."""
    shown = ("file", "label", "split", "width", "height", "sha256")
    found = enumerate(pack.items(folder, offset, limit), offset)
    listed = [{"n": n} | {name: getattr(item, name) for name in shown} for n, item in found]
    for row, record in zip(listed, pack.records(folder, offset, limit), strict=False):
        row["input"] = record
    return listed


def item_png(folder: Path, n: int) -> bytes:
    """Image n as a PNG. Raises NotFound."""
    for item in pack.items(folder, n, 1) if n >= 0 else ():
        return pack.png(folder, item)
    raise NotFound(f"The data set has no item {n}.", hint="List the items first.", param="n")


# ---------------------------------------------------------------- taking in an upload


def ingest(
    source: Path,
    format: str,
    target: Path,
    seed: int,
    *,
    allow: Collection[str] = (),
    label_column: str | None = None,
    background: Colour = WHITE,
    limits: IngestLimits = LIMITS,
) -> Ingested:
    """Read the upload in file `source` into the new folder `target`; a failure leaves nothing there.

    `format` is one of FORMATS; `auto` goes by the bytes. Splits that are not given are made from `seed`:
    60 / 20 / 20, or 20 % of train when only train and one other were given. `allow` names the faults that are
    taken as they are (inspection.FAULTS); `label_column` the label of a table whose header does not;
    transparent pixels are laid on `background`.

    Raises BadRequest (`ambiguous_format`, `ambiguous_labels`, `contradictory_labels`, `empty_dataset`,
    `extra_missing`, `invalid_npz`, `label_column_missing`, `label_table_missing`, `leaks_between_splits`,
    `too_few_classes`, `too_few_images`, `unreadable_archive`, `unreadable_table`, `unsafe_archive`,
    `wrong_shape`), TooLarge (`archive_bomb`, `image_too_large`), UnsupportedType, Conflict, and Unusable when
    the disk refuses.
    """
    if target.exists():
        raise Conflict("The data set's folder exists already.")
    with _workplace(target) as work:
        files = take_in(source, format, work / RAW, limits, label_column, background)
        if not files.items:
            raise _empty(files)
        names = _class_names(files)
        splits_note = _split(files, names, seed)
        files.items.sort(key=lambda item: _canonical_order(item, names))
        if files.records:
            encode(files, work / RAW)
        result = _summary(files, names, splits_note, allow)
        pack.write(work, work / RAW, files.items, names, background)
        (work / RAW).unlink()
        work.rename(target)
    return result


@contextmanager
def _workplace(target: Path) -> Generator[Path]:
    """A folder beside the target, removed again unless it was renamed."""
    work: Path | None = None
    try:
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        yield work
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise Unusable(
            f"The data folder cannot be written: {error.strerror}.", code="storage_failed", retry_after=60.0
        ) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


# ---------------------------------------------------------------- classes, splits, digest


def _empty(files: Files) -> BadRequest:
    """Says why, by the commonest reason."""
    total = len(files.rejected)
    if not total:
        return BadRequest(
            "The upload holds no images.", code="empty_dataset", hint="Send one folder of images per class."
        )
    (code, reason), count = Counter((r["code"], r["reason"]) for r in files.rejected).most_common(1)[0]
    hint = "Put the images into one folder per class." if code == "no_label" else "Send PNG or JPEG images."
    return BadRequest(
        f"None of the {total} files could be used; {count} of them: {reason}", code="empty_dataset", hint=hint
    )


def _class_names(files: Files) -> tuple[str, ...]:
    """Sorted, by value when all are integers. Raises BadRequest `ambiguous_labels`, `too_few_classes`."""
    names = {item.label for item in files.items}
    alike: dict[str, str] = {}
    for name in sorted(names):
        other = alike.setdefault(" ".join(name.casefold().split()), name)
        if other != name:
            raise BadRequest(
                f"Labels {other!r} and {name!r} differ only by case or spaces.",
                code="ambiguous_labels",
                hint="Write each label in one way.",
            )
    if len(names) < 2:
        raise BadRequest(
            f"All {len(files.items)} images have the label {names.pop()!r}.",
            code="too_few_classes",
            hint=" ".join(["Send at least 2 classes, each in its own folder.", *files.warnings]),
        )
    numeric = all(name.isascii() and name.removeprefix("-").isdigit() and len(name) < 19 for name in names)
    return tuple(sorted(names, key=int) if numeric else sorted(names))


def _canonical_order(item: Item, names: tuple[str, ...]) -> tuple[Any, ...]:
    """Split by split, mixed by digest: depends on content, not on the order of the archive."""
    split = SPLITS.index(item.split) if item.split else 0
    return split, item.sha256, names.index(item.label), item.group or "", item.file


def _split(files: Files, names: tuple[str, ...], seed: int) -> str:
    """Give every item a split; returns the sentence for the report. Raises BadRequest `too_few_images`."""
    given = {item.split for item in files.items} - {None}
    if given and len(given) == 1:
        files.warnings.append(f"Only the split {given.pop()} was sent, so all splits were made anew.")
    if len(given) < 2:
        pool: list[Item] = files.items
        wanted: tuple[Split, ...] = SPLITS
        note = "Made from the seed: 60 % train, 20 % val, 20 % test of each class."
    else:
        _refuse_without_split(files)
        missing: list[Split] = [split for split in SPLITS if split not in given]
        pool = [item for item in files.items if item.split == "train"]
        wanted = ("train", *missing)
        note = f"As sent; 20 % of train became {missing[0]}." if missing else "As sent."
    _refuse_untrained(pool, names)
    if len(wanted) > 1:
        pool.sort(key=lambda item: _canonical_order(item, names)[1:])
        numbers = np.array([names.index(item.label) for item in pool], np.intp)
        together = clusters([item.sha256 for item in pool], [item.group for item in pool])
        for item, split in zip(pool, assign(numbers, together, wanted, seed, names), strict=True):
            item.split = split
        note += " Identical images and images of one group stay in one split."
    return note


def _refuse_without_split(files: Files) -> None:
    for item in files.items:
        if item.split is None:
            files.reject(item.file, "no_split", "Other images have a split, this one has none.")
    files.items = [item for item in files.items if item.split is not None]


def _refuse_untrained(pool: Sequence[Item], names: tuple[str, ...]) -> None:
    lacking = sorted(set(names) - {item.label for item in pool})
    if lacking:
        raise BadRequest(
            f"No training image of {', '.join(map(repr, lacking[:5]))}.",
            code="too_few_images",
            hint="Every class needs at least 1 image in train; or send the images without splits.",
        )


def _summary(files: Files, names: tuple[str, ...], splits_note: str, allow: Collection[str]) -> Ingested:
    counts: dict[Split, dict[str, int]] = {split: dict.fromkeys(names, 0) for split in SPLITS}
    for item in files.items:
        counts[item.split or "train"][item.label] += 1
    findings = inspect(files, counts, allow)
    sizes = [(item.height, item.width) for item in files.items]
    height, width = canonical_size(sizes, max(max(size) for size in sizes))
    report = {
        "files": len(files.items) + len(files.rejected),
        "accepted": len(files.items),
        "rejected": files.rejected[:REPORTED],
        "rejected_total": len(files.rejected),
        "ignored": files.ignored[:REPORTED],
        "ignored_total": len(files.ignored),
        "how_labels_were_read": files.how,
        "splits_made": splits_note != "As sent.",
        "splits": splits_note,
        "class_histogram": {name: sum(counts[split][name] for split in SPLITS) for name in names},
        **findings.sections,
        "image_sizes": _sizes(sizes, files.shrunk, files.background),
        "warnings": files.warnings + findings.warnings,
    }
    if files.records:
        report["records"] = {"kind": files.records.kind, "columns": files.records.columns}
    rows = {str(split): row for split, row in counts.items()}
    return Ingested(names, rows, _digest(files.items), report, height, width, len(files.items))


def _sizes(sizes: Sequence[tuple[int, int]], shrunk: int, background: Colour) -> dict[str, Any]:
    """Stored sizes, (height, width) in pixels."""
    kinds = Counter(sizes)
    return {
        "distinct": len(kinds),
        "most_common": list(kinds.most_common(1)[0][0]),
        "smallest": list(min(kinds, key=lambda size: size[0] * size[1])),
        "largest": list(max(kinds, key=lambda size: size[0] * size[1])),
        "shrunk": shrunk,
        "rule": "RGB, 8 bit, EXIF orientation applied, transparent pixels on the background; a longer side "
        "over the limit is shrunk to it.",
        "background": "#{:02x}{:02x}{:02x}".format(*background),
    }


def _digest(listed: Sequence[Item]) -> str:
    lines = sorted(orjson.dumps([item.label, item.split, item.sha256]) for item in listed)
    return hashlib.sha256(b"\n".join(lines)).hexdigest()
