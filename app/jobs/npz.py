"""Reading .npz uploads in MedMNIST's layout (Yang et al. 2023) without pickle and one image at a time."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import IO, Any, get_args

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from app.contracts import Images, Split
from app.errors import BadRequest, TooLarge
from app.jobs.archive import CHUNK, MIB, PLAIN_METHODS, Inflated, IngestLimits, open_zip, plain_entry

LARGEST_ARRAY_OF_LABELS = 64 * MIB
#: train_images, images, x_train (Keras), x, ...
NAME = re.compile(
    r"(?:(?P<split>train|val|test)_)?(?P<kind>images|labels|groups|x|y)(?:_(?P<keras>train|val|test))?"
)
KINDS = {"x": "images", "y": "labels"}
HINT = (
    "Use train_images uint8 (n, h, w) or (n, h, w, 3) and train_labels (n,) or (n, 1), the same with "
    "val_ and test_, or images and labels alone."
)


@dataclass(frozen=True)
class Part:
    """One split of the file (None: the file names no splits)."""

    split: Split | None
    images: str  # member name
    shape: tuple[int, ...]  # (n, h, w, channels)
    labels: list[str]
    groups: list[str] | None


@dataclass
class Layout:
    """What the file's headers say. `unused` are members that are not read."""

    parts: list[Part] = field(default_factory=list[Part])
    unused: list[str] = field(default_factory=list[str])

    @property
    def count(self) -> int:
        return sum(part.shape[0] for part in self.parts)


def read_layout(source: Path, limits: IngestLimits) -> Layout:
    """Names, shapes, labels and groups; no image yet.

    Raises BadRequest `unsafe_archive` (pickled objects), `invalid_npz`, `ambiguous_labels`, TooLarge
    `image_too_large`, `archive_bomb`.
    """
    inflated = Inflated(source.stat().st_size, limits)
    found: dict[Split | None, dict[str, str]] = {}
    layout = Layout()
    with open_zip(source) as archive:
        for info in archive.infolist():
            plain_entry(info)
            if info.compress_type not in PLAIN_METHODS:
                raise _invalid(f"{info.filename} is packed by a method other than deflate.")
            name = info.filename.removesuffix(".npy")
            match = NAME.fullmatch(name)
            if match is None:
                _header(archive, info.filename)  # a pickle is refused even where it would not be read
                layout.unused.append(info.filename)
                continue
            kind = KINDS.get(match["kind"], match["kind"])
            split = match["split"] or match["keras"]
            arrays = found.setdefault(next((s for s in get_args(Split) if s == split), None), {})
            if kind in arrays:
                raise _invalid(f"{arrays[kind]} and {info.filename} say the same thing.")
            arrays[kind] = info.filename
        for split, arrays in found.items():
            layout.parts.append(_part(archive, split, arrays, inflated, limits))
    if not layout.parts:
        raise _invalid(f"No images among the arrays {', '.join(layout.unused[:10]) or '(none)'}.")
    if None in found and len(found) > 1:
        raise _invalid("Arrays with and without a split in their names are mixed.")
    if layout.count > limits.files:
        raise _too_many(limits)
    return layout


def read_images(source: Path, layout: Layout, limits: IngestLimits) -> Iterator[tuple[Part, int, Images]]:
    """(part, row, image (h, w, 3)) in order; one image is in memory."""
    inflated = Inflated(source.stat().st_size, limits)
    with open_zip(source) as archive:
        for part in layout.parts:
            n, height, width, channels = part.shape
            with _array(archive, part.images) as file:
                npy_header(file)
                for row in range(n):
                    pixels = _exactly(file, height * width * channels, part.images, inflated)
                    image = np.frombuffer(pixels, np.uint8).reshape(height, width, channels)
                    yield part, row, np.ascontiguousarray(np.broadcast_to(image, (height, width, 3)))


def _part(
    archive: zipfile.ZipFile,
    split: Split | None,
    arrays: dict[str, str],
    inflated: Inflated,
    limits: IngestLimits,
) -> Part:
    if "images" not in arrays or "labels" not in arrays:
        raise _invalid(f"{next(iter(arrays.values()))} has no partner: images need labels.")
    name = arrays["images"]
    shape, dtype = _header(archive, name)
    if dtype != np.uint8:
        raise _invalid(f"{name} is {dtype}, not uint8: scale it to 0..255.")
    if len(shape) == 3:
        shape = (*shape, 1)
    if len(shape) != 4 or shape[3] not in (1, 3) or min(shape[1:]) < 1 or shape[0] < 0:
        raise _invalid(f"{name} has shape {shape}; expected (n, h, w) or (n, h, w, 3).")
    if shape[0] > limits.files:
        raise _too_many(limits)
    if shape[1] * shape[2] > limits.pixels:
        raise TooLarge(
            f"{name} holds images of {shape[2]} x {shape[1]} pixels.",
            code="image_too_large",
            hint=f"Send images of at most {limits.pixels} pixels.",
        )
    labels = _column(archive, arrays["labels"], shape[0], inflated)
    groups = _column(archive, arrays["groups"], shape[0], inflated) if "groups" in arrays else None
    return Part(split, name, shape, labels, groups)


def _column(archive: zipfile.ZipFile, name: str, n: int, inflated: Inflated) -> list[str]:
    """(n,) or (n, 1) integers or strings, as strings."""
    shape, dtype = _header(archive, name)
    if len(shape) == 2 and shape[1] > 1:
        raise BadRequest(
            f"{name} has shape {shape}: several labels per image.",
            code="ambiguous_labels",
            hint="Give one label per image, for example labels.argmax(axis=1) when exactly one is set.",
        )
    if shape not in ((n,), (n, 1)):
        raise _invalid(f"{name} has shape {shape}; expected ({n},) to match its images.")
    if dtype.kind not in "iubU" or dtype.itemsize == 0:
        raise _invalid(f"{name} is {dtype}, not integers or strings.")
    size = n * dtype.itemsize
    if size > LARGEST_ARRAY_OF_LABELS:
        raise _invalid(f"{name} takes more than {LARGEST_ARRAY_OF_LABELS // MIB} MiB.")
    with _array(archive, name) as file:
        npy_header(file)
        values: NDArray[Any] = np.frombuffer(_exactly(file, size, name, inflated), dtype)
    try:
        return [str(value) for value in values.tolist()]
    except ValueError as error:
        raise _invalid(f"{name} holds text that is not Unicode.") from error


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type. Raises BadRequest `unsafe_archive` for objects and records, `invalid_npz`."""
    with _array(archive, name) as file:
        try:
            shape, fortran, dtype = npy_header(file)
        except Exception as error:  # numpy parses the header as a Python literal: much can come out of that
            raise _invalid(f"{name} has an unreadable header.") from error
    if dtype.hasobject or dtype.fields is not None or dtype.subdtype is not None:
        raise BadRequest(
            f"{name} holds Python objects or records ({dtype}), which are never loaded.",
            code="unsafe_archive",
            hint="Save plain arrays: numpy.savez(..., allow_pickle=False).",
        )
    if fortran and prod(shape) > 1:
        raise _invalid(f"{name} is in Fortran order: save numpy.ascontiguousarray(x).")
    return shape, dtype


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, Fortran order, dtype); leaves `file` at the data. Raises ValueError."""
    version = npy.read_magic(file)
    if version == (1, 0):
        return npy.read_array_header_1_0(file)
    if version == (2, 0):
        return npy.read_array_header_2_0(file)
    raise ValueError("unknown version of the npy format")


@contextmanager
def _array(archive: zipfile.ZipFile, name: str) -> Generator[IO[bytes]]:
    """A member's stream; what breaks while it is read is `unreadable_archive`."""
    try:
        with archive.open(name) as file:
            yield file
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise BadRequest(
            f"{name} cannot be read: {error}.", code="unreadable_archive", hint="Save the file again."
        ) from error


def _exactly(file: IO[bytes], size: int, name: str, inflated: Inflated) -> bytes:
    data = bytearray()
    while len(data) < size and (chunk := file.read(min(CHUNK, size - len(data)))):
        inflated.count(len(chunk))
        data += chunk
    if len(data) < size:
        raise EOFError(f"{name} ends early")
    return bytes(data)


def _too_many(limits: IngestLimits) -> TooLarge:
    return TooLarge(
        f"The file holds more than {limits.files} images.", code="archive_bomb", hint="Send fewer images."
    )


def _invalid(detail: str) -> BadRequest:
    return BadRequest(detail, code="invalid_npz", hint=HINT)
