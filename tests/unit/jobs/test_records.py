"""Tables, series and sequences: how they are read, what refuses them, what their pictures rest on."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from app.errors import BadRequest, ReprogError, TooLarge
from app.jobs import dataset, pack, records, samples
from app.jobs.dataset import Ingested, ingest
from app.reprogramming import encoder
from app.reprogramming.encoder import TableEncoder

SPLITS = ("train", "val", "test")
FLOWERS = "petal,sepal,kind,label\n" + "".join(
    f"{i % 7 + 0.5},{'' if i == 3 else i},{'ab'[i % 2]},{'xy'[i % 2]}\n" for i in range(40)
)
NUMBERED = ",".join([*(f"t{i}" for i in range(20)), "label"]) + "\n"
NUMBERED += "".join(
    ",".join([*(str((i * i + i * j) % 97) for j in range(20)), "ab"[i % 2]]) + "\n" for i in range(30)
)
UCR = "".join(
    f"{i % 2}.0000e+00  " + "  ".join(f"{np.sin(i + j):.4e}" for j in range(12)) + "\n" for i in range(30)
)
ARFF = """% a comment
@relation r
@attribute 'a b' numeric
@attribute colour {red,blue}
@ATTRIBUTE kind {p,q}
@data
""" + "".join(f"{i},{('red', '?', 'blue')[i % 3]},{'pq'[i % 2]}\n" for i in range(30))
FASTA = "".join(
    f">s{i} {'ab'[i % 2]}\n{'ACGTTA'[i % 3 :]}ACGT\nAC{'ACGT'[i // 4 % 4]}{'CA' * (i // 16)}{'GT'[i % 2]}\n"
    for i in range(32)
)


def take(tmp_path: Path, text: str | bytes, format: str = "auto", **options: object) -> Ingested:
    (tmp_path / "upload").write_bytes(text.encode() if isinstance(text, str) else text)
    return ingest(tmp_path / "upload", format, tmp_path / "ds", 0, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "format", "kind", "classes"),
    [
        (FLOWERS, "auto", "table", ("x", "y")),
        (FLOWERS.replace(",", ";"), "auto", "table", ("x", "y")),
        (NUMBERED, "series", "series", ("a", "b")),
        (NUMBERED, "table", "table", ("a", "b")),
        (UCR, "auto", "series", ("0", "1")),
        (UCR.replace("  ", ","), "series", "series", ("0", "1")),
        (ARFF, "auto", "table", ("p", "q")),
        (FASTA, "auto", "sequence", ("a", "b")),
        (samples.motifs(60), "auto", "sequence", ("acceptor", "donor", "neither")),
        ("".join(f"{'ab'[i % 2]}\tline {i}\n" for i in range(20)), "auto", "sequence", ("a", "b")),
    ],
)
def test_kinds_are_seen_from_the_text(
    tmp_path: Path, text: str, format: str, kind: str, classes: tuple[str, ...]
) -> None:
    found = take(tmp_path, text, format)
    assert found.report["records"]["kind"] == kind
    assert found.classes == classes
    assert found.report["accepted"] == found.items
    assert found.report["rejected_total"] == 0
    data = dataset.load(tmp_path / "ds", max_side=224)
    assert data.encoder is not None
    assert data.encoder.kind == kind
    assert data.canonical == data.encoder.size == (found.height, found.width)
    assert data.features is not None
    assert [len(data.features[split]) for split in SPLITS] == [len(data.labels[split]) for split in SPLITS]


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (NUMBERED, "ambiguous_format", "format=table"),
        (UCR.replace("  ", ","), "ambiguous_format", "format=series"),
        ("path,label\na.png,x\nb.png,y\n", "ambiguous_format", "zip of both"),
        (FLOWERS.replace("label", "outcome"), "label_column_missing", "label_column"),
        ("a,a,label\n1,2,x\n", "label_column_missing", "columns are"),
        ('a,label\n"1,x\n', "unreadable_table", "UTF-8"),
        (b"a,label\n\xe4,x\n" * 300, "unsupported_type", "CSV"),
        (FLOWERS.replace(",y", ",x"), "too_few_classes", "2 classes"),
        ("hello", "unsupported_type", "CSV"),
    ],
)
def test_what_cannot_be_told_is_refused_with_what_to_send(
    tmp_path: Path, text: str | bytes, code: str, said: str
) -> None:
    with pytest.raises(ReprogError) as refused:
        take(tmp_path, text)
    assert refused.value.code == code
    assert said in (refused.value.hint or "")
    assert not (tmp_path / "ds").exists()


def test_the_label_column_can_be_named(tmp_path: Path) -> None:
    found = take(tmp_path, FLOWERS.replace("label", "outcome"), label_column="outcome")
    assert found.classes == ("x", "y")
    assert "'outcome'" in found.report["how_labels_were_read"]


def test_rows_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    text = FLOWERS + "1,2\n3,4,a,\n"
    found = take(tmp_path, text)
    assert found.items == 40
    reasons = {entry["file"]: entry["code"] for entry in found.report["rejected"]}
    assert reasons == {"line 42": "wrong_shape", "line 43": "no_label"}


def test_reserved_columns_and_those_of_no_use(tmp_path: Path) -> None:
    lines = ["id,split,group,remark,empty,size,label"]
    lines += [f"{i},{SPLITS[i // 80]},g{i // 4},r{i},,{i % 9},{'ab'[i % 2]}" for i in range(240)]
    found = take(tmp_path, "\n".join(lines))
    assert found.report["records"]["columns"] == ["size"]
    assert {split: sum(row.values()) for split, row in found.counts.items()} == dict.fromkeys(SPLITS, 80)
    warned = " ".join(found.report["warnings"])
    for name in ("'id' numbers", "'remark' has 240 different texts", "'empty' is empty"):
        assert name in warned
    rows = [f"{i},{SPLITS[i % 3]},g{i // 4},{'ab'[i % 2]}" for i in range(60)]
    with pytest.raises(BadRequest) as crossed:
        ingest(_written(tmp_path, rows, "size,split,group,label"), "auto", tmp_path / "b", 0)
    assert crossed.value.code == "leaks_between_splits"
    assert "'g0'" in crossed.value.detail


def _written(folder: Path, rows: list[str], header: str) -> Path:
    path = folder / "rows.csv"
    path.write_text("\n".join([header, *rows]))
    return path


def test_names_of_files_in_a_zip_are_splits(tmp_path: Path) -> None:
    first, second = UCR.splitlines()[:20], UCR.splitlines()[20:]
    with zipfile.ZipFile(tmp_path / "upload", "w") as archive:
        archive.writestr("heart/HEART_TRAIN.txt", "\n".join(first))
        archive.writestr("heart/HEART_TEST.txt", "\n".join(second))
        archive.writestr("README.md", "about")
    found = ingest(tmp_path / "upload", "auto", tmp_path / "ds", 0)
    assert {split: sum(row.values()) for split, row in found.counts.items()} == {
        "train": 16,
        "val": 4,
        "test": 10,
    }
    files = {item["file"] for item in dataset.items(tmp_path / "ds", 0, 99) if item["split"] == "test"}
    assert all(file.startswith("heart/HEART_TEST.txt:") for file in files)


def test_the_encoder_is_fitted_on_training_rows_alone(tmp_path: Path) -> None:
    rows = [f"{i},train,{'ab'[i % 2]}" for i in range(40)] + [
        f"{1000 + i},test,{'ab'[i % 2]}" for i in range(10)
    ]
    ingest(_written(tmp_path, rows, "size,split,label"), "auto", tmp_path / "ds", 0)
    found = pack.encoder(tmp_path / "ds")
    assert isinstance(found, TableEncoder)
    assert max(found.columns[0].knots) < 40
    assert (found.image([500.0]) == 255).all()


def test_the_same_rows_give_the_same_data_set_in_any_order(tmp_path: Path) -> None:
    head, *rows = FLOWERS.splitlines()
    one = take(tmp_path, FLOWERS)
    shuffled = "\n".join([head, *rows[::-1]])
    (tmp_path / "again").mkdir()
    two = take(tmp_path / "again", shuffled)
    assert one.content_sha256 == two.content_sha256
    first, second = (dataset.load(path / "ds", max_side=224) for path in (tmp_path, tmp_path / "again"))
    for split in SPLITS:
        np.testing.assert_array_equal(first.images[split], second.images[split])


def test_identical_rows_of_a_table_are_no_error_but_identical_sequences_are(tmp_path: Path) -> None:
    rows = [f"{i % 3},{SPLITS[i % 3]},{'ab'[i // 3 % 2]}" for i in range(60)]
    found = ingest(_written(tmp_path, rows, "dose,split,label"), "auto", tmp_path / "rows", 0)
    assert found.report["duplicates"]["under_two_labels"] == 3
    letters = [f"ACGT{'ACGT'[i % 4]},{SPLITS[i % 3]},a" for i in range(12)] + [
        "GG,train,b",
        "GG,test,b",
        "C,val,b",
    ]
    with pytest.raises(BadRequest) as refused:
        ingest(_written(tmp_path, letters, "sequence,split,label"), "auto", tmp_path / "dna", 0)
    assert refused.value.code == "leaks_between_splits"


def test_too_many_cells_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_CELLS", 100)
    with pytest.raises(TooLarge):
        take(tmp_path, FLOWERS)


# ---------------------------------------------------------------- encoders


def test_a_tile_says_the_rank_a_hue_the_category_and_blue_is_missing() -> None:
    rows = [[float(i), "ab"[i % 2]] for i in range(101)]
    made = encoder.fit("table", rows, {2}, ["size", "kind"], [True, False])
    picture = made.image([25.0, "a"])
    height, width = picture.shape[:2]
    assert (height, width) == made.size == (96, 96)
    assert picture[0, 0].tolist() == [64, 64, 64]
    assert picture[0, -1].tolist() == [255, 0, 0]
    assert (picture[height // 2 :] == 0).all(), "places without a column are black"
    assert made.image([None, "never seen"])[0, [0, -1]].tolist() == [[0, 0, 255]] * 2
    assert made.read({"size": "7", "kind": "A"}) == [7.0, "a"]
    assert made.features([None, "b"]).tolist() == [50.0, 0.5, 1.0, 0.0, 1.0]


def test_series_of_other_lengths_are_stretched_where_training_had_many() -> None:
    rows = [list(np.sin(np.arange(n) / 3)) for n in (20, 30, 40)]
    loose = encoder.fit("series", rows, {20, 30, 40})
    assert loose.features([0.0, None, 2.0]).tolist() == pytest.approx(np.linspace(0, 2, 40).tolist())
    strict = encoder.fit("series", rows[:1], {20})
    with pytest.raises(BadRequest, match="3 values, not 20"):
        strict.read([0.0, 1.0, 2.0])
    for broken in ([], [1], ["a"] * 20, [None] * 20, [float("nan")] * 20, [1e301] * 20, {"a": 1}, "AAA"):
        with pytest.raises(BadRequest):
            strict.read(broken)


def test_each_symbol_is_a_patch_and_unknown_ones_are_grey() -> None:
    made = encoder.fit("sequence", ["ACGTACGTA"], {9})
    picture = made.image("ACGTNACGT")
    patches = picture[::32, ::32].reshape(9, 3).tolist()
    assert patches[:4] == patches[5:]
    assert len({tuple(patch) for patch in patches[:4]}) == 4
    assert patches[4] == [128, 128, 128]
    assert made.read(" acgtacgta ") == "ACGTACGTA"
    with pytest.raises(BadRequest, match="not seen"):
        made.read("QQQQQQQQQ")


@pytest.mark.parametrize("text", [FLOWERS, UCR, FASTA], ids=["table", "series", "sequence"])
def test_an_encoder_comes_back_from_its_config(tmp_path: Path, text: str) -> None:
    take(tmp_path, text)
    found = pack.encoder(tmp_path / "ds")
    assert found is not None
    again = encoder.from_config(found.config())
    for record in pack.records(tmp_path / "ds", 0, 5):
        np.testing.assert_array_equal(again.image(again.read(record)), found.image(record))
        np.testing.assert_array_equal(again.features(record), found.features(record))


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "table", "columns": []},
        {"kind": "table", "columns": [{"name": "a", "knots": [2, 1], "ranks": [0, 1], "categories": []}]},
        {"kind": "table", "columns": [{"name": "a", "knots": [1], "ranks": ["nan"], "categories": []}]},
        {"kind": "series", "length": 10**9, "fixed": True, "low": 0, "high": 1},
        {"kind": "series", "length": 10, "fixed": True, "low": 1, "high": 0},
        {"kind": "sequence", "alphabet": "AA", "length": 4, "fixed": True},
        {"kind": "sequence", "alphabet": "AC", "length": 0, "fixed": True},
        {"kind": "video"},
    ],
)
def test_configs_of_strangers_are_checked(config: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        encoder.from_config(config)
