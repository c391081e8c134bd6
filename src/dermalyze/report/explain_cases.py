"""Explains one image: prediction, maps of each network, ABCD measurements, similar cases and a counterfactual."""

# Shapes: H x W pixels, C classes, K neighbours.

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermalyze.artifact.artifact import Artifact
from dermalyze.calibration.recipes import apply_recipe
from dermalyze.data.masks import mask_at, mask_of_size
from dermalyze.data.store import ImageStore
from dermalyze.data.thumbnails import small_pixels
from dermalyze.explain.counterfactual import smallest_flip
from dermalyze.explain.runner import Network
from dermalyze.imaging import abcd
from dermalyze.imaging.decode import Preprocessing, to_size
from dermalyze.imaging.samples import IMAGE, Batch, stack
from dermalyze.metrics.ranking import Floats
from dermalyze.report.explain_grading import NAMES
from dermalyze.report.heat import boxed, contoured, heat_of, jpeg, overlay
from dermalyze.scoring.features.retrieval import nearest_cases
from dermalyze.scoring.predictions import Predictions
from dermalyze.tasks.answering import Answering
from dermalyze.tasks.multilabel import names_of

Json = dict[str, Any]
SHOWN_PX = 240
"""Width of an image on the page."""
NEIGHBOURS = 5
NEIGHBOUR_PX = 110


@dataclass(frozen=True, eq=False)
class Shown:
    """An image to explain.

    Attributes:
        image_id: id in the run, or a number for an external image.
        image: upright and uncropped.
        mask: of the lesion, in the same frame; None if there is none.
        label: its diagnosis or labels as in the manifest, or None.
        group: its lesion; None for an external image.
        part: the split it belongs to, or None.
        mm_per_px: width of a pixel, or None.
    """

    image_id: str
    image: Image.Image
    mask: Image.Image | None
    label: str | None
    group: str | None
    part: str | None
    mm_per_px: float | None = None


@dataclass(frozen=True, eq=False)
class GradedNetwork:
    """A run to explain: network for maps, calibrated graph for probabilities, and the grades of its maps.

    Attributes:
        network: in PyTorch.
        artifact: its graph, and how its scores become predictions.
        verdict: of `explain_grading.grade_network`; None if nothing was graded.
        beside: image_id to the sample's other inputs.
        methods: methods to draw.
    """

    network: Network
    artifact: Artifact
    verdict: Json | None
    beside: Callable[[str], Batch]
    methods: Sequence[str]

    @property
    def answering(self) -> Answering:
        """How its scores become predictions, as served."""
        return self.artifact.answering

    def call(self, probs_NC: Floats) -> NDArray[np.bool_]:
        """(N, C) whether each class or label is predicted."""
        return self.network.task.called(probs_NC, self.answering.thresholds)

    def asked(self, probs_C: Floats, there_C: NDArray[np.bool_] | None) -> list[int]:
        """Classes to draw maps of, the most probable first: the predicted class, or the labels that are predicted or present;
        if there are none, the most probable label."""
        wanted_C = self.call(probs_C[None])[0]
        if self.answering.thresholds is not None and there_C is not None:
            wanted_C = wanted_C | there_C
        order = [int(c) for c in np.argsort(-probs_C, kind="stable")]
        return [c for c in order if wanted_C[c]] or order[:1]

    def answer(self, shown: Shown) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Calibrated probabilities (C,) with the run's recipe, and the embedding (1, D)."""
        sample = {IMAGE: to_size(shown.image, Preprocessing.from_dict(self.artifact.preprocessing)), **self.inputs(shown)}
        logits_BC, embedding_BD = apply_recipe(
            self.artifact.recipe, self.artifact.run, stack([sample]), self.answering.task.pool
        )
        return self.answering.probabilities(logits_BC)[0], embedding_BD

    def inputs(self, shown: Shown) -> Batch:
        """What the network takes beside its image; nothing, of an image from elsewhere."""
        return {} if shown.group is None else self.beside(shown.image_id)

    def note(self, method: str) -> tuple[str, bool]:
        """The grade of a method in words, and whether it is a warning."""
        found = None if self.verdict is None else self.verdict["grades"].get(method)
        return ("not graded", False) if found is None else (found["sentence"], found["verdict"] == "no better")


def explain_case(
    shown: Shown, networks: Sequence[GradedNetwork], train: Predictions | None, thumbnails: Callable[[str], Any]
) -> tuple[Json, Json]:
    """Values of one case for the file, and its images for the page.

    Args:
        shown: the image.
        networks: the run, and the runs it is compared with.
        train: predictions of the training split with embeddings; None: no similar cases.
        thumbnails: image_id to small RGB pixels, or None.
    """
    first = networks[0]
    geometry = first.network.preprocessing
    times = SHOWN_PX / geometry.width
    frame = replace(geometry.geometry, width=SHOWN_PX, height=max(8, min(4096, round(geometry.height * times))))
    image = to_size(shown.image, frame)
    mask = None if shown.mask is None else mask_at(shown.mask, frame)
    probs, embedding = first.answer(shown)
    task, classes = first.network.task, first.network.classes
    called_C = first.call(probs[None])[0]
    there_C = None if shown.label is None else task.membership(task.targets([shown.label], classes), len(classes))[0]
    panels, drawn = [], [jpeg(image if mask is None else contoured(image, mask))]
    for number, one in enumerate(networks):
        theirs = probs if number == 0 else one.answer(shown)[0]
        pixels = to_size(shown.image, one.network.preprocessing)[None]
        same = one.network.preprocessing == geometry  # else its own frame is drawn, without the outline
        for method, c in product(one.methods, one.asked(theirs, there_C)):
            found = one.network.maps(pixels, method, c, one.inputs(shown))[0]
            heat = heat_of(found, *image.shape[:2])
            over = overlay(image if same else to_size(shown.image, resized(one.network.preprocessing.geometry, image)), heat)
            drawn.append(jpeg(over if mask is None or not same else contoured(over, mask)))
            note, warns = one.note(method)
            empty = not bool((found > 0).any())
            panels.append({
                "run": one.network.name, "method": method, "name": NAMES[method], "class": classes[c],
                "probability": float(theirs[c]), "grade": note, "warns": warns, "empty": empty,
            })  # fmt: skip
    values: Json = {
        "image_id": shown.image_id,
        "part": shown.part,
        "label": None if there_C is None else names_of(there_C, classes),
        "called": names_of(called_C, classes),
        "right": None if there_C is None else bool((called_C == there_C).all()),
        "probabilities": dict(zip(classes, map(float, probs), strict=True)),
        "panels": panels,
        "words": words(shown),
        "flip": None,
        "similar": [],
    }
    pixels_HW3 = to_size(shown.image, geometry)
    plain = (
        None if first.answering.thresholds is None else first.answering.calibrator
    )  # thresholds are of calibrated probabilities
    flip = smallest_flip(pixels_HW3, first.network.predictor(first.inputs(shown), plain), first.call)
    if flip is not None:
        values["flip"] = {**asdict(flip), "becomes": names_of(flip.becomes, classes), "calibrated": plain is not None}
        drawn.append(jpeg(boxed(image, (flip.top, flip.left, flip.bottom, flip.right))))
    thumbs = []
    if train is not None and train.embedding is not None:
        near = nearest_cases(train, embedding, NEIGHBOURS, without={shown.group} if shown.group else set())
        counts = Counter(one.label for one in near)
        values["similar"] = [{"image_id": one.image_id, "label": one.label, "distance": one.distance} for one in near]
        values["similar_shares"] = dict(counts.most_common())
        thumbs = [None if (found := thumbnails(one.image_id)) is None else jpeg(found, 78) for one in near]
    return values, {
        "image": drawn[0],
        "panels": drawn[1 : 1 + len(panels)],
        "flip": drawn[-1] if flip else None,
        "thumbs": thumbs,
    }


def resized(p: Preprocessing, image: NDArray[np.uint8]) -> Preprocessing:
    """A network's geometry at the size of the image on the page."""
    return replace(p, height=image.shape[0], width=image.shape[1])


def words(shown: Shown) -> Json | None:
    """Asymmetry, border, colors and diameter at the original size; None without a mask or if the lesion is too small."""
    if shown.mask is None:
        return None
    pixels = np.asarray(shown.image, np.uint8)
    found = abcd.measure(pixels, mask_of_size(shown.mask, *pixels.shape[:2]), mm_per_px=shown.mm_per_px)
    return None if found is None else found.as_dict()


def thumbnails(store: ImageStore, paths: Mapping[str, str]) -> Callable[[str], NDArray[np.uint8] | None]:
    """From image_id to small pixels."""
    return lambda image_id: small_pixels(store, paths[image_id], NEIGHBOUR_PX) if image_id in paths else None
