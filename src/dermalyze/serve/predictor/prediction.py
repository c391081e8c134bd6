"""What is answered for one image."""

# Shapes: h x w map.

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.artifact.cam_grade import MapGrade
from dermalyze.calibration.served_points import ServedPoint
from dermalyze.core.result import DISCLAIMER
from dermalyze.serve.predictor.gate import Gate

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class PointResult:
    """One image at one operating point.

    Attributes:
        point: the question and its threshold.
        title: of the question, in words.
        probability: summed over the classes that mean yes, 0..1.
    """

    point: ServedPoint
    title: str
    probability: float

    @property
    def positive(self) -> bool | None:
        """Whether the probability reaches the threshold; None where there is no threshold."""
        return None if self.point.threshold is None else self.probability >= self.point.threshold

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        point = self.point.model_dump(mode="json")
        kept = {key: point[key] for key in ("threshold", "target", "sensitivity", "specificity", "note")}
        of = {"name": point["name"], "title": self.title, "classes": point["classes"]}
        return {**of, "probability": self.probability, "positive": self.positive, **kept}

    def words(self) -> str:
        """Why an image that is positive is to be looked at."""
        return (
            f"have it looked at: {self.title} {self.probability:.1%}, threshold {self.point.threshold:.1%} (chosen for a "
            f"sensitivity of {self.point.target:.0%})"
        )


@dataclass(frozen=True)
class Prediction(Mapping[str, Any]):
    """An answer, or the reason why there is none; reads like a dict of `as_dict()` as well.

    Attributes:
        index: position in what was asked, from 0.
        sha256: of the image's bytes, by which an answer finds its file; None where there were none.
        predicted_class: the most probable class; None on an error, and on a refusal (see `withheld`).
        predicted_class_description: what that name stands for.
        confidence: its probability, 0..1.
        probabilities: class name to probability, summing to 1.
        notes: what was done to the image that its owner should know.
        error: why there is no answer, one line without a path.
        image_id: the user's own key, from a CSV.
        file: what the user called it on the command line (a path, perhaps; it may identify a person); None where the image
            came otherwise, as to the server, and in no output unless asked for.
        accepted_leak: the reason with which training on leaking data was accepted; stands on every answer.
        calibrated: whether a calibrator stands between the scores and the probabilities.
        prediction_set: classes that hold the right one in a stated share of cases, the most probable first; None where no such
            sets were calibrated.
        decision: "answer"; "set", where `prediction_set` is the answer and not the class alone; or "refer", to a person.
        gate: what the gate found; None where the image was not checked.
        abstain: the decision is to refer; the rest of the answer is there to be seen, not to be used.
        reason: why it is not simply answered, or None.
        ood_score: how unlike the training images it is, larger is more; None where the model has no such score.
        ood_threshold: above it an image is referred.
        verdict: "accept", "caution" or "refer": the worst of what the gate found on the image and of the decision; None where
            the image was not evaluated.
        reasons: why it is not simply accepted, in words.
        cam: with `explain`, where the image speaks for `cam_class` (above 0) or against it (below), (h, w) of the network's
            last map, in units of logits; of the image as it stands, whatever further views the recipe asks; see
            `dermalyze.serve.predictor.heatmap`.
        cam_class: the class of `cam`.
        cam_grade: with `explain`, how far maps of this model are to be trusted, measured on its test split.
        image: with `explain`, the decoded image, upright.
        metadata_unknown: metadata that the model takes and that were missing, unseen or no number, and so counted as unknown;
            None where it takes none.
        positive: of task multilabel: labels whose probability reaches their threshold, in the model's order; there is then no
            predicted class and no confidence, and probabilities need not sum to 1. None for task multiclass.
        thresholds: of task multilabel, by label.
        operating_points: of each yes-or-no question of the model, such as malignant or not, what it says of the image.
        withheld: the image is refused, and so class, labels, probabilities and operating points are left out.

    >>> p = Prediction(0, "ab" * 32, "nv", "Melanocytic nevi", 0.75, {"mel": 0.25, "nv": 0.75})
    >>> p["predicted_class"], f"{p['confidence']:.0%}", p.get("error")
    ('nv', '75%', None)
    """

    index: int
    sha256: str | None
    predicted_class: str | None = None
    predicted_class_description: str | None = None
    confidence: float | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str | None = None
    image_id: str | None = None
    file: str | None = None
    accepted_leak: str | None = None
    calibrated: bool = False
    prediction_set: tuple[str, ...] | None = None
    decision: str | None = None
    abstain: bool = False
    reason: str | None = None
    ood_score: float | None = None
    ood_threshold: float | None = None
    metadata_unknown: tuple[str, ...] | None = None
    positive: tuple[str, ...] | None = None
    thresholds: dict[str, float] | None = None
    operating_points: tuple[PointResult, ...] = ()
    withheld: bool = False
    verdict: str | None = None
    reasons: tuple[str, ...] = ()
    gate: Gate | None = None
    cam: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    cam_class: str | None = None
    cam_grade: MapGrade | None = None
    image: Image | None = field(default=None, compare=False, repr=False)

    @property
    def flagged(self) -> tuple[str, ...]:
        """Names of the questions whose threshold is reached; the image is to be looked at if there is one."""
        return tuple(one.point.name for one in self.operating_points if one.positive)

    def without_scores(self) -> Prediction:
        """The same, but of a refused image without anything that could be taken for a result."""
        if self.verdict != "refer":
            return self
        nothing: dict[str, Any] = dict.fromkeys(
            ("predicted_class", "predicted_class_description", "confidence", "positive", "prediction_set", "cam", "cam_class")
        )
        nothing |= {"cam_grade": None, "probabilities": {}, "operating_points": ()}
        return replace(self, withheld=True, **nothing)

    def ranked(self) -> list[tuple[str, float]]:
        """Classes and their probabilities, the most probable first; of labels those first that reach their threshold."""
        called = self.positive or ()
        return sorted(self.probabilities.items(), key=lambda item: (item[0] not in called, -item[1]))

    def as_dict(self, *, names: bool = False, top: int | None = None) -> dict[str, Any]:
        """JSON-ready values: an answer or an error, never both; `names` adds `file`, `top` so many `top_predictions`."""
        values: dict[str, Any] = {"index": self.index, "image": self.sha256[:12] if self.sha256 else None}
        values |= {"image_id": self.image_id} if self.image_id is not None else {}
        values |= {"file": self.file} if names else {}
        if self.error is not None:
            values["error"] = self.error
        else:
            points = None if self.withheld else [one.as_dict() for one in self.operating_points]
            values |= {"flagged": None if points is None else list(self.flagged), "operating_points": points}
            if self.thresholds is not None:
                called = None if self.positive is None else list(self.positive)
                values |= {"positive": called, "thresholds": dict(self.thresholds)}
            else:
                values |= {
                    "predicted_class": self.predicted_class,
                    "predicted_class_description": self.predicted_class_description,
                    "confidence": self.confidence,
                }
            values |= {
                "probabilities": None if self.withheld else dict(self.probabilities),
                "withheld": self.withheld,
                "calibrated": self.calibrated,
                "decision": self.decision,
                "abstain": self.abstain,
            }
            if top is not None:
                first = [{"class": name, "probability": p} for name, p in self.ranked()[:top]]
                values["top_predictions"] = None if self.withheld else first
            values |= {"ood_score": self.ood_score, "ood_threshold": self.ood_threshold} if self.ood_score is not None else {}
            values |= {"prediction_set": list(self.prediction_set)} if self.prediction_set is not None else {}
            values |= {"reason": self.reason} if self.reason else {}
            values |= {"verdict": self.verdict, "reasons": list(self.reasons)} if self.verdict is not None else {}
            values |= {"metadata_unknown": list(self.metadata_unknown)} if self.metadata_unknown is not None else {}
        if self.cam_grade is not None:
            values["heatmap"] = {"class": self.cam_class, "grade": self.cam_grade.model_dump()}
        values |= {"notes": list(self.notes)} if self.notes else {}
        values |= {"accepted_leak": self.accepted_leak} if self.accepted_leak else {}
        return {**values, "disclaimer": DISCLAIMER}

    def __getitem__(self, key: str) -> Any:
        return self.as_dict()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.as_dict())

    def __len__(self) -> int:
        return len(self.as_dict())
