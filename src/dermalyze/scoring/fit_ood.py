"""Out-of-distribution scores fitted on a run's stored predictions, and the choice of the one that is served."""

# Shapes: N images of the calibration split, M synthetic out-of-distribution images.

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.calibration import ood
from dermalyze.core.atomic import sha256_bytes, sha256_file
from dermalyze.core.progress import say
from dermalyze.core.run import Run
from dermalyze.errors import ModelError
from dermalyze.metrics.ood_separation import auroc
from dermalyze.scoring.predictions import Predictions, read_predictions


@dataclass(frozen=True)
class OodFit:
    """A fitted out-of-distribution score: `threshold` lets 95 % of the calibration split pass; `aurocs` against the synthetic
    out-of-distribution images of each kind."""

    detector: ood.Detector
    threshold: float
    aurocs: dict[str, float]

    @property
    def mean_auroc(self) -> float | None:
        """Over the kinds; None where there are no synthetic images."""
        return float(np.mean(list(self.aurocs.values()))) if self.aurocs else None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, without the arrays."""
        data = self.detector.to_bytes()
        return {
            "kind": self.detector.kind,
            "threshold": self.threshold,
            "kept": ood.KEPT,
            "shapes": self.detector.shapes(),
            "sha256": sha256_bytes(data) if data else None,
        }


def fit_ood(run: Run, p: Predictions, asked: str, seed: int) -> tuple[dict[str, OodFit], dict[str, str], str | None]:
    """Every out-of-distribution score that can be had, why not the others, and the SHA-256 of the synthetic predictions.

    Args:
        run: its training split is fitted on.
        p: predictions of the calibration split.
        asked: `inference.ood`; with none nothing is fitted.
        seed: of the stored training images.
    """
    wanted = p.task.ood_scores if asked != "none" else ()
    train = _same_scores(run.predictions_path("train", p.meta["recipe"]), p)
    path = run.foreign_path("synthetic", p.meta["recipe"])
    synthetic = _same_scores(path, p)
    fits, missing = {}, {}
    for kind in wanted:
        needs_embedding = bool(ood.OOD_SCORES[kind].arrays)
        if train is None or not len(p) or (needs_embedding and (train.embedding is None or p.embedding is None)):
            missing[kind] = "no predictions of the training split by this model"
            continue
        try:
            fitted = ood.fit(kind, train.logits, _embedding(train), train.labels, seed=seed)
        except ModelError as error:
            missing[kind] = str(error)
            continue
        # what is measured are the arrays as they will be read
        detector = ood.Detector.from_bytes(
            kind, fitted.shapes(), fitted.to_bytes(), classes=len(p.classes), width=_embedding(p).shape[1]
        )
        known_N, aurocs = detector(p.logits, _embedding(p)), {}
        if synthetic is not None:
            foreign_M, kinds_M = detector(synthetic.logits, _embedding(synthetic)), np.array(synthetic.groups)
            aurocs = {str(name): auroc(known_N, foreign_M[kinds_M == name]) for name in dict.fromkeys(synthetic.groups)}
        fits[kind] = OodFit(detector, ood.threshold_of(known_N), aurocs)
    return fits, missing, sha256_file(path) if synthetic is not None else None


def choose(fits: dict[str, OodFit], missing: dict[str, str], asked: str) -> str | None:
    """The score to serve: the one asked for, or (`auto`) the one that best tells the synthetic images from the calibration
    split by its mean AUROC over their kinds; no image of the test split has a say. None: nothing is refused.

    Raises:
        ModelError: the one asked for cannot be had.
    """
    if asked == "none":
        return None
    if asked != "auto":
        if asked not in fits:
            raise ModelError(f"inference.ood: {asked} cannot be had: {missing[asked]}; choose another, auto or none")
        return asked
    means = {kind: one.mean_auroc for kind, one in fits.items() if one.mean_auroc is not None}
    if not means:
        say("calibrate: no synthetic out-of-distribution images of this model, so nothing is refused; run score again")
        return None
    return max(means, key=lambda kind: means[kind])


def _same_scores(path: Path, p: Predictions) -> Predictions | None:
    """Stored predictions of the same model and recipe as `p`; None where there are none."""
    known = read_predictions(path) if path.exists() else None
    same = known is not None and all(known.meta.get(key) == p.meta.get(key) for key in ("scores_sha256", "recipe", "classes"))
    return known if same else None


def _embedding(p: Predictions) -> NDArray[np.float32]:
    """Its embedding, of width 0 where none is stored (scores of logits alone do not look at it)."""
    return p.embedding if p.embedding is not None else np.zeros((len(p), 0), np.float32)
