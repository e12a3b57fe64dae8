"""Where labels come from, told from paths and tables alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadRequest, ReprogError
from app.jobs.labels import Row, read
from app.jobs.splits import clusters


def rows(images: list[str], tables: dict[str, str] | None = None, reader: str = "auto") -> dict[str, Row]:
    return read(images, encoded(tables), reader).rows  # type: ignore[arg-type]


def encoded(tables: dict[str, str] | None) -> dict[str, bytes]:
    return {path: text.encode() for path, text in (tables or {}).items()}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("cat/1.png", Row("cat")),
        ("top/cat/1.png", Row("cat")),
        ("top/inner/cat/1.png", Row("cat")),
        ("train/cat/1.png", Row("cat", "train")),
        ("top/Validation/cat/1.png", Row("cat", "val")),
        ("test/ cat /deep/er/1.png", Row("cat", "test")),
    ],
)
def test_folders(path: str, expected: Row) -> None:
    assert rows([path, path.replace("cat", "dog")])[path] == expected


def test_a_class_may_be_called_like_a_split() -> None:
    assert rows(["train/1.png", "bus/1.png"]) == {"train/1.png": Row("train"), "bus/1.png": Row("bus")}


def test_a_stray_file_at_the_top_does_not_hide_the_classes() -> None:
    reading = read(["top/cat/1.png", "top/dog/1.png", "top/logo.png"], {}, "auto")
    assert {row.label for row in reading.rows.values()} == {"cat", "dog"}
    assert reading.rejected["top/logo.png"][0] == "no_label"


@pytest.mark.parametrize("header", ["path,label", "file_name;label", "Image\tLABEL", "\ufefffilename,Label"])
def test_tables_with_other_headers_and_delimiters(header: str) -> None:
    delimiter = next(d for d in ",;\t" if d in header)
    text = f"{header}\r\n1.png{delimiter}cat\r\n2.png{delimiter} dog \r\n"
    assert rows(["img/1.png", "img/2.png"], {"img/all.csv": text}) == {
        "img/1.png": Row("cat"),
        "img/2.png": Row("dog"),
    }


def test_paths_are_found_from_the_top_too_and_windows_slashes_are_read() -> None:
    table = {"meta/list.csv": "path,label\n.\\img\\1.png,cat\n"}
    assert rows(["img/1.png"], table) == {"img/1.png": Row("cat")}


def test_rows_and_files_without_partner_are_told() -> None:
    table = {
        "l.csv": "path,label,split\n1.png,cat,train\n2.png,,\n3.png,dog,Tuesday\n9.png,dog,test\nx.png,dog,\n"
    }
    reading = read([f"{i}.png" for i in range(1, 5)], encoded(table), "auto", refused=["x.png"])
    assert reading.rows == {"1.png": Row("cat", "train")}
    assert {path: code for path, (code, _) in reading.rejected.items()} == {
        "2.png": "no_label",
        "3.png": "unknown_split",
        "4.png": "no_label",
    }
    assert reading.warnings == ["1 rows name a file that was not sent: 9.png."]


@pytest.mark.parametrize(
    ("images", "tables"),
    [
        (["1.png"], {"l.csv": "path,label\n1.png,cat\n1.png,dog\n"}),
        (["1.png"], {"l.csv": "path,label\n1.png,cat\n", "m.csv": "path,label\n1.png,dog\n"}),
        (["1.png"], {"metadata.jsonl": '{"file_name":"1.png","label":["cat","dog"]}'}),
        (["cat/1.png", "dog/2.png"], {"l.csv": "path,label\ncat/1.png,cat\ndog/2.png,cat\n"}),
        (["train/cat/1.png", "train/dog/2.png"], {"l.csv": "path,label\ntrain/cat/1.png,dog\n"}),
        (["train/a/1.png", "b/c/1.png"], {}),
        (["train/1.png", "test/1.png"], {}),
    ],
)
def test_labels_that_can_be_read_in_two_ways_are_refused(images: list[str], tables: dict[str, str]) -> None:
    with pytest.raises(BadRequest) as refused:
        rows(images, tables)
    assert refused.value.code == "ambiguous_labels"
    assert refused.value.hint


def test_saying_which_source_counts_settles_it() -> None:
    images, table = ["cat/1.png", "dog/2.png"], {"l.csv": "path,label\ncat/1.png,cat\ndog/2.png,cat\n"}
    assert rows(images, table, "csv")["dog/2.png"] == Row("cat")
    reading = read(images, encoded(table), "folders")
    assert reading.rows["dog/2.png"] == Row("dog")
    assert reading.rejected["l.csv"][0] == "not_an_image"


@pytest.mark.parametrize(("reader", "file"), [("csv", "metadata.csv"), ("imagefolder", "labels.csv")])
def test_the_table_asked_for_must_be_there(reader: str, file: str) -> None:
    with pytest.raises(BadRequest) as refused:
        rows(["a/1.png"], {file: "path,label\na/1.png,x\n"}, reader)
    assert refused.value.code == "label_table_missing"


def test_a_table_with_other_columns_is_named_in_a_warning() -> None:
    reading = read(["img/1.jpg"], {"labels.csv": b"image_id,dx\n1,mel\n"}, "auto")
    assert reading.rejected["labels.csv"][0] == "not_an_image"
    assert "labels.csv has image_id, dx" in reading.warnings[0]


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b'path,label\n"1.png,cat'])
def test_an_unreadable_table_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        read(["1.png"], {"l.csv": data}, "auto")
    assert refused.value.code == "unreadable_table"


@given(
    st.lists(st.lists(st.sampled_from(["a", "train", "val", "x.png", "y.png"]), min_size=1, max_size=4)),
    st.text(alphabet="pathlbe,\n\"'{}:[]ax.png;train", max_size=200),
    st.sampled_from(["l.csv", "metadata.jsonl", "a/metadata.csv"]),
)
def test_every_image_is_labelled_or_rejected(paths: list[list[str]], text: str, table: str) -> None:
    images = sorted({"/".join(parts) for parts in paths} - {table})
    try:
        reading = read(images, {table: text.encode()}, "auto")
    except ReprogError:
        return
    assert set(images) == set(reading.rows) | (set(reading.rejected) - {table})
    assert not set(reading.rows) & set(reading.rejected)
    assert (table in reading.rejected) != (table in reading.tables)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.one_of(st.none(), st.sampled_from("xyz"))), min_size=1))
def test_clusters_are_the_connected_components(ties: list[tuple[str, str | None]]) -> None:
    found = clusters([a for a, _ in ties], [b for _, b in ties])
    for i, (a, b) in enumerate(ties):
        for j, (c, d) in enumerate(ties):
            if a == c or (b is not None and b == d):
                assert found[i] == found[j]
    joined = [{i} for i in range(len(ties))]  # grow sets until nothing changes: the slow, plain way
    for _ in ties:
        joined = [
            set[int]().union(*(t for t in joined if any(
                ties[p][0] == ties[q][0] or (ties[p][1] and ties[p][1] == ties[q][1]) for p in s for q in t
            )))
            for s in joined
        ]  # fmt: skip
    assert len(set(found)) == len({frozenset(s) for s in joined})
