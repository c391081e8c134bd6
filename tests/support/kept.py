"""The values that `tests/pipeline/goldens.json` keeps: none depends on weights trained here, so any machine gets the same ones.

Its top imports nothing of dermalyze: `goldens.py` calls `packaged_answers` with the package of other commits.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
STORE = ROOT / "tests" / "pipeline" / "goldens.json"
TOLERANCE = 1e-6
PACKAGED = ("src/dermalyze/serve/small", "src/dermalyze/**/small")
"""Where the packaged model may are in a tree, newest last."""
RECORDS = ("artifact.json", "artefact.json")
OWN_IMAGES, OWN_SIZE = 3, (150, 200)
FEW = 16
IMAGES, REFERENCE, CLASSES, LABELS = 120, 80, ("bcc", "df", "mel", "nv"), ("bar", "disc", "frame")


def one(folder: Path, patterns: tuple[str, ...]) -> Path:
    """What the first pattern that matches anything matches, exactly one path."""
    for pattern in patterns:
        if len(found := sorted(folder.glob(pattern))) == 1:
            return found[0]
        if found:
            raise LookupError(f"{folder.name}: {pattern} matches {len(found)} paths")
    raise LookupError(f"{folder.name}: nothing matches {', '.join(patterns)}")


def ours(name: str) -> Any:
    """A function or class of the package, in whatever module it is defined."""
    package = Path(import_module("dermalyze").__file__ or "").parent
    for path in sorted(package.rglob("*.py")):
        if re.search(rf"^(def|class) {name}\b", path.read_text(encoding="utf-8"), re.MULTILINE):
            parts = ("dermalyze", *path.relative_to(package).with_suffix("").parts)
            return getattr(import_module(".".join(part for part in parts if part != "__init__")), name)
    raise LookupError(f"no function or class {name} in {package}")


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number inside JSON values, by its dotted path.

    >>> dict(flatten({"a": [1, {"b": 0.5}], "c": "text", "d": None}))
    {'a.0': 1.0, 'a.1.b': 0.5}
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from flatten(inner, f"{name}.{index}" if name else str(index))
    elif isinstance(value, int | float):
        yield name, float(value)


def own_images() -> list[np.ndarray]:
    """Coarse cells with noise on them, from a fixed seed; not of the network's size, so they are resized first."""
    rng, (height, width) = np.random.default_rng(11), OWN_SIZE
    images = []
    for _ in range(OWN_IMAGES):
        cells = rng.integers(60, 220, (height // 25, width // 25, 3)).repeat(25, axis=0).repeat(25, axis=1)
        images.append((cells + rng.integers(-20, 21, (height, width, 3))).astype(np.uint8))
    return images


def packaged_answers(tree: Path) -> dict[str, Any]:
    """What the packaged model of a tree answers to its reference images and to `own_images`."""
    predictor_class = import_module("dermalyze").Predictor
    folder = one(tree, PACKAGED)
    record = json.loads(one(folder, RECORDS).read_text())
    recorded, size = record["reference"], (record["preprocessing"]["height"], record["preprocessing"]["width"])
    predictor = predictor_class(folder, threads=1)
    if "pictures" in recorded:  # before 0.2
        images = ours("reference_pictures")(recorded["seed"], recorded["pictures"], *size)
    else:
        images = ours("reference_images")(recorded["seed"], recorded["images"], predictor.preprocessing.image)
    probabilities = predictor.probabilities(images).tolist()
    numbers = {"scores": True} if "scores" in signature(predictor.predict).parameters else {}  # since 0.2, of refused images
    return {
        "reference": [dict(zip(predictor.classes, row, strict=True)) for row in probabilities],
        "own": [dict(predictor.predict(image, **numbers)) for image in own_images()],
    }


def kept_answers() -> dict[str, list[float | None]]:
    """Probabilities per reference image and own image."""
    found = packaged_answers(ROOT)
    rows = {f"reference.{n}": list(answer.values()) for n, answer in enumerate(found["reference"])}
    return rows | {f"own.{n}": list(answer["probabilities"].values()) for n, answer in enumerate(found["own"])}


def _predictions(rows: int, seed: int, task: str) -> Any:
    """Rows of some skill, two per group."""
    from dermalyze.scoring.predictions import Predictions

    rng, names = np.random.default_rng(seed), LABELS if task == "multilabel" else CLASSES
    if task == "multilabel":
        labels = (rng.random((rows, len(names))) < (0.5, 0.3, 0.2)).astype(np.int64)
        logits = 4 * rng.random(labels.shape) - 3 + 2 * labels
    else:
        labels = rng.integers(0, len(names), rows)
        logits = 4 * rng.random((rows, len(names))) + 2 * np.eye(len(names))[labels]
    ids, groups = [f"{seed}-{n:03}" for n in range(rows)], [f"{seed}-{n // 2:02}" for n in range(rows)]
    meta = {"classes": list(names), "set": "test", "recipe": "plain", "task": task}
    return Predictions(ids, groups, labels, np.round(logits, 3), None, meta)


def kept_classes() -> dict[str, list[float | None]]:
    """The numbers of a report on predictions with one class per image."""
    from dermalyze.config.evaluate import EvaluateSpec
    from dermalyze.report.evaluation import measure
    from dermalyze.report.evaluation_data import Evaluation

    p, reference = _predictions(IMAGES, 0, "multiclass"), _predictions(REFERENCE, 1, "multiclass")
    answering = p.answering({"kind": "temperature", "parameters": {"temperature": 1.3}})
    return _short(
        measure(Evaluation(p, EvaluateSpec(resamples=200, sensitivity=(0.95,)), answering, None, reference)), "per_class"
    )


def kept_labels() -> dict[str, list[float | None]]:
    """The numbers of a report on predictions with several labels per image."""
    from dermalyze.config.evaluate import EvaluateSpec
    from dermalyze.report.evaluation import measure
    from dermalyze.report.evaluation_data import Evaluation

    p = _predictions(IMAGES, 2, "multilabel")
    platt = {"kind": "platt", "parameters": {"scale": [1.1, 0.9, 1.2], "bias": [0.3, 0.0, -0.2]}}
    answering = p.answering({**platt, "thresholds": dict(zip(LABELS, (0.5, 0.4, 0.3), strict=True))})
    return _short(measure(Evaluation(p, EvaluateSpec(resamples=200), answering)), "per_class")


def _short(report: Mapping[str, Any], each: str) -> dict[str, list[float | None]]:
    """[value, low, high] of each metric, and the numbers of every other section.

    Of more than `FEW`: how many there are, their sum, and the sum of each divided by its place, which sees two exchanged.
    """
    kept = {f"metrics.{name}": _estimate(found) for name, found in report["metrics"].items()}
    for name, figures in report[each].items():
        kept |= {f"{each}.{name}.{key}": _estimate(found) for key, found in figures.items() if isinstance(found, Mapping)}
    for section, values in report.items():
        numbers = [number for _, number in flatten(values) if math.isfinite(number)]
        if section not in ("metrics", each) and numbers:
            sums = [len(numbers), math.fsum(numbers), math.fsum(n / place for place, n in enumerate(numbers, 1))]
            kept |= {section: numbers} if len(numbers) <= FEW else {f"{section}: count and sums": sums}
    return kept


def _estimate(found: Mapping[str, Any]) -> list[float | None]:
    return [found["value"], found["low"], found["high"]]


KEPT = {"packaged model": kept_answers, "one class per image": kept_classes, "several labels per image": kept_labels}


def write() -> None:
    """Compute all of them again and keep them, one line each."""
    groups = []
    for group, compute in KEPT.items():
        lines = [f"    {json.dumps(name)}: {json.dumps(values)}" for name, values in _rounded(compute()).items()]
        groups.append(f"  {json.dumps(group)}: {{\n" + ",\n".join(lines) + "\n  }")
    STORE.write_text("{\n" + ",\n".join(groups) + "\n}\n")


def _rounded(rows: Mapping[str, list[float | None]]) -> dict[str, list[float | None]]:
    return {name: [None if value is None else round(value, 9) for value in values] for name, values in rows.items()}
