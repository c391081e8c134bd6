"""A run's network, asked for maps and for answers to altered images; and what its maps score on test images."""

# Shapes: B images, N images, C classes, H x W pixels of the network's input, M encoded metadata.

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from dermalyze.config.explain import METHODS, method_spec
from dermalyze.config.model import ModelSpec
from dermalyze.core.atomic import write_text
from dermalyze.core.progress import progress
from dermalyze.core.run import Run
from dermalyze.core.runtime import stop_on_signals
from dermalyze.data.metadata import encode_rows
from dermalyze.data.samples import Samples, read_sample
from dermalyze.data.store import ImageStore
from dermalyze.errors import InterruptedRunError, ModelError
from dermalyze.explain.attribution import explain_batch, refusal
from dermalyze.explain.border_reliance import falls, hottest_and_coldest, place_falls
from dermalyze.explain.faithfulness import (
    FLOORS,
    Mask,
    Predict,
    center_gaussian,
    deletion_insertion,
    disturbed,
    energy_inside,
    pointing,
    random_map,
    similarity,
)
from dermalyze.imaging.decode import Preprocessing, normalize
from dermalyze.imaging.samples import IMAGE, Batch, Input, take, with_images
from dermalyze.imaging.tabular import Encoder
from dermalyze.metrics.ranking import Floats
from dermalyze.models.classifier import Classifier, inputs_of
from dermalyze.rng import permutation
from dermalyze.tasks.base import TASKS, Task
from dermalyze.training.checkpoint import load_best

FAST = ("gradcam", "gradcam++", "layercam", "rollout", "gradient_attention")
"""Methods that are asked unless others are named: `closed_form` has the maps of gradcam, the other two take long."""
BATCH = 64
VERSION = 1
SAVE_EVERY = 10
Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Network:
    """The best checkpoint of a run, in PyTorch, in one plain pass.

    Attributes:
        name: of the run.
        model: in evaluation mode, fp32, CPU.
        preprocessing: of the checkpoint.
        task: what it answers.
        classes: names.
        sha256: of the weights.
        inputs: as they are stored.
        encoder: of metadata, or None.
        shuffle_seed: of `shuffled`.
    """

    name: str
    model: Classifier
    preprocessing: Preprocessing
    task: Task
    classes: list[str]
    sha256: str
    inputs: tuple[Input, ...]
    encoder: Encoder | None = None
    shuffle_seed: int = 0

    @classmethod
    def open(cls, run: Run) -> Network:
        """Of a trained run.

        Raises:
            UsageError: nothing has been trained.
            ModelError: no checkpoint of its own, as in an ensemble, or a damaged one.
        """
        if not run.best_record_path.exists() and run.artifact_record_path.exists():
            raise ModelError(f"{run.root.name}: has no checkpoint of its own (an ensemble?); explain one of its members")
        model, record = load_best(run)
        encoder = Encoder.from_dict(record["metadata"]) if record["metadata"] is not None else None
        preprocessing = Preprocessing.from_dict(record["preprocessing"])
        task, classes, sha256 = TASKS[run.config().task.kind], list(record["classes"]), str(record["weights_sha256"])
        inputs = inputs_of(ModelSpec.model_validate(record["model"]), preprocessing, encoder)
        return cls(run.root.name, model, preprocessing, task, classes, sha256, inputs, encoder)

    def predictor(self, beside: Batch, calibrator: Callable[[Floats], Floats] | None = None) -> Predict:
        """Pixels (N, H, W, 3) of one sample to probabilities (N, C); without a calibrator they are not calibrated.

        Args:
            beside: its other inputs; see `beside_of`.
        """

        def predict(pixels_NHW3: NDArray[np.uint8]) -> Floats:
            found = []
            with torch.inference_mode():
                for start in range(0, len(pixels_NHW3), BATCH):
                    found.append(self.model(self.tensors(pixels_NHW3[start : start + BATCH], beside)).numpy())
            return (calibrator or self.task.probabilities)(np.concatenate(found))

        return predict

    def maps(
        self,
        pixels_BHW3: NDArray[np.uint8],
        method: str,
        c: int | None,
        beside: Batch,
        *,
        shuffled: bool = False,
    ) -> NDArray[np.float32]:
        """(B, H, W) maps of versions of one sample's image for one class (None: what each is called)."""
        model = self.shuffled if shuffled else self.model
        found: NDArray[np.float32] = explain_batch(model, self.tensors(pixels_BHW3, beside), method, c).maps.numpy()
        return found

    def fitting(self, methods: Sequence[str], pixels_HW3: NDArray[np.uint8], beside: Batch) -> tuple[list[str], Json]:
        """Those of some methods that fit the network, and why the others do not."""
        inputs = self.tensors(pixels_HW3[None], beside)
        why = {name: refusal(self.model, inputs, name) for name in methods}
        return [name for name in methods if why[name] is None], {name: reason for name, reason in why.items() if reason}

    def tensors(self, pixels_BHW3: NDArray[np.uint8], beside: Batch) -> dict[str, torch.Tensor]:
        """Versions of one sample's image, and its other inputs beside each, as the network takes them."""
        batch = {IMAGE: pixels_BHW3, **{name: np.repeat(one[None], len(pixels_BHW3), axis=0) for name, one in beside.items()}}
        normalized = with_images(batch, lambda images: normalize(images, self.preprocessing))
        return {name: torch.from_numpy(values) for name, values in normalized.items()}

    @cached_property
    def shuffled(self) -> Classifier:
        """The same network with the values of every weight tensor in another order: it has learnt nothing."""
        import copy

        generator = torch.Generator().manual_seed(self.shuffle_seed)
        model = copy.deepcopy(self.model)
        with torch.no_grad():
            for parameter in model.parameters():
                order = torch.randperm(parameter.numel(), generator=generator)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
        return model.eval()

    def beside_of(self, store: ImageStore, frame: pd.DataFrame) -> Callable[[str], Batch]:
        """From an image_id of the frame to what the network takes beside the image, without the axis B."""
        samples = Samples.of(store, frame, self.preprocessing, self.inputs, encode_rows(self.encoder, frame))
        row_of = {image_id: row for row, image_id in enumerate(samples.ids)}
        optional = [one for one in samples.image_inputs if one.optional]

        def beside(image_id: str) -> Batch:
            row = row_of[image_id]
            images = read_sample(store, samples.job(row), optional, self.preprocessing)
            return {**images, **take(samples.whole({}, np.array([row])), 0)}

        return beside


@dataclass(eq=False)
class Sample:
    """Images on which maps are evaluated, one of each group.

    Attributes:
        ids, groups: of each image.
        pixels: image_id to (H, W, 3) at a network's size.
        mask: image_id to (H, W) where the foreground is, at that size; None where it is not known.
        beside: image_id to the sample's other inputs; see `Network.beside_of`.
    """

    ids: list[str]
    groups: list[str]
    pixels: Callable[[str], NDArray[np.uint8]]
    mask: Callable[[str], Mask | None]
    beside: Callable[[str], Batch]


@dataclass(eq=False)
class Scores:
    """What the maps of one network scored, in a file that grows: a stopped measurement continues where it was.

    Attributes:
        path: of the file.
        key: all that the values hang on.
        rows: image_id to {"class": index of the class that was explained, "methods": {method or floor: {measure: value}},
            "places": of `place_falls`}.
    """

    path: Path
    key: Json
    rows: dict[str, Json] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, network: Network) -> Scores:
        """The file of a network; what is damaged or was measured otherwise is measured again."""
        key = {
            "version": VERSION, "task": network.task.kind, "weights_sha256": network.sha256,
            "preprocessing": network.preprocessing.as_dict(),
            "methods": {name: method_spec(name).model_dump(mode="json") for name in METHODS},
        }  # fmt: skip
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            rows = known["rows"] if known["key"] == key else {}
        except (OSError, ValueError, KeyError, TypeError):
            rows = {}
        return cls(path, key, dict(rows))

    def save(self) -> None:
        """Write it."""
        write_text(self.path, json.dumps({"key": self.key, "rows": self.rows}))

    def missing(self, image_id: str, methods: Sequence[str]) -> list[str]:
        """Methods that are not measured on an image yet."""
        return [name for name in methods if name not in self.rows.get(image_id, {}).get("methods", {})]

    def values(self, ids: Sequence[str], method: str, measure: str) -> Floats:
        """(N,) one measure of a method on each image, NaN where it is not defined."""
        found = [self.rows[image_id]["methods"][method].get(measure) for image_id in ids]
        return np.array([np.nan if one is None else one for one in found], dtype=np.float64)


def measure(network: Network, sample: Sample, methods: Sequence[str], scores: Scores) -> None:
    """Measure the maps of some methods on every image of a sample, the floors beside them.

    Raises:
        InterruptedRunError: stopped by a signal; what was measured is kept.
    """
    wanted = [*methods, *FLOORS]
    todo = [i for i in sample.ids if scores.missing(i, wanted) or "places" not in scores.rows[i]]
    if not todo:
        return
    with stop_on_signals() as request, progress(f"maps of {network.name}", len(todo), "pictures", cost=True) as advance:
        try:
            for number, image_id in enumerate(todo):
                measure_one(network, sample, image_id, scores.missing(image_id, wanted), scores)
                advance(1)
                if number % SAVE_EVERY == SAVE_EVERY - 1:
                    scores.save()
                if request.signal is not None:
                    raise InterruptedRunError(
                        f"explain: stopped by {request.signal} after {number + 1} of {len(todo)} images of {network.name}; "
                        "the same command continues from there"
                    )
        finally:
            scores.save()


def measure_one(network: Network, sample: Sample, image_id: str, methods: Sequence[str], scores: Scores) -> None:
    """All measures of one image, for the class that the network holds for the most probable."""
    image, mask, beside = sample.pixels(image_id), sample.mask(image_id), sample.beside(image_id)
    predict = network.predictor(beside)
    c = int(predict(image[None])[0].argmax())
    seed = [ord(letter) for letter in image_id]
    order_seed = sum(seed)
    row = scores.rows.setdefault(image_id, {"class": c, "methods": {}})
    if "places" not in row:
        row["places"] = [None if fall is None else round(fall, 6) for fall in place_falls(image, mask, predict, c)]
    changed, (height, width) = disturbed(image, order_seed), image.shape[:2]
    maps: dict[str, NDArray[Any]] = {}
    others: dict[str, Json] = {}
    for name in methods:
        if name == "centre":
            maps[name] = center_gaussian(height, width)
        elif name == "random":
            maps[name] = random_map(height, width, seed)
            again = [random_map(height, width, [*seed, k]) for k in (1, 2)]
            others[name] = {"stability": float(np.mean([similarity(maps[name], one) for one in again]))}
        else:
            first, *rest = network.maps(np.concatenate([image[None], changed]), name, c, beside)
            unlearnt = network.maps(image[None], name, c, beside, shuffled=True)[0]
            maps[name] = first
            others[name] = {
                "stability": float(np.mean([similarity(first, one) for one in rest])),
                "unlearnt": similarity(first, unlearnt),
            }
    for name, found in deletion_insertion(image, maps, predict, c, order_seed).items():
        rim = hottest_and_coldest(maps[name], mask)
        fallen = None if rim is None else [*falls(image, rim, mask, predict, c), rim[0].name]
        values = {**found, **others.get(name, {}), "empty": float(not (maps[name] > 0).any())}
        if mask is not None and mask.any():
            values |= {
                "energy": energy_inside(maps[name], mask),
                "pointing": pointing(maps[name], mask),
                "area": float(mask.mean()),
            }
        finite = {key: None if np.isnan(value) else round(float(value), 6) for key, value in values.items()}
        row["methods"][name] = {**finite, "rim": fallen}


def growing_sample(labels_N: Sequence[str], count: int, seed: int) -> NDArray[np.int64]:
    """Ascending rows of a random sample in which every class has its share; a larger one holds the smaller ones, so that
    what was measured on those counts.

    >>> labels = ["nv"] * 90 + ["df"] * 10
    >>> ten, twenty = (growing_sample(labels, count, seed=0) for count in (10, 20))
    >>> set(ten) <= set(twenty), [labels[i] for i in twenty].count("df")
    (True, 2)
    """
    drawn, seen = permutation(seed, 0, len(labels_N)), dict.fromkeys(labels_N, 0)
    place = np.empty(len(labels_N))
    for row in drawn:
        place[row] = seen[labels_N[row]] + 0.5
        seen[labels_N[row]] += 1
    place /= [seen[label] for label in labels_N]
    order = drawn[np.argsort(place[drawn], kind="stable")]
    return np.sort(order[:count])


def cost_s(pictures: int, methods: Sequence[str], seconds_a_pass: float) -> float:
    """About how long `measure` takes, from the time of one image's forward pass; a pass backwards counts as two."""
    step = getattr(method_spec("occlusion"), "stride", 0.1)
    steps = getattr(method_spec("integrated_gradients"), "steps", 16)
    maps = {"occlusion": (1 / step) ** 2, "integrated_gradients": 3.0 * steps, "rollout": 1.5, "gradient_attention": 3.0}
    curves = 24 + 3  # deletion and insertion on two baselines, and the rim
    total = sum(curves + 4 * maps.get(name, 1.5) for name in methods) + curves * len(FLOORS)
    return pictures * (total + 17) * seconds_a_pass
