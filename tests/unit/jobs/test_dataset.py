"""Uploads that are what they should be, and what becomes of them."""

from __future__ import annotations

import io
import tarfile
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from unit.jobs.uploads import animals, encode, picture, png, write_tar, write_zip

from app.errors import BadRequest, Conflict, NotFound, UnsupportedType, Unusable
from app.jobs import dataset, samples
from app.jobs.dataset import Ingested, IngestLimits, ingest

SPLITS = ("train", "val", "test")


def take(source: Path, seed: int = 0, format: str = "auto", name: str = "ds") -> Ingested:
    return ingest(source, format, source.parent / name, seed)


def total(found: Ingested) -> dict[str, int]:
    return {split: sum(row.values()) for split, row in found.counts.items()}


def folders(*names: str) -> dict[str, bytes]:
    """Four pictures in each."""
    return {f"{name}/{i}.png": png(i) for name in names for i in range(4)}


def test_folders_become_classes_and_the_pixels_come_back(tmp_path: Path) -> None:
    files = animals()
    found = take(write_zip(tmp_path / "a.zip", files))
    assert found.classes == ("cat", "dog")
    assert total(found) == {"train": 12, "val": 4, "test": 4}
    assert (found.height, found.width, found.items) == (6, 5, 20)
    data = dataset.load(tmp_path / "ds", max_side=224)
    assert data.canonical == (6, 5)
    listed = dataset.items(tmp_path / "ds", 0, 100)
    stacked = np.concatenate([data.images[split] for split in SPLITS])
    labels = np.concatenate([data.labels[split] for split in SPLITS])
    for item, image, label in zip(listed, stacked, labels, strict=True):
        sent = np.asarray(Image.open(io.BytesIO(files[item["file"]])))
        np.testing.assert_array_equal(image, sent)
        assert found.classes[label] == item["label"] == item["file"].split("/")[0]
        png_sent_back = Image.open(io.BytesIO(dataset.item_png(tmp_path / "ds", item["n"])))
        np.testing.assert_array_equal(np.asarray(png_sent_back), sent)


def test_training_images_are_not_sorted_by_class(tmp_path: Path) -> None:
    take(write_zip(tmp_path / "a.zip", animals(30)))
    labels = dataset.load(tmp_path / "ds", max_side=224).labels["train"]
    assert len(set(labels[:12].tolist())) == 2


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("training", "valid", "testing"),
        ("Train", "validation", "Test"),
    ],
)
def test_a_split_level_is_kept(tmp_path: Path, names: tuple[str, str, str]) -> None:
    files = {
        f"data/{split}/{path}": png(zlib.crc32(f"{split}/{path}".encode()))
        for split in names
        for path in animals(3)
    }
    found = take(write_zip(tmp_path / "a.zip", files))
    assert found.counts == {split: {"cat": 3, "dog": 3} for split in SPLITS}
    assert found.report["splits_made"] is False


@pytest.mark.parametrize(("given_splits", "made"), [(("train", "test"), "val"), (("train", "val"), "test")])
def test_a_missing_split_is_carved_out_of_train(
    tmp_path: Path, given_splits: tuple[str, ...], made: str
) -> None:
    files = {
        f"{split}/{label}/{i}.png": png(1000 * a + 100 * b + i)
        for a, split in enumerate(given_splits)
        for b, label in enumerate(("cat", "dog"))
        for i in range(20)
    }
    found = take(write_zip(tmp_path / "a.zip", files))
    assert found.counts["train"] == {"cat": 16, "dog": 16}
    assert found.counts[made] == {"cat": 4, "dog": 4}
    assert found.counts[given_splits[1]] == {"cat": 20, "dog": 20}
    assert found.report["splits_made"] is True


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(sorted(animals(6))), way=st.sampled_from(["zip", "deflate", "wrapped", "tar", "gz"])
)
def test_the_same_content_has_the_same_digest_and_splits_however_packed(
    tmp_path_factory: pytest.TempPathFactory, order: list[str], way: str
) -> None:
    folder = tmp_path_factory.mktemp("same")
    content = animals(6)
    files = {("my data/" if way == "wrapped" else "") + name: content[name] for name in order}
    if way in ("tar", "gz"):
        source = write_tar(folder / "a.tar", files, "w" if way == "tar" else "w:gz")
    else:
        method = zipfile.ZIP_DEFLATED if way == "deflate" else zipfile.ZIP_STORED
        source = write_zip(folder / "a.zip", files, method)
    reference = take(write_zip(folder / "plain.zip", content), name="reference")
    found = take(source)
    assert found.content_sha256 == reference.content_sha256
    ours, theirs = (dataset.items(folder / name, 0, 100) for name in ("ds", "reference"))
    assert [i["sha256"] for i in ours] == [i["sha256"] for i in theirs]


def test_another_seed_label_or_pixel_is_another_digest(tmp_path: Path) -> None:
    files = animals()
    first = take(write_zip(tmp_path / "a.zip", files), name="1").content_sha256
    assert take(tmp_path / "a.zip", seed=0, name="2").content_sha256 == first
    assert take(tmp_path / "a.zip", seed=1, name="3").content_sha256 != first
    renamed = {name.replace("dog", "fox"): data for name, data in files.items()}
    assert take(write_zip(tmp_path / "b.zip", renamed), name="4").content_sha256 != first
    other = picture(1)
    files["cat/1.png"] = encode(other)
    before = take(write_zip(tmp_path / "c.zip", files), name="5").content_sha256
    other[0, 0, 0] ^= 1
    files["cat/1.png"] = encode(other)
    assert take(write_zip(tmp_path / "d.zip", files), name="6").content_sha256 != before


def test_every_file_sent_is_accounted_for(tmp_path: Path) -> None:
    files = animals() | {
        "cat/broken.jpg": b"\xff\xd8\xff nothing",
        "cat/notes.txt": b"hello",
        "cat/empty.png": b"",
        "readme.png": png(5000),
        "__MACOSX/cat/._1.png": b"x",
        "cat/.DS_Store": b"x",
        "dog/Thumbs.db": b"x",
    }
    report = take(write_zip(tmp_path / "a.zip", files)).report
    assert report["accepted"] + report["rejected_total"] == report["files"] == 24
    assert {entry["file"]: entry["code"] for entry in report["rejected"]} == {
        "cat/broken.jpg": "image_unreadable",
        "cat/empty.png": "image_unreadable",
        "cat/notes.txt": "not_an_image",
        "readme.png": "no_label",
    }
    assert all(entry["reason"] for entry in report["rejected"] + report["ignored"])
    assert {e["file"] for e in report["ignored"]} == {
        "__MACOSX/cat/._1.png",
        "cat/.DS_Store",
        "dog/Thumbs.db",
    }
    assert report["class_histogram"] == {"cat": 10, "dog": 10}


def test_a_manifest_says_label_split_and_group(tmp_path: Path) -> None:
    rows = ["path,label,split,group"]
    files: dict[str, bytes] = {}
    for i in range(18):
        files[f"img/{i}.png"] = png(i)
        rows.append(f"img/{i}.png,{'ab'[i % 2]},{SPLITS[i % 3]},g{i}")
    files["labels.csv"] = "\n".join(rows).encode()
    found = take(write_zip(tmp_path / "a.zip", files))
    assert found.classes == ("a", "b")
    assert total(found) == {"train": 6, "val": 6, "test": 6}
    assert "labels.csv" in found.report["how_labels_were_read"]
    assert [e["file"] for e in found.report["ignored"]] == ["labels.csv"]
    groups = dataset.load(tmp_path / "ds", max_side=224).groups
    assert groups is not None
    assert len(set(np.concatenate([groups[split] for split in SPLITS]).tolist())) == 18


def test_made_splits_keep_groups_and_identical_pictures_together(tmp_path: Path) -> None:
    rows, files = ["path,label,group"], dict[str, bytes]()
    for i in range(60):
        files[f"{i}.png"] = png(i // 2 if i < 20 else i)  # the first 20 are 10 pictures sent twice
        rows.append(f"{i}.png,{'ab'[i // 2 % 2]},{f'patient {i // 6}' if i >= 30 else ''}")
    files["labels.csv"] = "\n".join(rows).encode()
    found = take(write_zip(tmp_path / "a.zip", files))
    assert found.report["duplicates"]["images"] == 10
    assert found.report["leaks"] == {"images": 0, "groups": 0, "examples": []}
    data = dataset.load(tmp_path / "ds", max_side=224)
    assert data.groups is not None
    seen = [set(data.groups[split].tolist()) for split in SPLITS]
    assert sum(map(len, seen)) == len(set[int]().union(*seen))


def test_leaks_and_pictures_under_two_labels_are_errors_unless_allowed(tmp_path: Path) -> None:
    files = {
        f"{split}/{label}/{i}.png": png(1000 * a + 100 * b + i)
        for a, split in enumerate(SPLITS)
        for b, label in enumerate(("cat", "dog"))
        for i in range(6)
    }
    files["test/cat/leak.png"] = files["train/cat/0.png"]
    files["train/dog/rival.png"] = files["train/cat/1.png"]
    upload = write_zip(tmp_path / "a.zip", files)
    for allow, code, named in (
        ((), "leaks_between_splits", "train/cat/0.png (train) = test/cat/leak.png (test)"),
        (("leaks",), "contradictory_labels", "train/cat/1.png ('cat') = train/dog/rival.png ('dog')"),
    ):
        with pytest.raises(BadRequest) as refused:
            ingest(upload, "auto", tmp_path / "ds", 0, allow=allow)
        assert refused.value.code == code
        assert named.split(" = ")[0] in refused.value.detail
        assert named.split(" = ")[1] in refused.value.detail
        assert "?allow=" in (refused.value.hint or "")
    report = ingest(upload, "auto", tmp_path / "ds", 0, allow=("leaks", "two_labels")).report
    assert report["leaks"]["images"] == 1
    assert report["leaks"]["examples"] == [["train/cat/0.png", "test/cat/leak.png"]]
    assert report["duplicates"]["under_two_labels"] == 1
    assert any("more than one split" in w for w in report["warnings"])
    assert any("two labels" in w for w in report["warnings"])


def test_huggingface_imagefolder(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for a, split in enumerate(SPLITS):
        lines: list[str] = []
        for i in range(6):
            files[f"{split}/{i}.png"] = png(100 * a + i)
            lines.append(f'{{"file_name": "{i}.png", "label": {i % 2}}}')
        files[f"{split}/metadata.jsonl"] = "\n".join(lines).encode()
    found = take(write_zip(tmp_path / "a.zip", files))
    assert found.classes == ("0", "1")
    assert found.counts == {split: {"0": 3, "1": 3} for split in SPLITS}
    assert found.report["accepted"] == found.report["files"] == 18


def test_medmnist_npz(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, n in zip(SPLITS, (12, 6, 6), strict=True):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, 7, 7), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n) % 3 + 9)[:, None].astype(np.uint8)
    np.savez_compressed(tmp_path / "m.npz", **arrays)
    found = take(tmp_path / "m.npz")
    assert found.classes == ("9", "10", "11")
    assert total(found) == {"train": 12, "val": 6, "test": 6}
    assert found.report["files"] == 24
    data = dataset.load(tmp_path / "ds", max_side=224)
    for split in SPLITS:
        sent = {
            image.tobytes(): label
            for image, label in zip(arrays[f"{split}_images"], arrays[f"{split}_labels"], strict=True)
        }
        for image, label in zip(data.images[split], data.labels[split], strict=True):
            assert int(found.classes[label]) == sent[np.ascontiguousarray(image[..., 0]).tobytes()][0]
            assert (image == image[..., :1]).all()


@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("x", "y")])
def test_npz_without_splits_with_names_and_groups(tmp_path: Path, images: str, labels: str) -> None:
    pixels = np.stack([picture(i) for i in range(20)])
    names = np.array(["cat", "dog"])[np.arange(20) % 2]
    np.savez(
        tmp_path / "m.npz", **{images: pixels, labels: names, "groups": np.arange(20) // 2, "extra": names}
    )
    found = take(tmp_path / "m.npz", format="npz")
    assert found.classes == ("cat", "dog")
    assert total(found) == {"train": 12, "val": 4, "test": 4}
    assert found.report["ignored"] == [
        {"file": "extra.npy", "reason": "Not an array of images, labels or groups."}
    ]
    assert dataset.load(tmp_path / "ds", max_side=224).groups is not None


def test_exif_orientation_is_applied_and_metadata_stripped(tmp_path: Path) -> None:
    files = animals()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    exif[0x010E] = "secret description"
    files["cat/turned.png"] = encode(picture(77, 4, 9), exif=exif)
    found = take(write_zip(tmp_path / "a.zip", files))
    item = next(i for i in dataset.items(tmp_path / "ds", 0, 100) if i["file"] == "cat/turned.png")
    assert (item["height"], item["width"]) == (9, 4)
    assert b"secret" not in dataset.item_png(tmp_path / "ds", item["n"])
    assert found.report["image_sizes"]["distinct"] == 2


def test_large_images_are_shrunk_and_said_to_be(tmp_path: Path) -> None:
    files = animals(5) | {"cat/large.png": encode(np.zeros((40, 1500, 3), np.uint8))}
    found = take(write_zip(tmp_path / "a.zip", files))
    assert found.report["image_sizes"]["largest"] == [27, 1024]
    assert found.report["image_sizes"]["shrunk"] == 1


def test_images_of_many_sizes_are_fitted_to_one(tmp_path: Path) -> None:
    files = {
        f"{name}/{i}.png": png(i + 50 * (name == "b"), 5 + i, 9) for name in ("a", "b") for i in range(10)
    }
    take(write_zip(tmp_path / "a.zip", files))
    for _ in range(2):  # the second time from what the first kept
        data = dataset.load(tmp_path / "ds", max_side=224)
        assert data.canonical == (9, 9)
        assert {data.images[split].shape[1:] for split in SPLITS} == {(9, 9, 3)}
    assert dataset.load(tmp_path / "ds", max_side=7).canonical == (7, 7)


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_tar_formats_and_long_names(tmp_path: Path, format: int) -> None:
    long = "é" * 20 if format == tarfile.USTAR_FORMAT else "ä" * 100 + "/" + "x" * 120
    files = {f"{name}/{long}{i}.png": png(i + 50 * (name == "b")) for name in ("a", "b") for i in range(5)}
    found = take(write_tar(tmp_path / "a.tgz", files, format=format))
    assert found.classes == ("a", "b")
    assert {i["file"] for i in dataset.items(tmp_path / "ds", 0, 99)} == set(files)


@pytest.mark.parametrize(
    ("files", "code", "hint"),
    [
        ({}, "empty_dataset", "folder"),
        ({"a.bin": b"x"}, "empty_dataset", "PNG"),
        ({"1.png": png(1), "2.png": png(2)}, "empty_dataset", "folder per class"),
        ({"cat/1.png": png(1), "cat/2.png": png(2)}, "too_few_classes", "2 classes"),
        ({f"{c}/{i}.png": png(i) for c in "ab" for i in range(2)}, "too_few_images", "at least 3"),
        (folders("cat", "Cat ", "dog"), "ambiguous_labels", "one way"),
        (folders("train", "test"), "ambiguous_labels", "per class"),
        (folders("train/a", "test/a", "b/a"), "ambiguous_labels", "train/"),
        (folders("train/a", "test/b"), "too_few_images", "every class needs"),
    ],
)  # fmt: skip
def test_bad_content_is_refused_with_code_and_hint(
    tmp_path: Path, files: dict[str, bytes], code: str, hint: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        take(write_zip(tmp_path / "a.zip", files))
    assert refused.value.code == code
    assert hint.lower() in str(refused.value.hint).lower()
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"], "a failure leaves nothing"


def test_wrong_types_and_formats(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x89PNG nothing")
    with pytest.raises(UnsupportedType):
        take(tmp_path / "x")
    (tmp_path / "none").write_bytes(b"")
    with pytest.raises(UnsupportedType):
        take(tmp_path / "none")
    source = write_zip(tmp_path / "a.zip", animals())
    with pytest.raises(UnsupportedType):
        take(source, format="tar")
    with pytest.raises(BadRequest) as refused:
        take(source, format="docx")
    assert refused.value.param == "format"
    take(source, format="zip")
    with pytest.raises(Conflict):
        take(source)


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_zip(tmp_path / "a.zip", animals())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.jobs.pack.write", full)
    with pytest.raises(Unusable, match="No space left"):
        take(source)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_items_are_paged_and_unknown_ones_refused(tmp_path: Path) -> None:
    take(write_zip(tmp_path / "a.zip", animals()))
    folder = tmp_path / "ds"
    pages = [dataset.items(folder, offset, 7) for offset in (0, 7, 14, 21)]
    assert [item["n"] for page in pages for item in page] == list(range(20))
    for n in (-1, 20):
        with pytest.raises(NotFound):
            dataset.item_png(folder, n)
    with pytest.raises(NotFound):
        dataset.load(tmp_path / "gone", max_side=8)
    with pytest.raises(NotFound):
        dataset.items(tmp_path / "gone", 0, 1)


def test_files_over_the_cap_for_one_are_rejected_not_fatal(tmp_path: Path) -> None:
    files = animals() | {"cat/film.png": bytes(50_000)}
    source = write_zip(tmp_path / "a.zip", files)
    found = ingest(source, "auto", tmp_path / "ds", 0, limits=IngestLimits(file_bytes=10_000))
    assert [e["code"] for e in found.report["rejected"]] == ["file_too_large"]


def test_digits_load_fast_and_are_the_real_ones(tmp_path: Path) -> None:
    samples.write_digits_zip(tmp_path / "d.zip")
    found = take(tmp_path / "d.zip")
    assert found.items == 1797
    assert found.classes == tuple("0123456789")
    started = time.perf_counter()
    data = dataset.load(tmp_path / "ds", max_side=224)
    assert time.perf_counter() - started < 1.0
    assert sum(map(len, data.labels.values())) == 1797
    for split, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        per_class = np.bincount(data.labels[split], minlength=10)
        np.testing.assert_allclose(
            per_class, share * np.array([*found.report["class_histogram"].values()]), atol=1
        )


def test_fewer_digits_and_the_same_zip_twice(tmp_path: Path) -> None:
    samples.write_digits_zip(tmp_path / "a.zip", 50, 3)
    samples.write_digits_zip(tmp_path / "b.zip", 50, 3)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert len(samples.digits(50, 3).images) == 50


def test_squares_count_and_never_repeat() -> None:
    sample = samples.squares(400, 1)
    assert sample.images.shape == (400, 36, 36, 3)
    assert sample.classes[0] == "1"
    white = (sample.images[..., 0] == 255).sum(axis=(1, 2))
    np.testing.assert_array_equal(white, (sample.labels + 1) * 16)
    assert len({image.tobytes() for image in sample.images}) == 400
    with pytest.raises(ValueError, match="too few different"):
        samples.squares(10_000, 0)
