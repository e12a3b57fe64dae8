"""Uploads that mean harm, or are broken: a clear refusal, in bounded memory, with nothing left behind."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.jobs.uploads import animals, picture, png, write_tar, write_zip

from app.errors import BadRequest, ReprogError, TooLarge
from app.jobs.archive import MIB, safe_path
from app.jobs.dataset import IngestLimits, ingest

SMALL = IngestLimits(files=100, file_bytes=MIB, total_bytes=16 * MIB, ratio=50, free_bytes=4 * MIB)


@pytest.fixture
def bounded() -> Iterator[None]:
    """The body may not allocate more than 48 MiB."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 48 * MIB, f"{peak / MIB:.0f} MiB"


def refusal(source: Path, limits: IngestLimits = SMALL) -> ReprogError:
    """The error; a failure leaves nothing."""
    before = sorted(source.parent.iterdir())
    with pytest.raises(ReprogError) as refused:
        ingest(source, "auto", source.parent / "ds", 0, limits=limits)
    assert sorted(source.parent.iterdir()) == before
    assert 400 <= refused.value.status < 500
    assert refused.value.hint
    return refused.value


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


def test_an_image_of_absurd_size_is_refused_from_its_header(tmp_path: Path, bounded: None) -> None:
    files = animals() | {"cat/huge.png": png_header(60_000, 60_000)}
    error = refusal(write_zip(tmp_path / "a.zip", files))
    assert isinstance(error, TooLarge)
    assert error.code == "image_too_large"
    assert "cat/huge.png" in error.detail


def test_npz_images_of_absurd_size_are_refused_from_the_header(tmp_path: Path, bounded: None) -> None:
    source = tmp_path / "a.npz"
    write_zip(
        source, {"images.npy": npy_header("|u1", (2, 60_000, 60_000, 3)), "labels.npy": npy(np.arange(2))}
    )
    assert refusal(source).code == "image_too_large"
    shape = (10**15, 8, 8)
    write_zip(source, {"images.npy": npy_header("|u1", shape), "labels.npy": npy_header("<i8", shape[:1])})
    assert refusal(source).code == "archive_bomb"


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize("name", ["cat/1.png", "labels.csv", "cat/notes"])
def test_one_giant_member_is_a_bomb(tmp_path: Path, bounded: None, kind: str, name: str) -> None:
    source = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as out:
            for _ in range(40):
                out.write(bytes(MIB))
    else:
        with gzip.open(source, "wb") as out:
            info = tarfile.TarInfo(name)
            info.size = 40 * MIB
            out.write(info.tobuf())
            for _ in range(40):
                out.write(bytes(MIB))
    assert source.stat().st_size < MIB // 8
    assert refusal(source).code == "archive_bomb"


def test_many_members_are_a_bomb_by_ratio_and_by_count(tmp_path: Path, bounded: None) -> None:
    source = write_zip(
        tmp_path / "a.zip", {f"{i}.bin": bytes(MIB // 2) for i in range(12)}, zipfile.ZIP_DEFLATED
    )
    assert refusal(source).code == "archive_bomb"
    many = {f"a/{i}.png": b"" for i in range(101)}
    assert refusal(write_zip(tmp_path / "b.zip", many)).code == "archive_bomb"
    assert refusal(write_tar(tmp_path / "b.tar", many, "w")).code == "archive_bomb"


def test_a_member_that_lies_about_its_size_is_damaged(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "a.zip", animals() | {"cat/x.png": bytes(2000)}, zipfile.ZIP_DEFLATED)
    data = source.read_bytes()
    source.write_bytes(data.replace(struct.pack("<I", 2000), struct.pack("<I", 20)))
    found = ingest(source, "auto", tmp_path / "ds", 0)
    assert [e["code"] for e in found.report["rejected"]] == ["damaged_file"]


def test_a_tar_header_of_absurd_length_is_refused(tmp_path: Path, bounded: None) -> None:
    source = tmp_path / "a.tar.gz"
    with gzip.open(source, "wb") as out:
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.XHDTYPE, 2**33
        out.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(8):
            out.write(b"9" * MIB)
    assert refusal(source).code == "unsafe_archive"


def test_a_zip_directory_of_absurd_size_is_refused(tmp_path: Path, bounded: None) -> None:
    source = tmp_path / "a.zip"
    with source.open("wb") as out:  # 100 entries with a 60 kB name each, sparse
        out.write(b"PK\x03\x04")
        out.truncate(80 * MIB)
        out.seek(80 * MIB)
        out.write(struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, 80 * MIB - 8, 8, 0))
    assert refusal(source).code == "archive_bomb"


@pytest.mark.parametrize(
    "name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "C:/evil.png", "..\\evil.png", "x" * 600]
)
def test_names_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    files = animals() | {name: png(1)}
    assert refusal(write_zip(tmp_path / "a.zip", files)).code == "unsafe_archive"
    assert refusal(write_tar(tmp_path / "a.tar.gz", files)).code == "unsafe_archive"


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_zip_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    source = write_zip(tmp_path / "a.zip", animals())
    with zipfile.ZipFile(source, "a") as archive:
        info = zipfile.ZipInfo("cat/link.png")
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    assert refusal(source).code == "unsafe_archive"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, b"S"])
def test_tar_links_devices_and_sparse_files_are_refused(tmp_path: Path, kind: bytes) -> None:
    source = write_tar(tmp_path / "a.tar", animals(), "w")
    with tarfile.open(source, "a") as archive:
        info = tarfile.TarInfo("cat/link.png")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    assert refusal(source).code == "unsafe_archive"


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "a.zip", animals())
    data = bytearray(source.read_bytes())
    at = data.rfind(b"PK\x01\x02")
    data[at + 8] |= 1
    source.write_bytes(data)
    assert refusal(source).code == "unsafe_archive"


class Boom:
    """Would write a file when unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return Path.touch, (Path("pickle-was-loaded"),)


@pytest.mark.parametrize("name", ["images", "labels", "unrelated"])
def test_pickles_in_npz_are_never_loaded(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arrays = {"images": np.zeros((4, 3, 3), np.uint8), "labels": np.arange(4)}
    np.savez(tmp_path / "a.npz", **(arrays | {name: np.array([Boom()] * 4, dtype=object)}), allow_pickle=True)
    assert refusal(tmp_path / "a.npz").code == "unsafe_archive"
    assert not (tmp_path / "pickle-was-loaded").exists()


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_2_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
    return out.getvalue()


PIXELS = np.stack([picture(i) for i in range(12)])
LABELS = np.arange(12) % 2


@pytest.mark.parametrize(
    ("arrays", "code"),
    [
        ({"images": PIXELS}, "invalid_npz"),
        ({"images": PIXELS, "labels": LABELS[:-1]}, "invalid_npz"),
        ({"images": PIXELS, "labels": np.eye(12, 3, dtype=int)}, "ambiguous_labels"),
        ({"images": PIXELS, "labels": LABELS / 2}, "invalid_npz"),
        ({"images": PIXELS / 255, "labels": LABELS}, "invalid_npz"),
        ({"images": PIXELS[0, 0], "labels": LABELS[:5]}, "invalid_npz"),
        ({"images": PIXELS.transpose(0, 3, 1, 2).copy(), "labels": LABELS}, "invalid_npz"),
        ({"images": np.asfortranarray(PIXELS), "labels": LABELS}, "invalid_npz"),
        ({"images": PIXELS, "labels": LABELS, "x": PIXELS}, "invalid_npz"),
        ({"images": PIXELS, "labels": LABELS, "val_images": PIXELS, "val_labels": LABELS}, "invalid_npz"),
        ({"pictures": PIXELS}, "invalid_npz"),
        ({"images": PIXELS, "labels": LABELS * 0}, "too_few_classes"),
        ({"images": PIXELS[:0], "labels": LABELS[:0]}, "empty_dataset"),
        ({"images": PIXELS, "labels": np.zeros(12, "U0")}, "too_few_classes"),
        ({"images": PIXELS, "labels": np.zeros(12, [("a", "i4")])}, "unsafe_archive"),
    ],
)
def test_npz_that_does_not_fit_the_layout(tmp_path: Path, arrays: dict[str, np.ndarray], code: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    assert refusal(tmp_path / "a.npz").code == code


@pytest.mark.parametrize("header", [b"(" * 900, b"{'descr': '|u1'}", b"\x00" * 50, b"{'a':" * 300])
def test_npz_with_a_hostile_header(tmp_path: Path, header: bytes) -> None:
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    write_zip(tmp_path / "a.npz", {"images.npy": data, "labels.npy": npy(LABELS)})
    assert refusal(tmp_path / "a.npz").code == "invalid_npz"


def good_zip(path: Path) -> Path:
    return write_zip(path, animals(4), zipfile.ZIP_DEFLATED)


def good_tar(path: Path) -> Path:
    return write_tar(path, animals(4), "w")


def good_npz(path: Path) -> Path:
    with path.open("wb") as out:
        np.savez(out, images=PIXELS, labels=LABELS)
    return path


@pytest.mark.parametrize("make", [good_zip, good_tar, good_npz])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_is_a_refusal_or_a_report_never_a_crash(
    tmp_path_factory: pytest.TempPathFactory, make: Callable[[Path], Path], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    source = make(folder / "a")
    content = bytearray(source.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    kept = data.draw(st.one_of(st.just(len(content)), st.integers(1, len(content))))
    source.write_bytes(content[:kept])
    refused: ReprogError | None = None
    try:
        report = ingest(source, "auto", folder / "ds", 0, limits=SMALL).report
    except ReprogError as error:
        refused = error
    if refused is None:
        assert report["accepted"] + report["rejected_total"] == report["files"]
    else:
        assert 400 <= refused.status < 500
        assert [p.name for p in folder.iterdir()] == ["a"]


@given(st.text())
def test_safe_path_never_leads_outside(name: str) -> None:
    try:
        path = safe_path(name)
    except BadRequest:
        return
    assert not Path(path).is_absolute()
    assert ".." not in Path(path).parts
    assert Path(os.path.normpath(Path("/jail", path))).is_relative_to("/jail")
    path.encode()
