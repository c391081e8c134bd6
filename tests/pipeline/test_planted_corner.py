"""A network that was trained on a corner mark, and the page that names corner and class; and its twin without a mark."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from squares import HEIGHT, WIDTH, experiment, paint

from dermalyze.core.run import Run
from dermalyze.data.splitting import read_division
from dermalyze.explain.runner import Network
from dermalyze.imaging.inpaint import MARK
from dermalyze.stages.explain import explain
from dermalyze.workflows.pipeline import run_experiment

UPPER_RIGHT = 1
CORNER = slice(0, round(MARK * HEIGHT)), slice(WIDTH - round(MARK * WIDTH), WIDTH)


def explained(root: Path, **how: Any) -> tuple[Run, Any]:
    """A trained network on a set of its own, and what `explain` says of it."""
    spec = experiment(paint(root / "data", **how), inference={"recipe": "plain"})
    run_experiment(spec, root / "run", steps=("prepare", "split", "train", "export", "score"))
    run = Run(root / "run")
    return run, explain(run, spec, count=60, cases=1)


def accuracies(run: Run, images: Path) -> tuple[float, float, list[str]]:
    """On the test split as it is, and with the corner in the color of the skin beside it; and the class of each image."""
    network = Network.open(run)
    frame, parts = read_division(run)
    test = frame[parts == "test"]
    pixels = np.stack([np.asarray(Image.open(images / path)) for path in test["path"]])
    bare = pixels.copy()
    bare[:, *CORNER] = np.median(pixels[:, CORNER[0], : CORNER[1].start], axis=(1, 2))[:, None, None]
    labels = np.array([network.classes.index(label) for label in test["label"]])
    called, without = (network.predictor({})(some).argmax(axis=1) for some in (pixels, bare))
    return float((called == labels).mean()), float((without == labels).mean()), [network.classes[c] for c in called]


def test_the_corner_is_named_with_its_class(tmp_path: Path) -> None:
    run, found = explained(tmp_path, marked=True, corner=UPPER_RIGHT)
    whole, bare, called = accuracies(run, tmp_path / "data")
    assert whole > 0.95, "the network learnt the mark, or the rest shows nothing"
    assert bare < whole - 0.2, "and hangs on it"
    record = json.loads(run.explanations_path.read_text())
    suspected = {one["name"]: one for one in record["networks"][0]["rim"] if one["by_map"]}
    assert set(suspected) == {"mel"}
    where = suspected["mel"]["where"]
    assert next(iter(where)) == "upper right corner"
    assert where["upper right corner"] > 0.9 * Counter(called)["mel"]
    assert suspected["mel"]["over"]["low"] > 0.3
    assert suspected["mel"]["by_place"]
    assert suspected["mel"]["place"]["name"] == "upper right corner"
    said = "Shortcut suspected in run: mel depends on the border of the image"
    page = run.gallery_path.read_text()
    assert said in page
    assert f"Hottest: upper right corner ({where['upper right corner']})" in page
    assert sum(line.startswith(said) for line in found.lines()) == 2, "by the place and by the map"


def test_the_twin_without_a_mark_is_not_accused(tmp_path: Path) -> None:
    run, found = explained(tmp_path, marked=False)
    whole, bare, _ = accuracies(run, tmp_path / "data")
    assert whole > 0.65
    assert bare > whole - 0.05
    rim = json.loads(run.explanations_path.read_text())["networks"][0]["rim"]
    assert {one["name"] for one in rim if one["over"]["low"] is not None} == {"mel", "nv"}, "both classes were looked at"
    assert not any(one["by_map"] or one["by_place"] for one in rim)
    page = run.gallery_path.read_text()
    assert "Shortcut suspected" not in page + "\n".join(found.lines())
    assert "tested for shortcuts at the border: mel, nv" in page
    assert "none was found" in page
