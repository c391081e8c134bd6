"""A small set of images with several painted attributes each, or none, and a run on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermalyze.config.experiment import ExperimentSpec, build_experiment

LABELS = ("bar", "disc", "frame")
SHARES = (0.5, 0.3, 0.2)


def paint_set(root: Path, *, images: int = 96, seed: int = 0, columns: bool = True) -> Path:
    """Images of 24 x 24 px with a red bar, a green disc and a blue frame, each there or not, two a patient, and `set.csv`."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True)
    there = rng.random((images, len(LABELS))) < SHARES
    head = ["image_id", "patient_id", "age", *(LABELS if columns else ["label"])]
    lines = [",".join(head)]
    for n, (bar, disc, frame) in enumerate(there):
        Image.fromarray(paint_marks(rng, bar, disc, frame)).save(root / f"p{n:03}.png")
        words = [str(int(value)) for value in (bar, disc, frame)]
        text = "|".join(name for name, value in zip(LABELS, (bar, disc, frame), strict=True) if value)
        lines.append(",".join([f"p{n:03}", f"P{n // 2:03}", str(30 + n % 50), *(words if columns else [text])]))
    (root / "set.csv").write_text("\n".join(lines) + "\n")
    return root


def paint_marks(rng: np.random.Generator, bar: bool, disc: bool, frame: bool) -> NDArray[np.uint8]:
    """(24, 24, 3) noise with a red bar, a green disc and a blue frame, or without."""
    y, x = np.mgrid[:24, :24]
    picture = rng.integers(90, 140, (24, 24, 3))
    middle = rng.integers(8, 16, 2)
    if bar:
        picture[middle[0] - 2 : middle[0] + 2, :, 0] += 110
    if disc:
        picture[(x - middle[1]) ** 2 + (y - middle[0]) ** 2 < 25, 1] += 110
    if frame:
        picture[(x < 3) | (x > 20) | (y < 3) | (y > 20), 2] += 110
    return picture.clip(0, 255).astype(np.uint8)


def label_spec(folder: Path, **changes: Any) -> ExperimentSpec:
    """An experiment on `paint_set`; mappings are merged into its sections."""
    values: dict[str, Any] = {
        "name": "painted",
        "task": {"kind": "multilabel"},
        "data": {"source": {"kind": "csv", "labels": list(LABELS), "extension": ".png"}, "path": str(folder), "workers": 0},
        "preprocess": {"size": [24, 24]},
        "split": {"fractions": {"train": 0.5, "val": 0.15, "cal": 0.15, "test": 0.2}},
        "model": {"backbone": "tiny_cnn", "kwargs": {"channels": [8, 16]}, "head": {"kind": "linear"}},
        "train": {
            "epochs": 3, "batch_size": 16, "threads": 1, "augment": {"policy": "none"}, "optimizer": {"lr": 0.02},
            "checkpoint_minutes": 1e-6,
        },
        "evaluate": {"resamples": 100},
    }  # fmt: skip
    for section, change in changes.items():
        values[section] = {**values.get(section, {}), **change} if isinstance(change, dict) else change
    return build_experiment(values)
