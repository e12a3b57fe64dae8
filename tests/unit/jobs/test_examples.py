"""The files under examples/: uploads that can be taken in, job files that can be posted."""

from __future__ import annotations

import importlib.util
import io
import re
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from unit.jobs.uploads import encode, picture

from app.jobs import dataset

EXAMPLES = Path(__file__).parents[3] / "examples"
JOBS = sorted(path for path in EXAMPLES.glob("*.yaml") if path.stem != "connection")


@pytest.fixture(scope="module")
def prepare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare", EXAMPLES / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small files in the shape of the real ones."""
    folder = tmp_path / "bench"
    folder.mkdir()
    diagnoses = ["mel", "nv", "bcc", "bkl", "df", "vasc", "akiec"] * 6
    with zipfile.ZipFile(folder / "ham10000_small_jpg.zip", "w") as archive:
        rows = ["image_id,lesion_id,dx"]
        for i, dx in enumerate(diagnoses):
            archive.writestr(f"img/I{i}.jpg", encode(picture(i, 15, 20), "JPEG"))
            rows.append(f"I{i},L{i % 7}{i // 14},{dx}")  # two photographs of each lesion
        archive.writestr("labels.csv", "\n".join(rows))
    triangle = np.random.default_rng(0).integers(-127, 128, (11, 19_900)).astype(np.int8)
    names = np.array([f"A_{i}" for i in range(10)] + ["UM_1_0050286"])
    np.savez(folder / "abide_cc200_corr_i8.npz", triu=triangle, y=np.arange(11) % 2, file_id=names)
    monkeypatch.setenv("REPROG_BENCH_DATA", str(folder))
    return folder


@pytest.mark.usefixtures("bench")
@pytest.mark.parametrize(
    ("name", "classes", "images"),
    [("melanoma", ("melanoma", "nevus"), 12), ("ham10000", None, 42), ("abide", ("autism", "control"), 10)],
)
def test_bench_files_become_uploads(
    prepare: ModuleType, tmp_path: Path, name: str, classes: tuple[str, ...] | None, images: int
) -> None:
    prepare.main([name, str(tmp_path / "upload")])
    found = dataset.ingest(tmp_path / "upload", "auto", tmp_path / "ds", 0)
    assert found.items == images
    assert found.classes == classes or (classes is None and len(found.classes) == 7)
    data = dataset.load(tmp_path / "ds", max_side=224)
    if name == "abide":
        assert data.canonical == (200, 200)
    else:
        assert data.groups is not None
        train, test = (set(data.groups[split].tolist()) for split in ("train", "test"))
        assert not train & test


def test_a_connectome_is_symmetric_and_keeps_its_order(prepare: ModuleType) -> None:
    triangle = np.zeros(19_900, np.int8)
    triangle[:3] = 127, -127, 64  # (0, 1), (0, 2), (0, 3)
    image = prepare.connectome(triangle)
    np.testing.assert_array_equal(image, image.T)
    assert (np.diag(image) == 255).all()
    assert image[0, 1:5].tolist() == [255, 0, 192, 128]


@pytest.mark.parametrize("folder", [None, "/nowhere"])
def test_missing_bench_data_is_said_in_a_sentence(
    prepare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str | None
) -> None:
    monkeypatch.delenv("REPROG_BENCH_DATA", raising=False)
    if folder is not None:
        monkeypatch.setenv("REPROG_BENCH_DATA", folder)
    with pytest.raises(SystemExit, match=r"REPROG_BENCH_DATA.*examples/README\.md"):
        prepare.main(["melanoma", str(tmp_path / "upload")])
    assert not (tmp_path / "upload").exists()


@pytest.mark.parametrize("name", ["digits", "squares"])
def test_the_free_examples_need_nothing(prepare: ModuleType, tmp_path: Path, name: str) -> None:
    prepare.main([name, str(tmp_path / "upload.zip")])
    with zipfile.ZipFile(tmp_path / "upload.zip") as archive:
        assert len({Path(path).parts[0] for path in archive.namelist()}) == 10


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_job_files_are_valid_bodies(path: Path) -> None:
    from app.jobs.spec import JobSpec

    text = re.sub(r"\$\{(\w+)\}", lambda match: f"{match[1].lower()[:4]}_01", path.read_text())
    spec = JobSpec.model_validate(yaml.safe_load(io.StringIO(text)))
    spec.method.build()
    assert spec.query_limit(1200, "USD") == spec.limits.max_queries, "the budget pays for the queries"


def test_the_read_me_names_every_job_file() -> None:
    text = (EXAMPLES / "README.md").read_text()
    assert len(JOBS) == 8
    assert all(f"`{path.name}`" in text for path in JOBS)
