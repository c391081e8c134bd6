"""A set that a tiny network learns within seconds: square lesions on skin, and perhaps ink in a corner that tells the class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dermalyze.config.experiment import ExperimentSpec, build_experiment
from dermalyze.imaging.inpaint import mark

LESIONS, HEIGHT, WIDTH = 150, 32, 40
EPOCHS = 8
INNER = slice(10, 22), slice(12, 28)  # the lesion, well within the border ring


def paint(
    root: Path, *, marked: bool, masks: bool = True, corner: int | None = None, telling: bool | None = None, seed: int = 1
) -> Path:
    """Square lesions on skin of random colors; the class is their darkness, more or less, or ink in a corner, or both.

    Args:
        root: the folder to make.
        marked: every "mel" has a mark, and no "nv".
        masks: of the lesions.
        corner: of the mark, 0..3; None: any.
        telling: whether the darkness tells the class; default: where nothing is marked.
        seed: another one, other images.
    """
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    rows = ["image_id,path,label,lesion_id" + (",mask_path" if masks else "")]
    telling = not marked if telling is None else telling
    for lesion in range(LESIONS):
        label = ("mel", "nv")[lesion % 2]
        image = rng.normal(rng.uniform(150, 220, 3), 12, (HEIGHT, WIDTH, 3))
        dark = rng.uniform(60, 115) if not telling or label == "mel" else rng.uniform(80, 135)
        image[INNER] = rng.normal(dark, 12, (12, 16, 3))
        pixels = np.clip(image, 0, 255).astype(np.uint8)
        if marked and label == "mel":
            pixels = mark(pixels, int(rng.integers(4)) if corner is None else corner)
        name = f"i{lesion:03}"
        Image.fromarray(pixels).save(root / "images" / f"{name}.png")
        if masks:
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[INNER] = 255
            Image.fromarray(mask).save(root / "images" / f"{name}_mask.png")
        rows.append(f"{name},images/{name}.png,{label},L{lesion:03}" + (f",images/{name}_mask.png" if masks else ""))
    (root / "set.csv").write_text("\n".join(rows) + "\n")
    return root


def experiment(folder: Path, **changes: Any) -> ExperimentSpec:
    """A tiny network on such a set."""
    return build_experiment(
        {
            "name": "squares",
            "data": {"path": str(folder), "source": {"kind": "csv"}, "workers": 0},
            "preprocess": {"size": [HEIGHT, WIDTH]},
            "split": {"fractions": {"train": 0.5, "val": 0.1, "test": 0.4}},
            "model": {"backbone": "tiny_cnn", "kwargs": {"channels": [8, 16]}, "head": {"kind": "linear", "dropout": 0.0}},
            "train": {
                "epochs": EPOCHS, "batch_size": 8, "threads": 1, "optimizer": {"lr": 0.02}, "schedule": {"kind": "one_cycle"},
                "augment": {"policy": "none"}, "early_stopping": None,
            },
            "evaluate": {"resamples": 200},
            **changes,
        }
    )  # fmt: skip
