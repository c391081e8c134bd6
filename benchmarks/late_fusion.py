"""What metadata would add to a finished run: the late fusion made from its stored predictions, without any training.

    python benchmarks/late_fusion.py RUN [--columns age sex site]

Fitted on the training split, weighed on the validation split, a temperature for each on the calibration split, compared on the
test split with paired intervals over lesions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from dermalyze.calibration.calibrators import Calibrator, fit_temperature
from dermalyze.config.model import LateFusion, MetadataSpec, ModelSpec
from dermalyze.core.run import Run
from dermalyze.data.manifest import read_classes
from dermalyze.data.metadata import fit_rows
from dermalyze.data.splitting import read_division
from dermalyze.metrics.classification import Scores, accuracy, balanced_accuracy, log_loss, macro_auroc, recall
from dermalyze.metrics.difference import Scored, compare
from dermalyze.models.fusion import choose_strength, fit_expert
from dermalyze.scoring.predictions import read_predictions


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--columns", nargs="+", default=["age", "sex", "site"])
    asked = parser.parse_args()
    run = Run(asked.run)
    classes, recipe = read_classes(run), run.config().inference.recipe
    frame, parts = read_division(run)
    spec = ModelSpec(metadata=MetadataSpec(columns=tuple(asked.columns), fusion=LateFusion()))
    train = np.flatnonzero(parts == "train")
    fitted = fit_rows(frame, spec, train)
    assert fitted is not None
    encoder, rows_NM = fitted
    row_of = {image_id: row for row, image_id in enumerate(frame["image_id"])}
    labels = np.array([classes.index(name) for name in frame["label"].iloc[train]])
    expert = fit_expert(encoder, rows_NM[train], labels, len(classes))
    stored = {part: read_predictions(run.predictions_path(part, recipe)) for part in ("val", "cal", "test")}
    known = {part: rows_NM[[row_of[image_id] for image_id in p.ids]] for part, p in stored.items()}
    expert = choose_strength(expert, known["val"], stored["val"].logits, stored["val"].labels)
    print(expert.as_dict())

    def probabilities(strength: float) -> np.ndarray:
        fused = {part: p.logits.astype(np.float64) + strength * expert.evidence(known[part]) for part, p in stored.items()}
        temperature = fit_temperature(fused["cal"], stored["cal"].labels, np.zeros(len(classes)))
        return Calibrator("temperature", temperature)(fused["test"])

    test = stored["test"]
    sides = [Scored(Scores(test.labels, probabilities(w)), test.groups) for w in (expert.strength, 0.0)]
    metrics = {"accuracy": accuracy, "balanced accuracy": balanced_accuracy, "macro AUROC": macro_auroc, "log loss": log_loss}
    metrics |= {f"recall {name}": (lambda t, c=c: recall(t)[:, c]) for c, name in enumerate(classes)}
    found = compare(*sides, metrics, resamples=2000, level=0.95, seed=0)
    print(f"{'':18} {'image':>7} {'fused':>7}  difference (95 % interval)")
    for name, one in found.items():
        d = one["difference"]
        print(f"{name:18} {one['b'].value:7.3f} {one['a'].value:7.3f}  {d.value:+.3f} ({d.low:+.3f} to {d.high:+.3f})")


if __name__ == "__main__":
    main()
