"""Uploads as strangers pack them: odd archives, forms of single images, text, faults that may be allowed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from api_house import House, is_problem
from httpx import Response
from PIL import Image

ZIP = {"content-type": "application/zip"}
ROWS = "size,kind,label\n" + "".join(f"{i},{'ab'[i % 2]},{'xy'[i % 3 % 2]}\n" for i in range(30))


def noise(seed: int, format: str = "PNG", mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(out, format)
    return out.getvalue()


def folders(names: Sequence[str], ending: str = "png", each: int = 5) -> dict[str, bytes]:
    format = "JPEG" if ending.lower() == "jpg" else "PNG"
    return {
        f"{name}/{i}.{ending}": noise(100 * n + i, format)
        for n, name in enumerate(names)
        for i in range(each)
    }


async def send(house: House, files: dict[str, bytes], query: str = "") -> Response:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return await house.client.post(f"/v1/datasets?{query}", content=out.getvalue(), headers=ZIP)


async def test_a_zip_made_on_a_mac(house: House) -> None:
    files = folders(["Meine Daten/Äpfel", "Meine Daten/birne"], "JPG")
    files |= {"__MACOSX/Meine Daten/._0.JPG": b"x", "Meine Daten/.DS_Store": b"x", "Meine Daten/leer/": b""}
    files |= {"Meine Daten/birne/kaputt.jpg": b"\xff\xd8\xff\xe0", "Meine Daten/liesmich.pdf": b"%PDF"}
    made = (await send(house, files)).json()
    report = made["report"]
    assert made["classes"] == ["birne", "Äpfel"]
    assert (report["files"], report["accepted"], report["ignored_total"]) == (12, 10, 2)
    assert {entry["file"]: entry["code"] for entry in report["rejected"]} == {
        "Meine Daten/birne/kaputt.jpg": "image_unreadable",
        "Meine Daten/liesmich.pdf": "not_an_image",
    }
    assert report["class_histogram"] == {"birne": 5, "Äpfel": 5}


async def test_backslashes_and_numbers_as_names(house: House) -> None:
    files = {name.replace("/", "\\"): data for name, data in folders(["top/2", "top/10", "top/1"]).items()}
    made = (await send(house, files)).json()
    assert made["classes"] == ["1", "2", "10"]


async def test_a_class_of_one_image_is_named(house: House) -> None:
    refused = await send(house, folders(["a", "b"]) | {"rare/1.png": noise(999)})
    assert "'rare' has 1 images" in is_problem(refused, 422, "too_few_images")["detail"]


async def test_a_manifest_with_bare_names_and_another_label_column(house: House) -> None:
    files = {f"pictures/{i}.png": noise(i) for i in range(12)}
    table = "Filename;Diagnosis\n" + "".join(f"{i}.png;{'ab'[i % 2]}\n" for i in range(12))
    files["table.csv"] = table.encode()
    assert (await send(house, files, "label_column=diagnosis")).json()["classes"] == ["a", "b"]


async def test_faults_are_refused_by_name_and_may_be_allowed(house: House) -> None:
    files = folders(["train/a", "train/b", "test/a", "test/b"])
    files["test/a/again.png"] = files["train/a/0.png"]
    refused = is_problem(await send(house, files), 422, "leaks_between_splits")
    assert "1 image is in more than one split" in refused["detail"]
    assert "test/a/again.png (test)" in refused["detail"]
    assert (await house.ok("GET", "/v1/datasets"))["data"] == []
    allowed = await send(house, files, "allow=leaks,two_labels")
    assert allowed.status_code == 201
    assert any("flatter" in warning for warning in allowed.json()["report"]["warnings"])
    assert is_problem(await send(house, files, "allow=dirt"), 422, "invalid_request")["param"] == "allow"


async def test_single_images_in_a_form(house: House) -> None:
    def images(name: str) -> list[tuple[str, Any]]:
        return [("file", (name.format(label="ab"[i % 2], i=i), noise(i), "image/png")) for i in range(10)]

    labels = {"label": ["x/y" if i % 2 else "z" for i in range(10)]}
    by_label = await house.client.post("/v1/datasets?name=a", files=images("{i}.png"), data=labels)
    assert by_label.status_code == 201, by_label.text
    assert by_label.json()["classes"] == ["x/y", "z"]
    by_folder = await house.client.post("/v1/datasets?name=b", files=images("{label}/{i}.png"))
    assert by_folder.json()["classes"] == ["a", "b"]
    uneven = await house.client.post("/v1/datasets", files=images("{i}.png"), data={"label": ["a", "b"]})
    assert "10 files and 2 labels" in is_problem(uneven, 422, "invalid_request")["detail"]
    alone = await house.client.post("/v1/datasets", content=noise(1), headers={"content-type": "image/png"})
    assert "a form" in is_problem(alone, 415, "unsupported_type")["hint"]


@pytest.mark.parametrize("kind", ["text/csv", "text/plain", "application/octet-stream"])
async def test_rows_and_their_records(house: House, kind: str) -> None:
    made = await house.ok("POST", "/v1/datasets?name=rows", content=ROWS, headers={"content-type": kind})
    assert made["report"]["records"] == {"kind": "table", "columns": ["size", "kind"]}
    items = await house.ok("GET", f"/v1/datasets/{made['id']}/items?split=test&limit=3")
    for item in items["data"]:
        size, letter = item["input"]
        assert (size % 2 == 1) == (letter == "b")
        assert item["file"] == f"line {int(size) + 2}"
    picture = await house.client.get(items["data"][0]["image"])
    assert Image.open(io.BytesIO(picture.content)).size == (96, 96)


async def test_text_that_may_be_two_things(house: House) -> None:
    numbers = "\n".join(",".join(str((i * j) % 11) for j in range(20)) for i in range(30))
    headers = {"content-type": "text/csv"}
    refused = await house.client.post("/v1/datasets", content=numbers, headers=headers)
    problem = is_problem(refused, 422, "ambiguous_format")
    assert problem["param"] == "format"
    assert "format=series" in problem["hint"]
