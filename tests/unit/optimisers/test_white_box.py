"""Estimates against the gradient that only this test can see: a small frozen convolutional source model.

The whole way is gone: prompt -> grid -> tanh -> pixels rounded to 8 bits -> network -> frequency mapping ->
loss. The network's own gradient, by the chain rule on unrounded pixels, is what an estimate is held against.
"""

from __future__ import annotations

import numpy as np
import pytest

from app.methods import noise
from app.optimisers import Bar, Nes, Prior, Spsa, Zoo
from app.reprogramming.loss import focal, focal_per_image
from app.reprogramming.mapping import frequency_mapping
from app.reprogramming.picture import resampling
from app.reprogramming.transform import View, render_many, with_parameters

SIZE, PATCH, FILTERS, LABELS, CLASSES = 32, 4, 12, 10, 3
BATCH, CANDIDATES = 8, 80  # 640 queries


class Network:
    """Patches through filters, tanh, mean over places, softmax."""

    def __init__(self) -> None:
        rng = np.random.default_rng(2)
        self.filters = rng.standard_normal((PATCH * PATCH * 3, FILTERS)) / 3
        self.out = 3 * rng.standard_normal((FILTERS, LABELS))

    def patches(self, pixels: np.ndarray) -> np.ndarray:
        """(N, S, S, 3) grey levels to (N, P, PATCH * PATCH * 3)."""
        side = SIZE // PATCH
        cut = (pixels / 127.5 - 1).reshape(len(pixels), side, PATCH, side, PATCH, 3)
        return cut.transpose(0, 1, 3, 2, 4, 5).reshape(len(pixels), side * side, -1)

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        powers = np.exp(np.tanh(self.patches(pixels) @ self.filters).mean(axis=1) @ self.out)
        return powers / powers.sum(axis=1, keepdims=True)

    def pixel_gradient(self, pixels: np.ndarray, of_scores: np.ndarray) -> np.ndarray:
        """Back from d loss / d scores (N, K) to d loss / d pixels (N, S, S, 3)."""
        active = np.tanh(self.patches(pixels) @ self.filters)
        p = self.scores(pixels)
        logits = p * (of_scores - (of_scores * p).sum(axis=1, keepdims=True))
        places = (logits @ self.out.T)[:, None] * (1 - active**2) / active.shape[1]
        side = SIZE // PATCH
        back = (places @ self.filters.T).reshape(len(pixels), side, side, PATCH, PATCH, 3) / 127.5
        return back.transpose(0, 1, 3, 2, 4, 5).reshape(len(pixels), SIZE, SIZE, 3)


class Task:
    """A batch of images, a view of g x g cells, a mapping made once."""

    def __init__(self, cells: int) -> None:
        rng = np.random.default_rng(5)
        self.images = rng.integers(30, 225, (60, SIZE, SIZE, 3)).astype(np.uint8)
        self.labels = np.arange(60) % CLASSES
        self.images = np.clip(self.images + 25.0 * (self.labels - 1)[:, None, None, None], 20, 235).astype(
            np.uint8
        )
        self.network = Network()
        self.view = View(size=SIZE, overlay=np.zeros((cells, cells, 3)))
        self.x = 0.3 * np.random.default_rng(cells).standard_normal(3 * cells**2)
        plain = self.network.scores(
            render_many([with_parameters(self.view, self.x)], self.images).astype(float)
        )
        self.weights = frequency_mapping(plain, self.labels, CLASSES, 3).weights

    def losses(self, prompts: np.ndarray, images: int = BATCH) -> np.ndarray:
        """(C,) by queries: pixels are rounded."""
        return self.each(prompts, images).mean(axis=1)

    def each(self, prompts: np.ndarray, images: int = BATCH) -> np.ndarray:
        shown = render_many([with_parameters(self.view, w) for w in prompts], self.images[:images])
        mass = self.network.scores(shown.astype(float)) @ self.weights
        target = (mass / mass.sum(axis=1, keepdims=True)).reshape(len(prompts), images, CLASSES)
        return focal_per_image(target, self.labels[:images], 0.0)

    def gradients(self, images: int = BATCH) -> np.ndarray:
        """(N, d): the true gradient of each image's loss."""
        cells = self.view.overlay.shape[0]  # type: ignore[union-attr]
        up = resampling(cells, SIZE)
        w = np.einsum("ai,ijc,bj->abc", up, self.x.reshape(cells, cells, 3), up)
        pixels = self.images[:images] + 127.5 * np.tanh(w)
        mass, y = self.network.scores(pixels) @ self.weights, self.labels[:images]
        own, total = mass[np.arange(images), y], mass.sum(axis=1)
        of_scores = self.weights.sum(axis=1)[None] / total[:, None] - self.weights[:, y].T / own[:, None]
        back = self.network.pixel_gradient(pixels, of_scores) * 127.5 * (1 - np.tanh(w) ** 2)
        return np.einsum("ai,nabc,bj->nijc", up, back, up).reshape(images, -1)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_white_box_gradient_is_the_gradient() -> None:
    """Central differences of the loss with a step of many grey levels, where rounding is small."""
    task = Task(1)
    steps = 0.05 * np.eye(3)
    differences = (task.losses(task.x + steps) - task.losses(task.x - steps)) / 0.1
    np.testing.assert_allclose(task.gradients().mean(axis=0), differences, rtol=0.08, atol=2e-3)


@pytest.mark.parametrize(("cells", "beta", "least"), [(1, 0.005, 0.95), (2, 0.02, 0.7)])
@pytest.mark.parametrize("kind", ["bar", "nes", "spsa", "zoo", "prior"])
def test_640_queries_find_the_direction(kind: str, cells: int, beta: float, least: float) -> None:
    task = Task(cells)
    dim = len(task.x)
    length = beta * np.sqrt(dim)  # of the whole step, where a method counts it so
    optimiser = {
        "bar": Bar(directions=CANDIDATES - 1, smoothing=length),
        "nes": Nes(directions=CANDIDATES // 2, smoothing=beta),
        "spsa": Spsa(repeats=CANDIDATES // 2, smoothing=beta),
        "zoo": Zoo(coordinates=dim, smoothing=beta),
        "prior": Prior(directions=CANDIDATES - 1, smoothing=length),
    }[kind]
    state = optimiser.start(task.x, 3)
    estimate = optimiser.estimate(state, task.losses(optimiser.ask(state)))
    assert cosine(estimate, task.gradients().mean(axis=0)) >= least


@pytest.mark.parametrize("kind", ["bar", "nes", "spsa", "zoo"])
def test_the_noise_of_the_gradient_is_measured_from_the_losses_alone(kind: str) -> None:
    task, images = Task(2), 60
    optimiser = {
        "bar": Bar(directions=40, smoothing=0.2),
        "nes": Nes(directions=40, smoothing=0.05),
        "spsa": Spsa(repeats=40, smoothing=0.05),
        "zoo": Zoo(coordinates=12, smoothing=0.05),
    }[kind]
    asked = optimiser.ask(optimiser.start(task.x, 3))
    plus, minus = noise.pairs(optimiser, len(asked))  # type: ignore[misc]
    each = task.each(asked, images)
    known = noise.gathered({}, each[plus] - each[minus])
    true = task.gradients(images)
    mean = true.mean(axis=0)
    c = ((true - mean) ** 2).sum(axis=1).mean() / (mean @ mean)
    assert noise.ratio(known) == pytest.approx(c, rel=0.5, abs=0.5)
    assert noise.ratio(noise.gathered({}, each[plus][:2, :8] - each[minus][:2, :8])) is None


def test_noise_beyond_the_budget_names_the_budget_it_would_take() -> None:
    assert noise.queries_for_a_direction(72, 48) == 7008
    assert noise.warning(72, 48, 10_000) is None
    said = noise.warning(72, 48, 5_000)
    assert said is not None
    assert "7,008" in said["detail"]
    assert "7,008" in said["hint"]
    lost = noise.warning(noise.HOPELESS, 48, 5_000)
    assert lost is not None
    assert "more than can be told" in lost["detail"]


def test_the_loss_before_the_mean_is_the_loss() -> None:
    target = np.array([[0.7, 0.3], [0.2, 0.8], [0.5, 0.5]])
    labels = np.array([0, 0, 1])
    assert focal(target, labels) == pytest.approx(focal_per_image(target, labels).mean())
