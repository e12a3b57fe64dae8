"""A data set on disk: `images.pack` (PNG files end to end), `manifest.jsonl` (a line per image, in the
order of the pack) and `dataset.json` (its classes)."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from app.contracts import Images, Split
from app.errors import NotFound
from app.reprogramming import picture
from app.reprogramming.encoder import Encoder, Record, from_config
from app.reprogramming.picture import WHITE, Colour

PACK, MANIFEST, HEAD = "images.pack", "manifest.jsonl", "dataset.json"
ENCODER, RECORDS, FEATURES = "encoder.json", "records.jsonl", "features.npy"
MOST_FEATURES = 25_000_000  # cells of FEATURES; beyond, the baseline is fitted on the pictures
VERSION = 1
THUMBNAIL = (9, 8)  # of a difference hash


@dataclass(slots=True)
class Item:
    """One image. `sha256` covers its size and pixels; `offset` and `length` find its PNG in the pack."""

    file: str
    sha256: str
    height: int
    width: int
    offset: int
    length: int
    label: str = ""
    split: Split | None = None
    group: str | None = None


class Packer:
    """Appends images to a pack."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._at = 0
        self.thumbnails: dict[int, bytes] = {}  # by offset: grey, THUMBNAIL (width, height)

    def add(self, file: str, image: Images) -> Item:
        """image: uint8 (h, w, 3)."""
        height, width = image.shape[:2]
        pixels = hashlib.sha256(b"%d %d\n" % (height, width))
        pixels.update(image.tobytes())
        shown = Image.fromarray(image)
        self.thumbnails[self._at] = shown.convert("L").resize(THUMBNAIL, Image.Resampling.BOX).tobytes()
        png = io.BytesIO()
        shown.save(png, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
        length = self._file.write(png.getbuffer())
        item = Item(file, pixels.hexdigest(), height, width, self._at, length)
        self._at += length
        return item

    def close(self) -> None:
        self._file.close()


def write(
    folder: Path, raw: Path, items: Iterable[Item], classes: tuple[str, ...], background: Colour
) -> None:
    """The finished data set in `folder`, images in the order of `items`, taken from the pack `raw`."""
    at = 0
    with (
        raw.open("rb") as source,
        (folder / PACK).open("wb") as pack,
        (folder / MANIFEST).open("wb") as lines,
    ):
        for n, item in enumerate(items):
            source.seek(item.offset)
            pack.write(source.read(item.length))
            lines.write(orjson.dumps({"n": n} | asdict(item) | {"offset": at}) + b"\n")
            at += item.length
        (folder / HEAD).write_bytes(
            orjson.dumps({"version": VERSION, "classes": classes, "background": background})
        )
        for file in (pack, lines):
            file.flush()
            os.fsync(file.fileno())


def write_records(folder: Path, encoder: Encoder, values: Sequence[Record]) -> None:
    """What pictures were drawn from, in their order: the encoder, each record as JSON, and the features
    (n, F) of all of them."""
    (folder / ENCODER).write_bytes(orjson.dumps(encoder.config()))
    with (folder / RECORDS).open("wb") as lines:
        lines.writelines(orjson.dumps(value) + b"\n" for value in values)
    width = len(encoder.features(values[0]))
    if width * len(values) <= MOST_FEATURES:
        rows = npy.open_memmap(folder / FEATURES, mode="w+", dtype=np.float64, shape=(len(values), width))
        for n, value in enumerate(values):
            rows[n] = encoder.features(value)
        rows.flush()


def encoder(folder: Path) -> Encoder | None:
    """What drew the pictures; None: they were sent as such."""
    path = folder / ENCODER
    return from_config(orjson.loads(path.read_bytes())) if path.is_file() else None


def features(folder: Path) -> NDArray[np.float64] | None:
    """(n, F) of the records in the order of the manifest; None without."""
    path = folder / FEATURES
    return np.load(path, mmap_mode="r", allow_pickle=False) if path.is_file() else None


def records(folder: Path, offset: int = 0, limit: int | None = None) -> list[Any]:
    """Records offset, offset + 1, ... as they are sent to predict; none for pictures."""
    path = folder / RECORDS
    if not path.is_file():
        return []
    with path.open("rb") as lines:
        return [
            orjson.loads(line) for line in islice(lines, offset, None if limit is None else offset + limit)
        ]


def classes(folder: Path) -> tuple[str, ...]:
    """Raises NotFound when the folder holds no data set."""
    return tuple(_head(folder)["classes"])


def background(folder: Path) -> Colour:
    """What transparent pixels were laid on. Raises NotFound."""
    red, green, blue = _head(folder).get("background", WHITE)  # an older release knew white alone
    return red, green, blue


def _head(folder: Path) -> dict[str, Any]:
    try:
        return orjson.loads((folder / HEAD).read_bytes())
    except FileNotFoundError as error:
        raise NotFound(
            "The data set's files are gone.", code="dataset_missing", hint="Upload the data set again."
        ) from error


def items(folder: Path, offset: int = 0, limit: int | None = None) -> Iterator[Item]:
    """Items offset, offset + 1, ...; at most `limit`. Raises NotFound."""
    try:
        with (folder / MANIFEST).open("rb") as lines:
            for line in islice(lines, offset, None if limit is None else offset + limit):
                row = orjson.loads(line)
                del row["n"]
                yield Item(**row)
    except FileNotFoundError as error:
        raise NotFound("The data set's files are gone.", code="dataset_missing") from error


def png(folder: Path, item: Item) -> bytes:
    """The image's PNG, as stored."""
    with (folder / PACK).open("rb") as pack:
        pack.seek(item.offset)
        return pack.read(item.length)


def fitted(folder: Path, height: int, width: int) -> Images:
    """All images at one size, uint8 (n, height, width, 3), in the order of the manifest; read-only.

    Fitted once and kept beside the pack: a job comes back for them at every segment.
    """
    path = folder / f"fitted-{height}x{width}.npy"
    if not path.is_file():
        _fit_all(folder, path, height, width)
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _fit_all(folder: Path, path: Path, height: int, width: int) -> None:
    """Written aside and renamed, so that two workers may do it at once."""
    everything = list(items(folder))
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(everything), height, width, 3)}
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as out:
        try:
            npy.write_array_header_1_0(out, header)  # type: ignore[arg-type]
            with (folder / PACK).open("rb") as pack:
                for item in everything:
                    out.write(_read(pack, item, height, width))
            out.flush()
            Path(out.name).replace(path)
        except BaseException:
            Path(out.name).unlink(missing_ok=True)
            raise


def _read(pack: BinaryIO, item: Item, height: int, width: int) -> bytes:
    """Items lie in the pack one after the other, so this reads straight on."""
    image = np.asarray(Image.open(io.BytesIO(pack.read(item.length)), formats=("PNG",)))
    if (item.height, item.width) != (height, width):
        image = picture.fit(image, height, width)
    return np.ascontiguousarray(image).tobytes()
