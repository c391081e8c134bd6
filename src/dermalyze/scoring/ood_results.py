"""What a run holds beside labelled images: the served rule, out-of-distribution scores, corrupted images."""

# Shapes: N images, C classes, D width of the embedding.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.calibration.decision_rule import Rule
from dermalyze.calibration.ood import Detector
from dermalyze.core.atomic import sha256_bytes
from dermalyze.core.progress import say
from dermalyze.core.run import Run, read_json
from dermalyze.errors import ModelError
from dermalyze.metrics.ranking import Floats
from dermalyze.scoring.predictions import Predictions, read_predictions


@dataclass(frozen=True, eq=False)
class Scored:
    """What the model made of some images: logits (N, C) and embedding (N, D)."""

    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class OodResults:
    """All of it.

    Attributes:
        rule: by which cases are answered or referred, as it is served.
        table: what `calibrate` wrote of the scores: `scores` by kind, `missing`, `choice`.
        detectors: the fitted scores by kind; those whose arrays are there.
        ood: out-of-distribution images, by kind.
        corrupted: corrupted copies of the test split, image ids `IMAGE/KIND/SEVERITY`; None: none were scored.
    """

    rule: Rule
    table: Mapping[str, Any]
    detectors: Mapping[str, Detector]
    ood: Mapping[str, Scored]
    corrupted: Predictions | None = None

    def foreignness(self, p: Predictions | Scored) -> Floats | None:
        """(N,) the served out-of-distribution score; None where the rule has none.

        Raises:
            ModelError: the rule has one, and its arrays or the embedding are missing.
        """
        if self.rule.limit is None:
            return None
        kind = self.rule.limit.kind
        if kind not in self.detectors or p.embedding is None:
            raise ModelError(
                f"the out-of-distribution score {kind} cannot be computed: arrays or embedding are missing; calibrate again"
            )
        return self.detectors[kind](p.logits, p.embedding)


def read_ood_results(run: Run, p: Predictions) -> OodResults | None:
    """What stands beside predictions; None where the recipe is not calibrated.

    Args:
        run: its calibration and the predictions of out-of-distribution and corrupted images; not those of another model.
        p: predictions to be evaluated; corrupted copies are of the test split and belong to no other set.

    Raises:
        ModelError: a file is damaged or is not the one that the calibration names.
    """
    recipe, path = p.meta["recipe"], run.calibration_path(p.meta["recipe"])
    if not path.exists():
        return None
    known = read_json(path)
    table: dict[str, Any] = known["ood"]
    detectors = {}
    if p.embedding is not None:
        for kind, one in table["scores"].items():
            data = run.require(run.ood_path(recipe, kind), "calibrate").read_bytes() if one["sha256"] else b""
            if one["sha256"] and sha256_bytes(data) != one["sha256"]:
                raise ModelError(
                    f"{run.ood_path(recipe, kind).name}: not what {path.name} names; run again: dermalyze calibrate {run.root}"
                )
            detectors[kind] = Detector.from_bytes(kind, one["shapes"], data, classes=len(p.classes), width=p.embedding.shape[1])
    foreign: dict[str, Scored] = {}
    for file in run.foreign_paths(recipe):
        q = _of_the_same_model(run, file, p)
        if q is not None and q.embedding is not None:
            kinds = np.array(q.groups)
            foreign |= {kind: Scored(q.logits[kinds == kind], q.embedding[kinds == kind]) for kind in dict.fromkeys(q.groups)}
    corrupted = _of_the_same_model(run, run.corrupted_path(recipe), p) if p.meta["set"] == "test" else None
    return OodResults(Rule.from_dict(known["calibration"], p.classes), table, detectors, foreign, corrupted)


def _of_the_same_model(run: Run, path: Any, p: Predictions) -> Predictions | None:
    if not path.exists():
        return None
    q = read_predictions(path)
    if q.meta.get("scores_sha256") != p.meta.get("scores_sha256"):
        say(f"{path.name}: scores of another model, left out; run again: dermalyze score {run.root}")
        return None
    return q
