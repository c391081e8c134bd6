"""A set of two images a case whose class is readable from the second one alone."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dermalyze.config.experiment import ExperimentSpec, build_experiment

CLASSES = ("mel", "nv")
CASES = 120
WITHOUT = 17
"""Every so many cases one has no second image."""


def write_cases(root: Path) -> Path:
    """120 cases: first images are noise of any class; second ones are dark (mel) or bright (nv). Every 17th has none."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(CASES):
        label = CLASSES[i % 2]
        _save(root / f"{i}.png", rng.integers(0, 256, (20, 24, 3)))
        _save(root / f"{i}b.png", {"mel": 70, "nv": 190}[label] + rng.normal(0, 25, (26, 20, 3)))
        row = {"image_id": f"i{i:03}", "path": f"{i}.png", "label": label, "lesion_id": f"l{i}", "age": 30 + i % 40}
        rows.append({**row, "clinical": "" if i % WITHOUT == 0 else f"{i}b.png"})
    write_table(root / "set.csv", rows)
    return root


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _save(path: Path, pixels: Any) -> None:
    Image.fromarray(np.asarray(pixels).clip(0, 255).astype(np.uint8)).save(path)


def case_spec(root: Path, second: str | None, **changes: Any) -> ExperimentSpec:
    """An experiment on the set; `model`, `data` and `inference` change those, the rest changes `train`."""
    model, data = changes.pop("model", {}), changes.pop("data", {})
    inference = changes.pop("inference", {})
    source = {"kind": "csv", "file": "set.csv", "columns": {"image_2_path": "clinical"}}
    return build_experiment(
        {
            "data": {"source": source, "path": str(root), "workers": 0, **data},
            "preprocess": {"size": [16, 16]},
            "model": {
                "backbone": "tiny_cnn", "kwargs": {"channels": [4, 8]}, "head": {"kind": "linear"},
                **({"image_2": {"kind": second}} if second else {}), **model,
            },
            "train": {
                "epochs": 8, "batch_size": 16, "threads": 1, "optimizer": {"lr": 0.01}, "augment": {"policy": "conservative"},
                "early_stopping": None, **changes,
            },
            "inference": {"recipe": "flips", **inference},
            "evaluate": {"resamples": 100},
        }
    )  # fmt: skip
