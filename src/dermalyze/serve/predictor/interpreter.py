"""From what the model computed to an answer: the class or labels, the decision and the reasons in words."""

# Shapes: B images, C classes, h x w map.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.artifact.artifact import Artifact
from dermalyze.calibration.decision_rule import DECISIONS, Rule
from dermalyze.calibration.served_points import ServedPoint
from dermalyze.imaging.tabular import OUTSIDE, Encoder, Value
from dermalyze.serve.predictor.gate import UNJUDGED, conclude
from dermalyze.serve.predictor.prediction import PointResult, Prediction


@dataclass(frozen=True, eq=False)
class Interpreter:
    """Fills the blanks of images in with what the model computed for them.

    Attributes:
        artifact: for classes, descriptions and the grade of its maps.
        rule: answer, answer with a set, or refer.
        encoder: of a model that takes metadata.
        points: the operating points it is served at.
    """

    artifact: Artifact
    rule: Rule
    encoder: Encoder | None
    points: tuple[ServedPoint, ...]

    def __call__(
        self,
        blanks: Sequence[Prediction],
        metadata: Sequence[dict[str, Value]],
        probs_BC: NDArray[np.float64],
        foreign_B: NDArray[np.float64] | None,
        cam_BChw: NDArray[np.float32] | None,
        asked_BQ: NDArray[np.float64],
        *,
        shown: str | None = None,
    ) -> Iterator[Prediction]:
        """Answers in the order of the blanks.

        Args:
            blanks: what the gate found on each image, and what was done to it.
            metadata: of each, by the names of the model's columns.
            probs_BC: calibrated probabilities.
            foreign_B: out-of-distribution scores, where the model has them.
            cam_BChw: maps, where they are asked for.
            asked_BQ: summed probability at each operating point.
            shown: the class or label that the maps are of; None: the predicted class, or of labels the most probable of
                those that are called, and where none is, of all.
        """
        classes = self.artifact.classes
        outcome_B, inside_BC = self.rule.outcomes(probs_BC, classes, foreign_B), self.rule.inside(probs_BC, classes)
        answering = self.artifact.answering
        called_BC = answering.task.called(probs_BC, answering.thresholds)
        for b, (blank, row) in enumerate(zip(blanks, metadata, strict=True)):
            probs_C, outcome = probs_BC[b], int(outcome_B[b])
            cam_class = shown or classes[int(np.lexsort((-probs_C, ~called_BC[b]))[0])]
            score = float(foreign_B[b]) if foreign_B is not None else None
            problems = self.encoder.problems(row) if self.encoder is not None else {}
            unknown = [name for name, problem in problems.items() if not problem.startswith(OUTSIDE)]
            remarks = tuple(f"metadata: {name} {problem}" for name, problem in problems.items())
            reason = self.rule.reason(outcome, probs_C, classes, score)
            outside = tuple(words for words in remarks if OUTSIDE in words)
            verdict, reasons = conclude(blank.gate or UNJUDGED, DECISIONS[outcome], reason, outside)
            results = tuple(
                PointResult(point, self.artifact.descriptions.get(point.name, point.name), float(p))
                for point, p in zip(self.points, asked_BQ[b], strict=True)
            )
            if verdict != "refer" and (flags := [one.words() for one in results if one.positive]):
                verdict, reasons = "caution", (*flags, *reasons)
            order = np.argsort(-probs_C, kind="stable")
            yield Prediction(
                **{k: getattr(blank, k) for k in ("index", "sha256", "image_id", "file", "accepted_leak", "gate", "image")},
                **self._called(probs_C, called_BC[b]),
                cam=cam_BChw[b, classes.index(cam_class)].copy() if cam_BChw is not None else None,
                cam_class=cam_class if cam_BChw is not None else None,
                cam_grade=self.artifact.cam_grade if cam_BChw is not None else None,
                notes=(*blank.notes, *remarks),
                verdict=verdict,
                reasons=reasons,
                metadata_unknown=tuple(unknown) if self.encoder is not None else None,
                calibrated=self.artifact.calibrated,
                operating_points=results,
                prediction_set=None if inside_BC is None else tuple(classes[c] for c in order if inside_BC[b, c]),
                decision="refer" if verdict == "refer" else DECISIONS[outcome],
                abstain=verdict == "refer",
                reason=reason,
                ood_score=score,
                ood_threshold=self.rule.limit.threshold if self.rule.limit is not None else None,
                probabilities={name: float(p) for name, p in zip(classes, probs_C, strict=True)},
            )

    def _called(self, probs_C: NDArray[np.float64], called_C: NDArray[np.bool_]) -> dict[str, Any]:
        """The fields that say what is there: the labels above their thresholds, or the most probable class."""
        answering, classes = self.artifact.answering, self.artifact.classes
        if answering.thresholds is not None:
            return {
                "positive": tuple(name for name, called in zip(classes, called_C, strict=True) if called),
                "thresholds": dict(zip(classes, answering.thresholds.tolist(), strict=True)),
            }
        best = int(probs_C.argmax())
        return {
            "predicted_class": classes[best],
            "predicted_class_description": self.artifact.descriptions[classes[best]],
            "confidence": float(probs_C[best]),
        }
