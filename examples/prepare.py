"""Make the uploads of the examples: `python examples/prepare.py NAME FILE`.

`digits`, `squares` and `dna` come with the product. The others read files that may not be bundled, from the
folder named by the environment variable REPROG_BENCH_DATA; examples/README.md says which.
"""

from __future__ import annotations

import csv
import io
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.jobs import samples

BENCH_DATA = "REPROG_BENCH_DATA"
HAM10000 = "ham10000_small_jpg.zip"
ABIDE = "abide_cc200_corr_i8.npz"
ECG200 = ("ECG200_TRAIN.txt", "ECG200_TEST.txt")
MESSIDOR = "messidor_features.arff"
MESSIDOR_COLUMNS = (  # Antal and Hajdu 2014, in the order of the file
    "quality", "prescreening", *(f"microaneurysms_{level}" for level in (50, 60, 70, 80, 90, 100)),
    *(f"exudates_{n}" for n in range(1, 9)), "macula_to_disc", "disc_diameter", "am_fm", "label",
)  # fmt: skip
ABIDE_COPY = "UM_1_0050286"  # the same scan as another row
REGIONS = 200  # of the CC200 atlas
MELANOMA_OR_NEVUS = {"mel": "melanoma", "nv": "nevus"}
LESIONS = {
    **MELANOMA_OR_NEVUS,
    "akiec": "actinic keratosis",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "vasc": "vascular lesion",
}


def bench_file(name: str) -> Path:
    """A file of the folder REPROG_BENCH_DATA names. Exits with a sentence when there is none."""
    folder = os.environ.get(BENCH_DATA)
    if not folder:
        sys.exit(
            f"{BENCH_DATA} is not set: set it to the folder that holds {name}, see examples/README.md. "
            "The examples digits, squares and dna need no download."
        )
    path = Path(folder) / name
    if not path.is_file():
        sys.exit(f"{name} is not in {folder} ({BENCH_DATA}): examples/README.md describes it.")
    return path


def lesions(target: Path, names: dict[str, str]) -> int:
    """HAM10000 pictures of the diagnoses `names` (dx -> label) with a manifest; images of one lesion are a
    group. Returns the number of images."""
    with zipfile.ZipFile(bench_file(HAM10000)) as source, zipfile.ZipFile(target, "w") as upload:
        rows = csv.DictReader(io.TextIOWrapper(source.open("labels.csv"), "utf-8"))
        wanted = [row for row in rows if row["dx"] in names]
        manifest = io.StringIO(newline="")
        writer = csv.writer(manifest)
        writer.writerow(["path", "label", "group"])
        for row in wanted:
            path = f"img/{row['image_id']}.jpg"
            upload.writestr(path, source.read(path))
            writer.writerow([path, names[row["dx"]], row["lesion_id"]])
        upload.writestr("labels.csv", manifest.getvalue())
    return len(wanted)


def connectome(triangle: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Correlations above the diagonal, int8 = 127 r in row-major order, as the symmetric matrix (200, 200):
    grey 0 is r = -1, 255 is r = 1."""
    matrix = np.eye(REGIONS)
    matrix[np.triu_indices(REGIONS, 1)] = triangle / 127
    matrix += matrix.T - np.eye(REGIONS)
    return np.rint((matrix + 1) * 127.5).clip(0, 255).astype(np.uint8)


def autism(target: Path) -> int:
    """ABIDE I connectomes as pictures, autism or control. Returns their number."""
    with np.load(bench_file(ABIDE), allow_pickle=False) as data:
        keep = data["file_id"] != ABIDE_COPY
        images = np.stack([connectome(triangle) for triangle in data["triu"][keep]])
        labels = np.where(data["y"][keep] == 1, "autism", "control")
    with target.open("wb") as upload:
        np.savez_compressed(upload, images=images, labels=labels)
    return len(images)


def digits(target: Path) -> int:
    """1,797 handwritten digits. Returns their number."""
    samples.write_digits_zip(target)
    return len(samples.digits().labels)


def squares(target: Path) -> int:
    """1,000 pictures of 1 to 10 squares. Returns their number."""
    samples.write_squares_zip(target, 1000)
    return 1000


def heartbeats(target: Path) -> int:
    """ECG200 as the UCR archive has it: the names of the two files are the splits. Returns the series."""
    lines = 0
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as upload:
        for name in ECG200:
            text = bench_file(name).read_text()
            upload.writestr(name, text)
            lines += len(text.splitlines())
    return lines


def retinas(target: Path) -> int:
    """Messidor features with their names as CSV: `signs` of diabetic retinopathy or `none`. How many rows."""
    _, _, data = bench_file(MESSIDOR).read_text().partition("@data")
    rows = [line.split(",") for line in data.splitlines() if line.strip()]
    with target.open("w", newline="") as upload:
        writer = csv.writer(upload)
        writer.writerow(MESSIDOR_COLUMNS)
        writer.writerows([*row[:-1], "signs" if row[-1].strip() == "1" else "none"] for row in rows)
    return len(rows)


def dna(target: Path) -> int:
    """900 sequences of 60 letters with a splice-like site or none, made by chance. Returns their number."""
    target.write_text(samples.motifs(900))
    return 900


MAKERS: dict[str, Callable[[Path], int]] = {
    "digits": digits,
    "squares": squares,
    "melanoma": lambda target: lesions(target, MELANOMA_OR_NEVUS),
    "ham10000": lambda target: lesions(target, LESIONS),
    "abide": autism,
    "ecg200": heartbeats,
    "messidor": retinas,
    "dna": dna,
}


def main(arguments: list[str]) -> None:
    if len(arguments) != 2 or arguments[0] not in MAKERS:
        sys.exit(f"Usage: python examples/prepare.py {{{','.join(MAKERS)}}} FILE")
    name, target = arguments[0], Path(arguments[1])
    try:
        count = MAKERS[name](target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    print(f"{target}: {count} examples, {target.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main(sys.argv[1:])
