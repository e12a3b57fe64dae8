"""Making uploads for the data set tests."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def picture(seed: int, height: int = 6, width: int = 5) -> NDArray[np.uint8]:
    """uint8 (h, w, 3) noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(seed: int, height: int = 6, width: int = 5) -> bytes:
    """One noise picture, encoded."""
    return encode(picture(seed, height, width))


def encode(image: NDArray[np.uint8], format: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, format, **options)
    return out.getvalue()


def animals(per_class: int = 10, top: str = "") -> dict[str, bytes]:
    """Two class folders of distinct pictures."""
    return {
        f"{top}{name}/{i}.png": png(1000 * number + i)
        for number, name in enumerate(("cat", "dog"))
        for i in range(per_class)
    }


def write_zip(path: Path, files: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(
    path: Path, files: Mapping[str, bytes], mode: str = "w:gz", format: int = tarfile.PAX_FORMAT
) -> Path:
    with tarfile.open(path, mode, format=format) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path
