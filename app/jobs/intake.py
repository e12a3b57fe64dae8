"""From an upload to labelled pictures: every file of it is taken, rejected or ignored, with a reason."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import orjson

from app.contracts import Images
from app.errors import BadRequest, TooLarge, UnsupportedType
from app.jobs import archive, npz, pack, parquet, records
from app.jobs import labels as label_reading
from app.jobs.archive import IngestLimits
from app.jobs.pack import Item, Packer
from app.jobs.records import Records
from app.reprogramming import encoder, picture
from app.reprogramming.encoder import Encoder
from app.reprogramming.picture import WHITE, Colour

Format = Literal[
    "auto", "zip", "tar", "npz", "parquet", "folders", "imagefolder", "csv", "table", "series", "sequence"
]  # fmt: skip
FORMATS: tuple[Format, ...] = get_args(Format)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".gif", ".webp", ".tif", ".tiff")
SYSTEM_FILES = ("__macosx", ".ds_store", "thumbs.db", "desktop.ini")


@dataclass
class Files:
    """Every file sent is in exactly one of `items`, `rejected` and `ignored`."""

    items: list[Item] = field(default_factory=list[Item])
    rejected: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    ignored: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    warnings: list[str] = field(default_factory=list[str])
    how: str = ""
    shrunk: int = 0
    thumbnails: dict[int, bytes] = field(default_factory=dict[int, bytes])  # by item offset
    background: Colour = WHITE  # that transparent pixels are laid on
    records: Records | None = None  # no pictures yet: an item's offset is its row of these

    def reject(self, file: str, code: str, reason: str) -> None:
        self.rejected.append({"file": file, "code": code, "reason": reason})

    def ignore(self, file: str, reason: str) -> None:
        self.ignored.append({"file": file, "reason": reason})


def take_in(
    source: Path,
    format: str,
    raw: Path,
    limits: IngestLimits,
    label_column: str | None = None,
    background: Colour = WHITE,
) -> Files:
    """Pictures go to the pack file `raw`, records stay in memory. `format` is one of FORMATS; `auto` goes by
    the bytes. `label_column` names the label of tables whose header does not.

    Raises what `dataset.ingest` says.
    """
    if format not in FORMATS:
        raise BadRequest(
            f"There is no format {format!r}.", param="format", hint=f"One of {', '.join(FORMATS)}."
        )
    kind = archive.sniff(source, limits)
    if format in archive.KINDS and kind != format:
        raise UnsupportedType(
            f"The upload is a {kind} file, not {format}.", hint=f"Send format=auto or format={kind}."
        )
    files = Files(background=background)
    asked: encoder.Kind | None = next((wanted for wanted in encoder.KINDS if wanted == format), None)
    with closing(Packer(raw)) as packer:
        if kind == "npz":
            if asked:
                raise UnsupportedType(f"An npz holds images, no {asked}.", hint="Send a CSV.")
            _from_npz(source, files, packer, limits)
        elif kind == "parquet":
            _from_parquet(source, files, packer, limits, asked, label_column)
        elif kind == "text":
            _from_texts([archive.Member("", _text(source, limits))], files, asked, label_column)
        elif asked or (format == "auto" and kind == "zip" and _texts_alone(source)):
            _from_texts(archive.members(source, kind, limits), files, asked, label_column)
        else:
            reader = label_reading.READERS.get(format, "auto")
            members = archive.members(source, kind, limits)
            _from_archive(members, files, packer, reader, limits, label_column)
        files.thumbnails = packer.thumbnails
    return files


def _from_archive(
    members: Iterable[archive.Member],
    files: Files,
    packer: Packer,
    reader: label_reading.Reader,
    limits: IngestLimits,
    label_column: str | None,
) -> None:
    tables: dict[str, bytes] = {}
    for member in members:
        path = member.path
        if any(part.lower() in SYSTEM_FILES or part.startswith("._") for part in path.split("/")):
            files.ignore(path, "Made by the operating system, not data.")
        elif member.code:
            files.reject(path, member.code, member.reason)
        elif label_reading.is_table(path):
            if sum(map(len, tables.values())) + len(member.data) > limits.table_bytes:
                raise TooLarge(
                    f"The tables hold more than {limits.table_bytes // archive.MIB} MiB.",
                    hint="Send only path, label, split and group columns.",
                )
            tables[path] = member.data
        else:
            _take_picture(member, files, packer, limits)
    found = {item.file: item for item in files.items}
    refused = [entry["file"] for entry in files.rejected]
    reading = label_reading.read(list(found), tables, reader, refused, label_column)
    for path, (code, reason) in reading.rejected.items():
        files.reject(path, code, reason)
    for table in reading.tables:
        files.ignore(table, "Read as the label table.")
    files.items = [found[path] for path in reading.rows]
    for path, row in reading.rows.items():
        found[path].label, found[path].split, found[path].group = row.label, row.split, row.group
    files.how, files.warnings = reading.how, reading.warnings


def _take_picture(member: archive.Member, files: Files, packer: Packer, limits: IngestLimits) -> None:
    """Raises TooLarge for an image whose header promises too many pixels."""
    try:
        image = picture.decode(member.data, max_pixels=limits.pixels, background=files.background)
    except TooLarge as error:
        raise TooLarge(
            f"{member.path}: {error.detail}",
            code="image_too_large",
            hint="Shrink or remove it, then send again.",
        ) from error
    except BadRequest as error:
        if member.path.lower().endswith(IMAGE_SUFFIXES):
            files.reject(member.path, error.code, error.detail)
        else:
            files.reject(member.path, "not_an_image", "Not an image of a known format.")
        return
    files.items.append(packer.add(member.path, _shrunk(image, files, limits)))


def _shrunk(image: Images, files: Files, limits: IngestLimits) -> Images:
    """(h, w, 3) with its longer side at most `longest_side`, proportions kept."""
    height, width = image.shape[:2]
    scale = limits.longest_side / max(height, width)
    if scale >= 1:
        return image
    files.shrunk += 1
    return picture.fit(image, max(1, round(height * scale)), max(1, round(width * scale)))


def _text(source: Path, limits: IngestLimits) -> bytes:
    if source.stat().st_size > limits.text_bytes:
        raise TooLarge(
            f"The text has more than {limits.text_bytes // archive.MIB} MiB.", hint="Send fewer rows."
        )
    return source.read_bytes()


def _texts_alone(source: Path) -> bool:
    """Whether a zip holds tables of records and nothing else: a manifest comes with pictures."""
    names = [name for name in archive.zip_paths(source) if not _unimportant(name)]
    return bool(names) and all(name.lower().endswith(records.SUFFIXES) for name in names)


def _unimportant(path: str) -> bool:
    parts = path.replace("\\", "/").lower().split("/")
    return any(part in SYSTEM_FILES or part.startswith("._") for part in parts) or parts[-1].startswith(
        ("readme", "license", "licence")
    )


def _from_texts(
    members: Iterable[archive.Member], files: Files, asked: encoder.Kind | None, label_column: str | None
) -> None:
    sheets: list[records.Sheet] = []
    for member in members:
        if _unimportant(member.path):
            files.ignore(member.path, "Not data.")
        elif member.code:
            files.reject(member.path, member.code, member.reason)
        elif member.path and not member.path.lower().endswith(records.SUFFIXES):
            files.reject(
                member.path, "not_a_table", f"Its name ends in none of {', '.join(records.SUFFIXES)}."
            )
        else:
            sheets.append(records.sheet(member.path, member.data))
    _take_records(records.read(sheets, asked, label_column), files)


def _take_records(found: Records, files: Files) -> None:
    for n, row in enumerate(found.rows):
        digest = hashlib.sha256(orjson.dumps([found.columns, row.value])).hexdigest()
        item = Item(row.file, digest, 0, 0, n, 0, row.label, row.split, row.group)
        files.items.append(item)
    for file, code, reason in found.rejected:
        files.reject(file, code, reason)
    files.how, files.warnings, files.records = found.how, found.warnings, found


def _from_parquet(
    source: Path,
    files: Files,
    packer: Packer,
    limits: IngestLimits,
    asked: encoder.Kind | None,
    label_column: str | None,
) -> None:
    file = parquet.Parquet(source, limits)
    layout = file.layout(label_column)
    if asked or layout.image is None:
        _take_records(records.read([file.sheet(layout)], asked, label_column), files)
        return
    for member, said, why in file.pictures(layout):
        if member.code or said is None:
            files.reject(member.path, member.code or "no_label", member.reason or why)
            continue
        before = len(files.items)
        _take_picture(member, files, packer, limits)
        for item in files.items[before:]:
            item.label, item.split, item.group = said.label, said.split, said.group
    files.how = f"Column {layout.label!r} is the label of the image in column {layout.image!r}."
    if layout.names:
        files.how += f" Its numbers stand for {', '.join(layout.names[:10])}."


def encode(files: Files, raw: Path) -> Encoder:
    """Records, split already, become pictures in the pack `raw`, in the order of `files.items`; the encoder
    is fitted on the training ones. Raises BadRequest `wrong_shape`."""
    found = files.records
    assert found is not None
    values = [found.rows[item.offset].value for item in files.items]
    train = [value for item, value in zip(files.items, values, strict=True) if item.split == "train"]
    fitted = encoder.fit(found.kind, train, {len(value) for value in values}, found.columns, found.numeric)
    with closing(Packer(raw)) as packer:
        for item, value in zip(files.items, values, strict=True):
            drawn = packer.add(item.file, fitted.image(value))
            item.height, item.width, item.offset, item.length = (
                drawn.height, drawn.width, drawn.offset, drawn.length
            )  # fmt: skip
    pack.write_records(raw.parent, fitted, values)
    return fitted


def _from_npz(source: Path, files: Files, packer: Packer, limits: IngestLimits) -> None:
    layout = npz.read_layout(source, limits)
    for part, row, image in npz.read_images(source, layout, limits):
        item = packer.add(f"{part.images.removesuffix('.npy')}[{row}]", _shrunk(image, files, limits))
        item.label, item.split = label_reading.tidy(part.labels[row]), part.split
        item.group = label_reading.tidy(part.groups[row]) if part.groups else None
        files.items.append(item)
    for name in layout.unused:
        files.ignore(name, "Not an array of images, labels or groups.")
    arrays = ", ".join(part.images.removesuffix(".npy") for part in layout.parts)
    files.how = f"Labels come from the label arrays beside {arrays}."
