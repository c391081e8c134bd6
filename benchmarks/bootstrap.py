"""1,000 cluster-bootstrap resamples of macro AUROC: ours against a loop over scikit-learn, on the same resamples.

Run: python benchmarks/bootstrap.py [--images 1500] [--classes 7] [--resamples 1000]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from sklearn.metrics import roc_auc_score

from dermalyze.metrics.bootstrap import group_index, group_weights, resample
from dermalyze.metrics.classification import METRICS, Scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--classes", type=int, default=7)
    parser.add_argument("--resamples", type=int, default=1000)
    arguments = parser.parse_args()
    n, classes, resamples = arguments.images, arguments.classes, arguments.resamples

    generator = np.random.default_rng(0)
    groups = generator.integers(round(n * 0.75), size=n)
    share = np.array([0.66, 0.11, 0.11, 0.05, 0.035, 0.02, 0.015])[:classes] if classes <= 7 else np.ones(classes)
    labels = generator.choice(classes, size=n, p=share / share.sum())
    logits = generator.normal(size=(n, classes)) + 2 * np.eye(classes)[labels]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    def ours() -> np.ndarray:
        return resample(Scores(labels, probs), groups, {"a": METRICS["macro_auroc"]}, resamples=resamples, seed=0)["a"]

    ours()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        found = ours()
        times.append(time.perf_counter() - start)
    index, number = group_index(groups)
    weights = np.concatenate(list(group_weights(index, number, resamples, 0)), axis=1).astype(int)
    start = time.perf_counter()
    reference = np.full(resamples, np.nan)
    for r in range(resamples):
        rows = np.repeat(np.arange(n), weights[:, r])
        if len(np.unique(labels[rows])) == classes:
            reference[r] = (
                roc_auc_score(labels[rows], probs[rows], multi_class="ovr", average="macro") if classes > 2 else np.nan
            )
    loop_s = time.perf_counter() - start
    difference = np.nanmax(np.abs(found - reference))
    print(f"{resamples} resamples of macro AUROC, {n} images, {number} lesions, {classes} classes")
    print(f"loop over scikit-learn {loop_s:.2f} s; dermalyze {np.median(times):.3f} s (median of 5)")
    print(f"ratio {loop_s / np.median(times):.0f} x; largest difference of a resample {difference:.1e}")
    print(f"undefined in {np.isnan(found).sum()} resamples here, {np.isnan(reference).sum()} there")


if __name__ == "__main__":
    main()
