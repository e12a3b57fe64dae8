from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from api_house import House, images_zip, is_problem, png


async def test_a_raw_zip(house: House) -> None:
    answer = await house.client.post(
        "/v1/datasets?name=shapes&format=auto&seed=3",
        content=images_zip(),
        headers={"content-type": "application/zip"},
    )
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["id"].startswith("ds_")
    assert made["classes"] == ["dark", "light"]
    assert sum(sum(split.values()) for split in made["counts"].values()) == 40
    assert set(made["counts"]) == {"train", "val", "test"}
    assert len(made["content_sha256"]) == 64
    assert made["report"]["accepted"] + made["report"]["rejected_total"] == made["report"]["files"] == 40
    path = f"/v1/datasets/{made['id']}"
    assert await house.ok("GET", path) == made
    report = await house.ok("GET", f"{path}/report")
    assert report["files"] == 40
    listed = (await house.ok("GET", "/v1/datasets"))["data"]
    assert listed == [made | {"report": None}]


async def test_a_form_and_an_npz(house: House) -> None:
    by_form = await house.ok("POST", "/v1/datasets", files={"file": ("shapes.zip", images_zip())})
    assert by_form["name"] == "shapes"
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    labels = np.arange(40) % 2
    np.savez(out, train_images=pixels, train_labels=labels.reshape(-1, 1))
    kind = {"content-type": "application/x-npz"}
    by_array = await house.ok("POST", "/v1/datasets?name=m", content=out.getvalue(), headers=kind)
    assert by_array["items"] == 40
    assert by_array["id"] > by_form["id"]


async def test_items_and_images(house: House) -> None:
    made = await house.dataset()
    path = f"/v1/datasets/{made['id']}/items"
    seen, after = [], ""
    while True:
        page = await house.ok("GET", f"{path}?limit=7&split=train{after}")
        seen += page["data"]
        if not page["has_more"]:
            break
        after = f"&after={page['next_cursor']}"
    assert len(seen) == sum(made["counts"]["train"].values())
    assert len({item["n"] for item in seen}) == len(seen)
    assert {item["split"] for item in seen} == {"train"}
    image = await house.client.get(seen[0]["image"])
    assert image.headers["content-type"] == "image/png"
    assert image.content.startswith(b"\x89PNG")
    dark = await house.ok("GET", f"{path}?label=dark&limit=100")
    assert len(dark["data"]) == 20
    is_problem(await house.client.get(f"{path}?split=other"), 422, "invalid_request", "split")
    for n in ("40", "-1", "99999999999999999999999"):
        is_problem(await house.client.get(f"{path}/{n}/image"), 404, "not_found")


async def test_delete_takes_the_images_with_it(house: House, tmp_path: Path) -> None:
    made = await house.dataset()
    assert (tmp_path / "datasets" / made["id"]).is_dir()
    assert (await house.client.delete(f"/v1/datasets/{made['id']}")).status_code == 204
    assert not (tmp_path / "datasets" / made["id"]).exists()
    is_problem(await house.client.get(f"/v1/datasets/{made['id']}"), 404, "not_found")


async def test_a_data_set_in_use_stays(house: House) -> None:
    job = await house.job()
    is_problem(await house.client.delete(f"/v1/datasets/{job['dataset_id']}"), 409, "in_use")


def one_class() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for i in range(9):
            archive.writestr(f"only/{i}.png", png(i))
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"", "application/zip", 422, "empty_body"),
        (one_class(), "application/zip", 422, "too_few_classes"),
        (b"PK\x03\x04 not really", "application/zip", 422, None),
        (b"{}", "application/json", 415, "unsupported_type"),
        (b"hello", "text/plain", 415, "unsupported_type"),
    ],
)
async def test_refusals_leave_nothing(
    house: House, tmp_path: Path, content: bytes, kind: str, status: int, code: str | None
) -> None:
    answer = await house.client.post("/v1/datasets", content=content, headers={"content-type": kind})
    is_problem(answer, status, code or answer.json()["code"])
    assert (await house.ok("GET", "/v1/datasets"))["data"] == []
    assert list((tmp_path / "datasets").glob("*")) == []
    assert list((tmp_path / "uploads").glob("*")) == []


async def test_a_form_without_a_file(house: House) -> None:
    answer = await house.client.post("/v1/datasets", files={"other": ("a.zip", images_zip())})
    is_problem(answer, 422, "missing_field", "file")
    is_problem(
        await house.client.post("/v1/datasets?format=png", content=b"x"), 422, "invalid_request", "format"
    )


async def test_too_large_announced_or_not(make_house: Callable[..., House], tmp_path: Path) -> None:
    house = make_house(max_upload_bytes=1000)

    async def trickle():
        for _ in range(200):
            yield b"x" * 1000

    async with house.client:
        is_problem(await house.client.post("/v1/datasets", content=b"x" * 70_000), 413, "too_large")
        is_problem(await house.client.post("/v1/datasets", content=trickle()), 413, "too_large")
        keyed = {"idempotency-key": "k"}
        is_problem(
            await house.client.post("/v1/datasets", content=trickle(), headers=keyed), 413, "too_large"
        )
    assert list((tmp_path / "uploads").glob("*")) == []
