"""Near duplicates: found after another size, compression or brightness, and not where there are none."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from unit.jobs.uploads import encode, write_zip

from app.jobs import samples
from app.jobs.dataset import ingest
from app.jobs.duplicates import gather, near_pairs


def scene(seed: int, side: int = 48) -> np.ndarray:
    """Smooth blobs: what photographs look like to a hash."""
    rough = np.random.default_rng(seed).integers(40, 200, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(rough).resize((side, side), Image.Resampling.BICUBIC))


def thumbnail(image: np.ndarray) -> bytes:
    return Image.fromarray(image).convert("L").resize((9, 8), Image.Resampling.BOX).tobytes()


def changed(image: np.ndarray, how: str) -> np.ndarray:
    if how == "smaller":
        return np.asarray(Image.fromarray(image).resize((31, 31), Image.Resampling.BILINEAR))
    if how == "brighter":
        return np.minimum(image.astype(int) + 20, 255).astype(np.uint8)
    return np.asarray(Image.open(io.BytesIO(encode(image, "JPEG", quality=70))))


@pytest.mark.parametrize("how", ["smaller", "brighter", "compressed"])
def test_changed_copies_are_found_and_strangers_are_not(how: str) -> None:
    scenes = [scene(i) for i in range(200)]
    thumbnails = [thumbnail(image) for image in scenes] + [thumbnail(changed(image, how)) for image in scenes]
    pairs, whole = near_pairs(thumbnails)
    assert whole
    twins = {(i, i + 200) for i in range(200)}
    assert len(twins & set(pairs)) >= 170, "a hash finds most, not all"
    assert len(set(pairs) - twins) == 0


def test_handwritten_digits_are_no_copies_of_one_another() -> None:
    pairs, _ = near_pairs([thumbnail(image) for image in samples.digits().images])
    assert pairs == []


@pytest.mark.parametrize("flat", [False, True])
def test_fifty_thousand_are_compared_in_seconds(flat: bool) -> None:
    """Of one flat motif not all are, and that is said."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (50_000, 72)) if not flat else np.zeros((50_000, 72)) + rng.normal(90, 1, 72)
    started = time.process_time()
    _, whole = near_pairs([row.tobytes() for row in grey.astype(np.uint8)])
    assert whole is not flat
    assert time.process_time() - started < 20


def test_pairs_hang_together() -> None:
    assert gather([(4, 5), (1, 2), (2, 3)]) == [[1, 2, 3], [4, 5]]


def test_near_copies_across_splits_are_warned_of_by_name(tmp_path: Path) -> None:
    files = {
        f"{split}/{label}/{i}.png": encode(scene(1000 * a + 100 * b + i))
        for a, split in enumerate(("train", "val", "test"))
        for b, label in enumerate(("cat", "dog"))
        for i in range(6)
    }
    files["test/cat/again.jpg"] = encode(scene(0), "JPEG", quality=80)
    report = ingest(write_zip(tmp_path / "a.zip", files), "auto", tmp_path / "ds", 0).report
    assert report["leaks"]["images"] == 0
    near = report["near_duplicates"]
    assert (near["images"], near["across_splits"], near["under_two_labels"]) == (1, 1, 0)
    assert sorted(near["examples"][0]) == ["test/cat/again.jpg", "train/cat/0.png"]
    assert any("nearly identical" in warning and "again.jpg" in warning for warning in report["warnings"])
