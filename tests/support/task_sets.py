"""A set of images for each task. A new task adds one function here, and the contract suite takes it through every command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from painted_labels import paint_marks
from PIL import Image

CLASSES = ("bkl", "mel", "nv")
LABELS = ("bar", "disc", "frame")
SHARES = (0.5, 0.4, 0.5)
PAIRED = 8
"""Images that stand two a lesion; the others stand alone."""


def multiclass(folder: Path, images: int, seed: int) -> dict[str, Any]:
    """A third of the images has a bar, a third a disc, a third a frame; one in four has any of them."""
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.arange(images) % 3)
    classes[1:PAIRED:2] = classes[0:PAIRED:2]
    marks = np.eye(3, dtype=bool)[np.where(np.arange(images) % 4, classes, rng.integers(3, size=images))]
    write(folder, marks, seed, {"label": [CLASSES[c] for c in classes]})
    return {
        "task": {"kind": "multiclass"},
        "data": {"source": {"kind": "csv"}},
        "inference": {"calibration": "temperature"},
    }


def multilabel(folder: Path, images: int, seed: int) -> dict[str, Any]:
    """Each image has a bar, a disc and a frame or not; one in ten of these labels is wrong."""
    rng = np.random.default_rng(seed)
    labels = rng.random((images, 3)) < SHARES
    marks = labels ^ (rng.random((images, 3)) < 0.1)
    write(folder, marks, seed, {name: labels[:, c].astype(int).tolist() for c, name in enumerate(LABELS)})
    return {
        "task": {"kind": "multilabel"},
        "data": {"source": {"kind": "csv", "labels": list(LABELS)}},
        "inference": {"calibration": "platt"},
    }


SETS: dict[str, Callable[[Path, int, int], dict[str, Any]]] = {"multiclass": multiclass, "multilabel": multilabel}
"""(folder, images, seed): writes `set.csv` and its images; gives what an experiment on them says of task and source."""


def write(folder: Path, marks_N3: Any, seed: int, columns: dict[str, list[Any]]) -> None:
    """Images with marks, lesions, metadata and a column of their own."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    columns = {
        "image_id": [f"s{seed}n{n:03}" for n in range(len(marks_N3))],
        **columns,
        "lesion_id": [f"L{seed}{n // 2 if n < PAIRED else n}" for n in range(len(marks_N3))],
        "age": rng.integers(30, 80, len(marks_N3)).tolist(),
        "sex": rng.choice(["male", "female"], len(marks_N3)).tolist(),
        "center": rng.choice(["north", "south"], len(marks_N3)).tolist(),
    }
    columns["path"] = [f"{name}.png" for name in columns["image_id"]]
    for path, marks in zip(columns["path"], marks_N3, strict=True):
        Image.fromarray(paint_marks(rng, *marks)).save(folder / path)
    rows = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    (folder / "set.csv").write_text("\n".join([",".join(columns), *rows]) + "\n")


def experiment(folder: Path, task: dict[str, Any]) -> dict[str, Any]:
    """The smallest experiment that every command can work on."""
    return {
        "name": "forty",
        **task,
        "data": {**task["data"], "path": str(folder), "workers": 0},
        "preprocess": {"size": [24, 24]},
        "split": {"fractions": {"train": 0.3, "val": 0.15, "cal": 0.25, "test": 0.3}},
        "model": {"backbone": "tiny_cnn", "kwargs": {"channels": [4, 8, 8]}, "head": {"kind": "linear", "dropout": 0.2}},
        "train": {"epochs": 2, "batch_size": 8, "threads": 1, "augment": {"policy": "none"}, "optimizer": {"lr": 0.02}},
        "evaluate": {"resamples": 100},
    }
