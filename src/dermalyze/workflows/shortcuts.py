"""What a model takes from the borders of images: borders exchanged within a class, and between classes."""

# Shapes: N test images, C classes.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermalyze.artifact.artifact import Artifact
from dermalyze.calibration.recipes import apply_recipe
from dermalyze.imaging.inpaint import box, mark, ring, with_border_of
from dermalyze.imaging.samples import IMAGE, Array, Batch, size_of, take
from dermalyze.metrics.calibration_error import ECE_BINS
from dermalyze.metrics.difference import Scored, compare
from dermalyze.metrics.ranking import Floats
from dermalyze.rng import permutation, uniforms
from dermalyze.tasks.base import Task
from dermalyze.workflows.control_images import CORNER, ControlImages

TOLERANCE = 0.05
"""What an AUROC may exceed chance by (with its whole interval), or lose (with an interval above 0), before it is suspicious."""
MAX_IMAGES = 3000
"""Test images at most: these are held in memory."""
DONORS, CHOICE = 6, 7  # streams of `dermalyze.rng`

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Summary:
    """How differences are summed up.

    Attributes:
        task: what the model answers.
        classes: in the order of the model's outputs.
        resamples, level, seed: of the bootstrap.
    """

    task: Task
    classes: Sequence[str]
    resamples: int
    level: float
    seed: int

    @property
    def overall(self) -> dict[str, Any]:
        """The task's overall metrics."""
        return self.task.overall_metrics(ECE_BINS)

    @property
    def each_auroc(self) -> Any:
        """The AUROC of each class."""
        return self.task.class_metrics(ECE_BINS)["auroc"]

    @property
    def class_level(self) -> float:
        """Level of a class's interval, so that all classes' hold together (Bonferroni)."""
        return 1 - (1 - self.level) / len(self.classes)


@dataclass(frozen=True, eq=False)
class TestImages:
    """Test images of a model's size in memory.

    Attributes:
        rows: (N,) row of each in the frame.
        targets: (N,) class index, or (N, C) of labels.
        kinds: (N,) a number for each class, or for each combination of labels.
        groups: the group of each.
        samples: all inputs of the model.
        outside: (N, H, W) the border that is not in the foreground's box.
    """

    __test__ = False  # not a test, whatever its name

    rows: NDArray[np.int64]
    targets: NDArray[np.int64]
    kinds: NDArray[np.int64]
    groups: list[str]
    samples: dict[str, Array]
    outside: NDArray[np.bool_]

    @property
    def images(self) -> Images:
        """(N, H, W, 3)."""
        return self.samples[IMAGE]

    @classmethod
    def read(cls, pictures: ControlImages, parts: pd.Series, judging: Summary) -> TestImages:
        rows = np.flatnonzero((parts == "test").to_numpy() & pictures.used("shortcut"))
        rows = np.sort(rows[permutation(judging.seed, 0, len(rows), stream=CHOICE)[:MAX_IMAGES]])
        frame, border = pictures.frame.iloc[rows], ring(*pictures.size)
        outside = np.stack([border & ~box(pictures.mask(row)) if pictures.has_masks else border for row in rows.tolist()])
        targets = judging.task.targets(frame["label"].tolist(), judging.classes)
        kinds = np.unique(targets, axis=0, return_inverse=True)[1].reshape(-1)
        return cls(rows, targets, kinds, frame["group"].astype(str).tolist(), pictures.read(rows), outside)

    def with_borders(self, images: Images, donor_N: NDArray[np.int64]) -> Images:
        """The images with the donors' borders, where neither foreground's box reaches."""
        pairs = zip(images, donor_N, self.outside, strict=True)
        return np.stack([with_border_of(image, images[d], out & self.outside[d]) for image, d, out in pairs])


def exchange_borders(
    artifact: Artifact, recipe: str, pictures: ControlImages, parts: pd.Series, judging: Summary
) -> dict[str, Any]:
    """The model on test images with the border of another image: of the same class against of another class.

    Both pastings disturb alike; only the second takes from a border what it tells about the class. What the model loses by it,
    it had from borders.
    """
    test = TestImages.read(pictures, parts, judging)
    return exchanged(artifact, recipe, test, test.images, judging)


def exchanged(artifact: Artifact, recipe: str, test: TestImages, images: Images, judging: Summary) -> dict[str, Any]:
    """See `exchange_borders`; for images that may have been marked."""
    same, other = donors(test.kinds, test.groups, judging.seed)
    rows = np.flatnonzero((same >= 0) & (other >= 0))
    if not len(rows):
        return {"verdict": "not estimable", "why": f"no {judging.task.noun} has two groups in the test split"}
    sides = []
    for donor_N in (same, other):
        pasted = test.with_borders(images, np.where(donor_N >= 0, donor_N, 0))
        probs = artifact.answering.task.probabilities(scores(artifact, recipe, take({**test.samples, IMAGE: pasted}, rows)))
        sides.append(Scored(judging.task.scores(test.targets[rows], probs), [test.groups[row] for row in rows]))
    found = differences_of(sides[0], sides[1], judging, ("same", "other"))
    told = [name for name, values in found["per_class"].items() if is_lost(values["difference"])]
    macro = found["macro_auroc"]["difference"]
    known = {"images": len(rows), "groups": len({test.groups[row] for row in rows}), **found, "telling": told}
    if macro["low"] is None:
        return {"verdict": "not estimable", "why": macro["note"], **known}
    return {"verdict": "suspicious" if told or is_lost(macro) else "holds", **known}


def is_lost(difference: Mapping[str, Any]) -> bool:
    """Whether more than `TOLERANCE` is lost, and surely something.

    >>> is_lost({"value": 0.1, "low": 0.03}), is_lost({"value": 0.02, "low": 0.01}), is_lost({"value": None, "low": None})
    (True, False, False)
    """
    return difference["low"] is not None and difference["low"] > 0 and difference["value"] > TOLERANCE


def planted_mark(
    artifact: Artifact, recipe: str, pictures: ControlImages, parts: pd.Series, judging: Summary, target: str
) -> dict[str, Any]:
    """A model trained on a mark that goes with `target`, on test images where the mark tells the truth, is absent, lies.

    It holds if the exchange of borders, on images where the mark tells the truth, finds it for that class; suspicious is a
    mark that the model goes by and that is not found. A model that does not go by it shows nothing either way.
    """
    test = TestImages.read(pictures, parts, judging)
    c = judging.classes.index(target)
    corners = (uniforms(judging.seed, 1, test.rows, 1, stream=CORNER)[:, 0] * 4).astype(int)

    def marked(which_N: NDArray[np.bool_]) -> Images:
        rows = zip(test.images, corners, which_N, strict=True)
        return np.stack([mark(image, corner) if it else image for image, corner, it in rows])

    has_N = judging.task.membership(test.targets, len(judging.classes))[:, c]
    truth = marked(has_N)
    sides = {
        name: Scored(
            judging.task.scores(
                test.targets, judging.task.probabilities(scores(artifact, recipe, {**test.samples, IMAGE: images}))
            ),
            test.groups,
        )
        for name, images in (("truth", truth), ("absent", test.images), ("lying", marked(~has_N)))
    }
    lost = {}
    for name in ("absent", "lying"):
        found = differences_of(sides["truth"], sides[name], judging, ("truth", name))
        lost[name] = {"accuracy": found[judging.task.compared["controls"][-1]], "auroc": found["per_class"][target]}
    finding = exchanged(artifact, recipe, test, truth, judging)
    known = {"target": target, "images": len(test.kinds), "groups": len(set(test.groups)), "lost": lost, "exchange": finding}
    if finding["verdict"] == "not estimable" or finding["per_class"][target]["difference"]["low"] is None:
        return {"verdict": "not estimable", "why": finding.get("why", f"too few groups of {target} in the test split"), **known}
    taken = lost["lying"]["auroc"]["difference"]["low"]
    if target not in finding["telling"] and (taken is None or taken <= TOLERANCE):
        why = f"the network did not go by the mark: it tells {target} about as well where the mark lies; try more epochs"
        return {"verdict": "not estimable", "why": why, **known}
    return {"verdict": "holds" if target in finding["telling"] else "suspicious", **known}


def donors(labels_N: NDArray[np.int64], groups_N: Sequence[str], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(N,) and (N,) whose border each image gets: one of its own class but of another group, and one of another class.

    -1 where there is none. Each draw is even among those that are allowed.

    >>> same, other = donors(np.array([0, 0, 1]), ["a", "b", "c"], seed=0)
    >>> same.tolist(), other.tolist()[:2]
    ([1, 0, -1], [2, 2])
    """
    group_N = np.array(groups_N)
    draw_N2 = uniforms(seed, 0, np.arange(len(labels_N)), 2, stream=DONORS)
    found = np.full((2, len(labels_N)), -1, dtype=np.int64)
    for i, label in enumerate(labels_N):
        for kind, allowed in enumerate(((labels_N == label) & (group_N != group_N[i]), labels_N != label)):
            rows = np.flatnonzero(allowed)
            if len(rows):
                found[kind, i] = rows[int(draw_N2[i, kind] * len(rows))]
    return found[0], found[1]


def scores(artifact: Artifact, recipe: str, samples: Batch, size: int = 64) -> NDArray[np.float32]:
    """(N, C) logits."""
    batches = (take(samples, slice(start, start + size)) for start in range(0, size_of(samples), size))
    return np.concatenate([apply_recipe(recipe, artifact.run, batch)[0] for batch in batches])


def differences_of(a: Scored, b: Scored, judging: Summary, names: tuple[str, str]) -> dict[str, Any]:
    """Overall metrics and each class's AUROC of two sides, and their differences, with intervals."""
    options: dict[str, Any] = {"resamples": judging.resamples, "seed": judging.seed}
    overall = compare(
        a, b, {name: judging.overall[name] for name in judging.task.compared["controls"]}, level=judging.level, **options
    )
    areas = {name: auroc_of_class(judging.each_auroc, c) for c, name in enumerate(judging.classes)}
    each = compare(a, b, areas, level=judging.class_level, **options)
    title = {"a": names[0], "b": names[1], "difference": "difference"}
    words: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda e: {title[k]: v.as_dict() for k, v in e.items()}  # noqa: E731
    return {
        **{name: words(found) for name, found in overall.items()},
        "per_class": {name: words(found) for name, found in each.items()},
        "class_level": judging.class_level,
    }


def auroc_of_class(each: Callable[[Any], Floats], c: int) -> Callable[[Any], Floats]:
    """The AUROC of one class as a metric of a set."""
    return lambda t: each(t)[:, c]


def telling(per_class: Mapping[str, Mapping[str, Any]], above: float) -> list[str]:
    """The classes whose interval lies above a value as a whole.

    >>> telling({"mel": {"low": 0.8}, "nv": {"low": None}}, 0.55)
    ['mel']
    """
    return [name for name, found in per_class.items() if found["low"] is not None and found["low"] > above]
