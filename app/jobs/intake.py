"""From an upload to labelled pictures: every file of it is taken, rejected or ignored, with a reason."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from app.contracts import Images
from app.errors import BadRequest, TooLarge, UnsupportedType
from app.jobs import archive, npz
from app.jobs import labels as label_reading
from app.jobs.archive import IngestLimits
from app.jobs.pack import Item, Packer
from app.reprogramming import picture

Format = Literal["auto", "zip", "tar", "npz", "folders", "imagefolder", "csv"]
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

    def reject(self, file: str, code: str, reason: str) -> None:
        self.rejected.append({"file": file, "code": code, "reason": reason})

    def ignore(self, file: str, reason: str) -> None:
        self.ignored.append({"file": file, "reason": reason})


def take_in(source: Path, format: str, raw: Path, limits: IngestLimits) -> Files:
    """Pictures go to the pack file `raw`. `format` is one of FORMATS; `auto` goes by the bytes.

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
    files = Files()
    with closing(Packer(raw)) as packer:
        if kind == "npz":
            _from_npz(source, files, packer, limits)
        else:
            reader = label_reading.READERS.get(format, "auto")
            _from_archive(archive.members(source, kind, limits), files, packer, reader, limits)
    return files


def _from_archive(
    members: Iterable[archive.Member],
    files: Files,
    packer: Packer,
    reader: label_reading.Reader,
    limits: IngestLimits,
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
    reading = label_reading.read(list(found), tables, reader, refused)
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
        image = picture.decode(member.data, max_pixels=limits.pixels)
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
