"""Opening an upload that nobody vouches for: zip and tar members one at a time, in bounded memory.

Nothing an archive says about itself is trusted: bytes are counted while they are inflated, and nothing is
ever written under a name that it chose.
"""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, get_args

from app.errors import BadRequest, TooLarge, UnsupportedType

Kind = Literal["zip", "tar", "npz", "parquet", "text"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MIB = 2**20
CHUNK = 2**16  # bytes inflated at once
LONGEST_NAME = 512  # characters
LARGEST_DIRECTORY = 32 * MIB  # zip: central directory
LONGEST_TAIL = 2**17  # zip: end record and comment, read with no size given
LARGEST_HEADER = 2**16  # tar: one extended header
BLOCK = 512  # tar
HEADERS_PER_FILE = 3  # tar: folders and extended headers come on top of files
ZIP_ENTRY = b"PK\x01\x02"  # starts every entry of a zip's directory
PLAIN_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # LZMA may ask for 4 GiB of dictionary
UNSAFE_HINT = "Send a zip, tar or tar.gz of plain files and folders with relative names, without a password."


@dataclass(frozen=True)
class IngestLimits:
    """Caps on one upload. Bytes are counted after inflating."""

    files: int = 200_000
    file_bytes: int = 32 * MIB
    total_bytes: int = 8 * 2**30
    ratio: int = 200  # inflated over sent, once more than `free_bytes` came out
    free_bytes: int = 256 * MIB
    table_bytes: int = 16 * MIB  # all label tables together
    pixels: int = 50_000_000  # per image, known from its header
    text_bytes: int = 64 * MIB  # a table, series or sequences
    longest_side: int = 1024  # pixels; larger images are shrunk to it


LIMITS = IngestLimits()


@dataclass(frozen=True)
class Member:
    """One file of an archive: its bytes, or why they could not be had."""

    path: str
    data: bytes = b""
    code: str = ""
    reason: str = ""


class Inflated:
    """Counts inflated bytes against the caps."""

    def __init__(self, sent: int, limits: IngestLimits) -> None:
        self._room = min(limits.total_bytes, max(limits.free_bytes, sent * limits.ratio))
        self._used = 0

    def count(self, size: int) -> None:
        """Raises TooLarge `archive_bomb` once the caps are passed."""
        self._used += size
        if self._used > self._room:
            raise TooLarge(
                f"The archive inflates to more than {self._room // MIB} MiB.",
                code="archive_bomb",
                hint="Send fewer files, or the images as PNG or JPEG in a plain zip.",
            )


class _NoGiantReads(io.BufferedReader):
    """A file that refuses to hand out a zip's directory of absurd size in one piece."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > LARGEST_DIRECTORY:
            raise TooLarge(
                f"The archive's directory is larger than {LARGEST_DIRECTORY // MIB} MiB.",
                code="archive_bomb",
                hint="Send fewer files.",
            )
        return super().read(LONGEST_TAIL if size is None or size < 0 else size)


def sniff(source: Path, limits: IngestLimits) -> Kind:
    """What the file is, by its bytes. Raises UnsupportedType, and TooLarge for too many files."""
    with source.open("rb") as file:
        start = file.read(BLOCK)
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        _count_entries(source, limits)
        with open_zip(source) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
        return "npz" if names and all(name.endswith(".npy") for name in names) else "zip"
    if start[:2] == b"\x1f\x8b" or start[257:262] == b"ustar":
        return "tar"
    if start[:4] == b"PAR1":
        return "parquet"
    if start and _is_text(start):
        return "text"
    raise UnsupportedType(
        "The upload is none of zip, tar, tar.gz, npz, parquet and text." if start else "The upload is empty.",
        hint="Send a zip with one folder of images per class, a MedMNIST-style .npz, or a CSV with a header.",
    )


def _is_text(start: bytes) -> bool:
    """UTF-8 without control characters; the last character may be cut."""
    try:
        text = start.decode()
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:
            return False
        text = start[: error.start].decode()
    return all(mark.isprintable() or mark in "\t\r\n\ufeff" for mark in text)


def zip_paths(source: Path) -> list[str]:
    """Names of its files, as they stand. Raises BadRequest `unreadable_archive`."""
    with open_zip(source) as archive:
        return [name for name in archive.namelist() if not name.endswith("/")]


def members(source: Path, kind: Literal["zip", "tar"], limits: IngestLimits) -> Iterator[Member]:
    """Every file of the archive, in its order; at most one member is in memory.

    Raises BadRequest `unsafe_archive` or `unreadable_archive`, TooLarge `archive_bomb`.
    """
    return _zip_members(source, limits) if kind == "zip" else _tar_members(source, limits)


def safe_path(name: str) -> str:
    """The name as a relative path with forward slashes, NFC. Raises BadRequest `unsafe_archive`."""
    # surrogates from undecodable bytes cannot be stored as JSON
    path = unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode()).replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    outside = path.startswith("/") or ".." in parts or path[1:2] == ":"
    if not parts or outside or "\0" in path or len(path) > LONGEST_NAME:
        shown = ascii(name[:80])
        raise BadRequest(
            f"The archive holds a name that is absolute, leads outside, or is too long: {shown}.",
            code="unsafe_archive",
            hint=UNSAFE_HINT,
        )
    return "/".join(parts)


@contextmanager
def open_zip(source: Path) -> Generator[zipfile.ZipFile]:
    """A zip whose directory is of sane size. Raises BadRequest `unreadable_archive`."""
    with _NoGiantReads(io.FileIO(source)) as file:
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
            raise _unreadable("zip", error) from error
        with archive:
            yield archive


def plain_entry(info: zipfile.ZipInfo) -> None:
    """Raises BadRequest `unsafe_archive` for an encrypted entry, a link or a device."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.flag_bits & 0x1:
        raise _unsafe(f"{info.filename[:80]!a} is encrypted")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _unsafe(f"{info.filename[:80]!a} is a link or a device")


def _count_entries(source: Path, limits: IngestLimits) -> None:
    """Signatures are an upper bound on entries, known before anything is built from them."""
    count, tail = 0, b""
    with source.open("rb") as file:
        while block := file.read(MIB):
            count += (tail + block).count(ZIP_ENTRY)
            tail = block[-3:]
    if count > limits.files:
        raise _too_many(limits)


def _zip_members(source: Path, limits: IngestLimits) -> Iterator[Member]:
    inflated = Inflated(source.stat().st_size, limits)
    seen: set[str] = set()
    with open_zip(source) as archive:
        for info in archive.infolist():
            plain_entry(info)
            path = safe_path(info.filename)
            if info.is_dir():
                continue
            if path in seen:
                yield Member(path, code="duplicate_path", reason="The archive holds this path twice.")
                continue
            seen.add(path)
            yield _zip_member(archive, info, path, inflated, limits)


def _zip_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str, inflated: Inflated, limits: IngestLimits
) -> Member:
    if info.compress_type not in PLAIN_METHODS:
        return Member(path, code="unsupported_compression", reason="Packed by a method other than deflate.")
    try:
        with archive.open(info) as file:
            return _take(file, path, info.file_size, inflated, limits)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError) as error:
        return Member(path, code="damaged_file", reason=f"Cannot be unpacked: {error}.")


def _take(file: IO[bytes], path: str, size: int, inflated: Inflated, limits: IngestLimits) -> Member:
    """Read at most `size` bytes; past the cap for one file they are counted and thrown away."""
    data, taken = bytearray(), 0
    while taken < size and (chunk := file.read(min(CHUNK, size - taken))):
        inflated.count(len(chunk))
        taken += len(chunk)
        if taken <= limits.file_bytes:
            data += chunk
    if taken > limits.file_bytes:
        reason = f"Larger than {limits.file_bytes // MIB} MiB."
        return Member(path, code="file_too_large", reason=reason)
    return Member(path, bytes(data))


class _TarStream:
    """The inflated bytes of a tar, read forward only and counted."""

    def __init__(self, file: IO[bytes], inflated: Inflated) -> None:
        self._file, self._inflated = file, inflated

    def exactly(self, size: int) -> bytes:
        """Raises EOFError when the archive ends early. Headers only: `size` is small."""
        data = self._file.read(size)
        self._inflated.count(len(data))
        if len(data) != size:
            raise EOFError("the archive ends early")
        return data

    def member(self, path: str, size: int, limits: IngestLimits) -> Member:
        found = _take(self._file, path, size, self._inflated, limits)
        if not found.code and len(found.data) != size:
            raise EOFError("the archive ends early")
        self.pad(size)
        return found

    def skip(self, size: int) -> None:
        while size > 0:
            size -= len(self.exactly(min(CHUNK, size)))

    def pad(self, size: int) -> None:
        self.skip(-size % BLOCK)

    def header(self, size: int) -> bytes:
        """The data of an extended header. Raises BadRequest when it is absurdly long."""
        if size > LARGEST_HEADER:
            raise _unsafe("an extended header is too long")
        data = self.exactly(size)
        self.pad(size)
        return data


def _tar_members(source: Path, limits: IngestLimits) -> Iterator[Member]:
    """tarfile reads extended headers of any declared length into memory, so only its block parser is used."""
    seen: set[str] = set()
    with source.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        file: IO[bytes] = gzip.GzipFile(fileobj=raw) if zipped else raw  # type: ignore[assignment]
        stream = _TarStream(file, Inflated(source.stat().st_size, limits))
        try:
            for info in _tar_headers(stream, limits):
                path = safe_path(info.name)
                if len(seen) >= limits.files:
                    raise _too_many(limits)
                member = stream.member(path, info.size, limits)
                if path in seen:
                    member = Member(path, code="duplicate_path", reason="The archive holds this path twice.")
                seen.add(path)
                yield member
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            raise _unreadable("tar", error) from error


def _tar_headers(stream: _TarStream, limits: IngestLimits) -> Iterator[tarfile.TarInfo]:
    """Plain files; the caller reads each one's data before it asks for the next."""
    pax: dict[str, str] = {}
    headers = 0
    while any(block := stream.exactly(BLOCK)):  # a zero block ends the archive
        headers += 1
        if headers > HEADERS_PER_FILE * limits.files:
            raise _too_many(limits)
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.size < 0:
            raise tarfile.HeaderError("negative size")
        if info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            pax |= _pax_records(stream.header(info.size))
            continue
        if info.type == tarfile.GNUTYPE_LONGNAME:
            pax["path"] = stream.header(info.size).rstrip(b"\0").decode("utf-8", "surrogateescape")
            continue
        if info.type in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
            stream.header(info.size)
            continue
        info.name = pax.get("path", info.name)
        info.size = int(pax["size"][:15]) if pax.get("size", "").isdecimal() else info.size
        if any(key.startswith("GNU.sparse") for key in pax) or not (
            info.isdir() or info.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
        ):
            raise _unsafe(f"{info.name[:80]!a} is a link, a device or a sparse file")
        pax = {}
        if info.isdir():
            stream.skip(info.size)
            stream.pad(info.size)
        else:
            yield info


def _pax_records(data: bytes) -> dict[str, str]:
    """`length key=value` lines (POSIX.1-2001). Raises tarfile.HeaderError."""
    records: dict[str, str] = {}
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or len(length) > 6 or not len(length) < int(length) <= len(data):
            raise tarfile.HeaderError("bad extended header")
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        data = data[int(length) :]
    return records


def _unsafe(what: str) -> BadRequest:
    return BadRequest(f"The archive is refused: {what}.", code="unsafe_archive", hint=UNSAFE_HINT)


def _too_many(limits: IngestLimits) -> TooLarge:
    return TooLarge(
        f"The archive holds more than {limits.files} files.", code="archive_bomb", hint="Send fewer files."
    )


def _unreadable(kind: str, error: Exception) -> BadRequest:
    return BadRequest(
        f"The {kind} cannot be read: {error}.",
        code="unreadable_archive",
        hint="It may be damaged or cut short: make it again, or send it again.",
    )
