"""A split run with stored predictions, without images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MakeJudged = Callable[..., Any]


@pytest.fixture
def judged(tmp_path: Path) -> MakeJudged:
    """`judged(counts, skill=2.0, seed=0, config={}, name="run")`: (run, spec), split and with predictions for every part.

    `counts` is the number of lesions of each class; a lesion has one to three images.
    """
    return lambda counts, **options: make_judged(tmp_path / options.pop("name", "run"), counts, **options)


def make_judged(
    root: Path,
    counts: dict[str, int],
    *,
    skill: float = 2.0,
    seed: int = 0,
    config: dict[str, Any] | None = None,
    ids: str = "I{:05}",
) -> Any:
    import pandas as pd

    from dermalyze.config.experiment import build_experiment
    from dermalyze.core.atomic import write_json
    from dermalyze.core.run import Run
    from dermalyze.data.manifest import write_manifest
    from dermalyze.stages.split import split

    generator, classes = np.random.default_rng(seed), sorted(counts)
    spec = build_experiment({"evaluate": {"resamples": 200}, **(config or {})})
    run = Run.create(root, spec)
    rows = []
    for name in classes:
        for lesion in range(counts[name]):
            for _ in range(generator.integers(1, 4)):
                number = len(rows)
                sha = [hashlib.sha256(f"{kind}{number}".encode()).hexdigest() for kind in "fp"]
                rows.append((ids.format(number), f"{number}.jpg", *sha, f"{name}-{lesion}", name))
    frame = pd.DataFrame(rows, columns=["image_id", "path", "sha256", "pixel_sha256", "lesion_id", "label"])
    write_json(run.summary_path, {"classes": classes, "task": "multiclass"})
    write_manifest(run, frame)
    split(run, spec)
    store_predictions(run, spec, skill=skill, seed=seed)
    return run, spec


def store_predictions(run: Any, spec: Any, *, skill: float = 2.0, seed: int = 0, **meta: Any) -> None:
    """Predictions of some skill for every part, as `score` leaves them."""
    from dermalyze.config.data import PARTS
    from dermalyze.data.manifest import read_classes
    from dermalyze.data.splitting import read_part
    from dermalyze.scoring.predictions import Predictions, write_predictions

    classes, generator = read_classes(run), np.random.default_rng(seed)
    for part in (part for part in PARTS if run.split_path(part).exists()):
        frame = read_part(run, part)
        labels = np.array([classes.index(label) for label in frame["label"]])
        logits = generator.normal(size=(len(frame), len(classes))) + skill * np.eye(len(classes))[labels]
        values = {
            "classes": classes, "set": part, "task": "multiclass", "recipe": spec.inference.recipe,
            "manifest_sha256": run.manifest_hash(), "model_sha256": "a" * 64, "accepted_leak": None, **meta,
        }  # fmt: skip
        path = run.predictions_path(part, spec.inference.recipe)
        write_predictions(path, Predictions(frame["image_id"].tolist(), frame["group"].tolist(), labels, logits, None, values))
