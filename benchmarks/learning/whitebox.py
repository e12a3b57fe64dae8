"""The upper row: the same programs with the source model's true gradients, which no remote API gives.

Needs torch and onnx2torch (the extra `bench`). The network is the sandbox's ImageNet classifier in floating
point, asked at 128 pixels, so figures compare with each other and not with those of the int8 form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx2torch import convert

from app.contracts import Images, Labels
from app.optimisers import Bar
from app.reprogramming import mapping as mappings
from app.reprogramming.loss import class_weights
from app.reprogramming.mapping import LabelMapping
from app.reprogramming.picture import resampling
from app.reprogramming.transform import View, render
from app.sandbox.classifiers import MODELS
from benchmarks.learning import tasks

SIDE, FRAME, BATCH, STEP_SIZE, START = 128, 0.5, 20, 0.05, 0.3
MEAN, SCALE = 127.0, 128.0  # of the network's input
STEPS, SEEDS = 600, 3
EVERY = 25  # steps between validations
CHECKED, DIRECTIONS = 4, 640  # images and directions of the estimator's check
COSINES = ((3, 1, 0.005, 0.95), (12, 2, 0.02, 0.7))  # d, cells a side, beta, goal


@dataclass(frozen=True)
class Row:
    """A program and a mapping."""

    name: str
    cells: int  # a side; SIDE: every pixel
    mapping: str
    per_class: int
    gamma: float


ROWS = (
    Row("AR: pixels, m = 1 at random, cross-entropy", SIDE, "random", 1, 0.0),
    Row("BAR's: pixels, frequency m = 10, focal", SIDE, "frequency", 10, 2.0),
    Row("4 x 4 grid, frequency m = 10, focal", 4, "frequency", 10, 2.0),
)


def network() -> torch.nn.Module:
    """float32 (n, 3, S, S) -> (n, 1000) raw outputs, of any n and S."""
    model = onnx.load(MODELS / "imagenet-224.onnx")
    stored = {array.name: array for array in model.graph.initializer}
    halves: dict[str, str] = {}  # output of a cast of stored float16 -> the stored array, now float32
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in stored:
            array = stored[node.input[0]]
            halves[node.output[0]] = array.name
            array.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(array).astype(np.float32), array.name)
            )
        else:
            nodes.append(node)
    for node in nodes:
        node.input[:] = [halves.get(name, name) for name in node.input]
        if node.op_type == "Reshape":  # to (1, -1): one image at a time
            node.op_type = "Flatten"
            del node.input[1:], node.attribute[:]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return convert(model).eval().requires_grad_(False)


class Prompted:
    """The frame with a prompt of `cells` a side, as a differentiable function of the prompt."""

    def __init__(self, net: torch.nn.Module, cells: int) -> None:
        view = View(size=SIDE, scale=FRAME)
        top, left, side = view.box()
        mask = torch.ones(SIDE, SIDE, 1)
        mask[top : top + side, left : left + side] = 0
        up = resampling(cells, SIDE) if cells < SIDE else np.eye(SIDE)
        self._net, self._view, self._mask = net, view, mask
        self._up = torch.tensor(up, dtype=torch.float32)

    def logits(self, prompt: torch.Tensor, images: Images, whole: bool = False) -> torch.Tensor:
        """(g, g, 3), (n, h, w, 3) -> (n, 1000); `whole`: with pixels rounded, as an upload has them."""
        base = torch.tensor(render(self._view, images).astype(np.float32))
        spread = torch.einsum("ai,ijc,bj->abc", self._up, prompt, self._up)
        pixels = (base + 127.5 * torch.tanh(spread) * self._mask).clamp(0, 255)
        pixels = pixels.round() if whole else pixels
        return self._net(((pixels - MEAN) / SCALE).permute(0, 3, 1, 2))

    def outputs(self, prompt: torch.Tensor, images: Images) -> NDArray[np.float64]:
        """(n, 1000) probabilities of rounded pixels."""
        with torch.no_grad():
            parts = [self.logits(prompt, images[i : i + 50], True) for i in range(0, len(images), 50)]
        return torch.softmax(torch.cat(parts).double(), dim=1).numpy()


def loss(
    logits: torch.Tensor, labels: Labels, mapping: torch.Tensor, weights: torch.Tensor, gamma: float
) -> torch.Tensor:
    """The focal loss of BAR (section 3.2) on group-mapped probabilities."""
    mass = torch.softmax(logits, dim=1) @ mapping
    share = mass / mass.sum(dim=1, keepdim=True)
    right = share[torch.arange(len(labels)), torch.tensor(labels)].clamp(1e-6, 1)
    return (-weights[torch.tensor(labels)] * (1 - right) ** gamma * right.log()).mean()


def measure(steps: int = STEPS, seeds: int = SEEDS) -> dict[str, Any]:
    """Every row on digits."""
    torch.set_num_threads(1)
    net, task = network(), tasks.load("digits")
    found = [[_learned(net, task, row, steps, seed) for seed in range(seeds)] for row in ROWS]
    return {
        "sentence": (
            f"digits through the float network at {SIDE} pixels, Adam, {steps} steps of {BATCH} images, best "
            "by validation."
        ),
        "rows": [
            {
                "name": row.name,
                "seeds": seeds,
                "passes": round(steps * BATCH / 400, 1),
                "accuracy": float(np.mean([one[0] for one in found[i]])),
                "head": float(np.mean([one[1] for one in found[i]])),
            }
            for i, row in enumerate(ROWS)
        ],
    }


def estimator() -> dict[str, Any]:
    """The gradient that `bar` estimates from losses, beside the true one."""
    torch.set_num_threads(1)
    net, task = network(), tasks.load("digits")
    found = [(d, beta, goal, _cosine(net, task, cells, beta)) for d, cells, beta, goal in COSINES]
    said = "; ".join(
        f"d = {d}, beta = {beta}: {cosine:.3f} (goal {goal}, {'met' if cosine >= goal else 'missed'})"
        for d, beta, goal, cosine in found
    )
    sentence = (
        f"Cosine of `bar`'s estimate from {DIRECTIONS} directions with the gradient that torch computes, "
        f"digits through the float network, frequency mapping m = 10, focal loss, pixels not rounded: {said}."
    )
    return {"sentence": sentence, "cosines": {str(d): cosine for d, _, _, cosine in found}}


def _learned(net: torch.nn.Module, task: tasks.Task, row: Row, steps: int, seed: int) -> tuple[float, float]:
    """Test accuracy of the prompt that is best on validation images, and of a linear head on the scores under
    the prompt it started from."""
    rows = task.rows(seed, 10_000)
    images = {split: task.images[at] for split, at in rows.items()}
    labels = {split: task.labels[at] for split, at in rows.items()}
    model, rng, classes = (
        Prompted(net, row.cells),
        np.random.default_rng([seed, row.cells]),
        len(task.classes),
    )
    start = torch.tensor(START * rng.standard_normal((row.cells, row.cells, 3)), dtype=torch.float32)
    plain = {split: model.outputs(start, at) for split, at in images.items()}
    mapping = _mapping(row, plain["train"], labels["train"], classes, seed)
    spread = torch.tensor(mapping.weights, dtype=torch.float32)
    weights = torch.tensor(class_weights(labels["train"], classes), dtype=torch.float32)
    prompt = start.clone().requires_grad_()
    adam, best, kept = torch.optim.Adam([prompt], STEP_SIZE), -1.0, start
    for step in range(steps):
        at = rng.choice(len(labels["train"]), BATCH, replace=False)
        adam.zero_grad()
        loss(
            model.logits(prompt, images["train"][at]), labels["train"][at], spread, weights, row.gamma
        ).backward()
        adam.step()
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            right = _right(mapping, model.outputs(prompt, images["val"]), labels["val"])
            if right > best:
                best, kept = right, prompt.detach().clone()
    both = (np.log(np.maximum(plain[split], 1e-7)) for split in ("train", "test"))
    head_train, head_test = both
    head = mappings.linear_mapping(head_train, labels["train"], classes, seed=seed)
    accuracy = _right(mapping, model.outputs(kept, images["test"]), labels["test"])
    return accuracy, float((head.apply(head_test).argmax(axis=1) == labels["test"]).mean())


def _mapping(row: Row, scores: NDArray[np.float64], labels: Labels, classes: int, seed: int) -> LabelMapping:
    if row.mapping == "random":
        return mappings.random_mapping(scores.shape[1], classes, row.per_class, seed)
    return mappings.frequency_mapping(scores, labels, classes, row.per_class)


def _right(mapping: LabelMapping, scores: NDArray[np.float64], labels: Labels) -> float:
    return float((mapping.apply(scores).argmax(axis=1) == labels).mean())


def _cosine(net: torch.nn.Module, task: tasks.Task, cells: int, beta: float) -> float:
    """Of the gradient that `bar` estimates from losses alone with the one that torch computes."""
    rows = task.rows(0, 10_000)["train"][:: max(1, 400 // CHECKED)][:CHECKED]
    images, labels, classes = task.images[rows], task.labels[rows], len(task.classes)
    model, shape = Prompted(net, cells), (cells, cells, 3)
    start = START * np.random.default_rng([cells]).standard_normal(3 * cells**2)
    scores = model.outputs(torch.tensor(start.reshape(shape), dtype=torch.float32), task.images[:100])
    spread = torch.tensor(
        mappings.frequency_mapping(scores, task.labels[:100], classes, 10).weights, dtype=torch.float32
    )
    weights = torch.ones(classes)

    def value(w: torch.Tensor) -> torch.Tensor:
        return loss(model.logits(w.reshape(shape), images), labels, spread, weights, 2.0)

    true = torch.tensor(start, dtype=torch.float32, requires_grad=True)
    value(true).backward()
    bar = Bar(DIRECTIONS, beta)
    state = bar.start(start, 0)
    with torch.no_grad():
        losses = [float(value(torch.tensor(w, dtype=torch.float32))) for w in bar.ask(state)]
    guess, gradient = bar.estimate(state, np.array(losses)), true.grad.numpy().astype(np.float64)
    return float(guess @ gradient / np.linalg.norm(guess) / np.linalg.norm(gradient))
