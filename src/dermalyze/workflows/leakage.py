"""What a random split would have flattered: the same network trained twice, on images divided at random and by group."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dermalyze.config.data import PARTS
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.atomic import write_bytes, write_json
from dermalyze.core.progress import say
from dermalyze.core.result import DISCLAIMER
from dermalyze.core.run import Run, differences
from dermalyze.data.grouping import leaks
from dermalyze.data.manifest import read_classes, read_manifest
from dermalyze.data.splitting import assign, read_division
from dermalyze.errors import DataError
from dermalyze.metrics.difference import Scored, class_mix, compare
from dermalyze.report.evaluation import versions
from dermalyze.report.figures import interval_text
from dermalyze.report.leak_bill import leak_bill_figure
from dermalyze.report.text import MEANINGS_OF
from dermalyze.rng import permutation
from dermalyze.scoring.predictions import Predictions, read_predictions
from dermalyze.tasks.base import TASKS
from dermalyze.workflows.pipeline import STEPS
from dermalyze.workflows.small_fits import begin, fit, guess, settings_of_fits

REASON = "leak bill: images divided at random, groups ignored, to measure what that flatters"
KINDS = ("random", "grouped")


@dataclass(frozen=True)
class LeakageResult:
    """The bill.

    Attributes:
        bill: the content of report/leak_bill.json.
        files: that file and its figure.
    """

    bill: dict[str, Any]
    files: tuple[Path, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values: the bill, and where its figure is."""
        return {**self.bill, "figure": str(self.files[1])}

    def lines(self) -> list[str]:
        """Lines for a person: what leaked, then each comparison as a table."""
        b = self.bill
        lines = [
            f"{b['title']}: {b['settings']['epochs']} epochs each, {b['leak']['test_images']} test images each",
            f"random split: {b['leak']['groups_crossing']} of {b['leak']['groups']} groups are in several "
            f"parts; {b['leak']['test_images_known']} test images show one that was trained on",
        ]
        for c in b["comparisons"]:
            lines += ["", c["question"], f"{'':<26}{side(c['a']):<44}{side(c['b']):<44}difference"]
            for name, title in titles_of(b["task"]).items():
                m = c["metrics"][name]
                lines.append(f"{title:<26}{interval_text(m['a']):<44}{interval_text(m['b']):<44}{signed(m['difference'])}")
        return [*lines, "", *b["notes"], f"figure: {self.files[1]}", b["disclaimer"]]


def leakage(run: Run, spec: ExperimentSpec, *, epochs: int = 10, sets: Sequence[str] = ()) -> LeakageResult:
    """Train the run's network on a random image-level split and on a grouped one, and show what the leak flatters.

    Both trainings have the same network, settings, seed and number of steps, and as many images of each class in each part.
    They are ordinary runs in `RUN/leak_bill/random` and `grouped`, continued where they stopped; everything that comes of the
    first carries the reason for which its leak was accepted. Three comparisons, each with intervals by a joint bootstrap over
    groups:

    - the two test parts, as one would have reported them: the bill;
    - within the random split, test images of groups that were trained on against the others, at the same class mix;
    - the very same images, held out by both: those whose group the random-split model has seen, and, as a control, the others.

    Args:
        run: prepared and split. The grouped split is its own; where that leaks, the one that `split` would make.
        spec: its experiment. Early stopping is off, so that both get the same budget, and the recipe is `plain`.
        epochs: of each training.
        sets: further settings of both, such as `preprocess.size=[96,128]`; not of data or split.

    Raises:
        UsageError: not split yet; fewer than 1 epoch; settings of data or split, or other ones than were begun with.
        DataError: no group has two images, so that no random split can leak here.
        InterruptedRunError: a signal came; the same call continues.
        DermalyzeError: whatever a training refuses.
    """
    run.require_writable()
    small = settings_of_fits(spec, epochs, sets, "leakage")
    classes = read_classes(run)
    frame, own = read_division(run)
    if frame["group"].nunique() == len(frame):
        raise DataError(f"{run.root.name}: no group has two images, so a random split cannot leak here: there is no bill")
    grouped = assign(frame, spec.split, classes=classes, task=TASKS[spec.task.kind]) if leaks(frame, own) else own
    parts = {"random": at_random(frame, grouped, small.seed), "grouped": grouped}
    subs = {kind: inner_run(run, kind, small, frame["image_id"], parts[kind]) for kind in KINDS}
    train = int((grouped == "train").sum())
    say(f"leakage: 2 trainings of {small.train.epochs} epochs over {train} images{guess(run, small, train, fits=2)}")
    for number, (kind, sub) in enumerate(subs.items(), start=1):
        say(f"leakage {number}/2: {kind} split")
        steps = [step for step in STEPS if step not in ("prepare", "audit")]
        fit(sub, accept_leak=REASON if kind == "random" else None, steps=steps, again=f"dermalyze leakage {run.root}")
    held_out = {kind: read_held_out(subs[kind], small.inference.recipe) for kind in KINDS}
    bill = {
        "schema_version": 1,
        "title": f"Leak bill of {spec.name}",
        "task": spec.task.kind,
        "settings": {
            "epochs": small.train.epochs,
            "seed": small.seed,
            "changed": [name for name in differences(spec, small) if name != "name"],
            "accepted_leak_of_random": REASON,
        },
        **compare_all(frame, parts, held_out, small),
        "provenance": {
            "manifest_sha256": run.manifest_hash(),
            "model_sha256": {kind: held_out[kind]["test"].meta.get("model_sha256") for kind in KINDS},
            "versions": versions(),
        },
        "disclaimer": DISCLAIMER,
    }
    write_bytes(run.leak_bill_figure_path, leak_bill_figure(bill, titles_of(spec.task.kind)))
    write_json(run.leak_bill_path, bill)
    return LeakageResult(bill, (run.leak_bill_path, run.leak_bill_figure_path))


def at_random(frame: pd.DataFrame, parts: pd.Series, seed: int) -> pd.Series:
    """The same parts dealt out again among the images of each class, groups ignored: as many of each class in each part.

    >>> frame = pd.DataFrame({"label": ["a", "a", "a", "b"]})
    >>> at_random(frame, pd.Series(["train", "test", "train", "val"]), seed=0).tolist()
    ['train', 'train', 'test', 'val']
    """
    dealt = parts.copy()
    for number, (_, rows) in enumerate(parts.groupby(frame["label"], sort=True)):
        dealt[rows.index] = rows.to_numpy()[permutation(seed, number, len(rows))]
    return dealt


def inner_run(run: Run, kind: str, spec: ExperimentSpec, ids: pd.Series, parts: pd.Series) -> Run:
    """The run inside the run, on the same images in other parts."""
    part_of = dict(zip(ids, parts, strict=True))
    manifest = read_manifest(run)
    manifest["split"] = [part_of.get(image_id) for image_id in manifest["image_id"]]
    spec = spec.model_copy(update={"name": f"{spec.name[:60]} {kind} split"})
    return begin(run, run.leak_bill_run(kind), spec, manifest, "leakage")


def read_held_out(run: Run, recipe: str) -> dict[str, Predictions]:
    """Predictions of every part but train."""
    paths = {part: run.predictions_path(part, recipe) for part in PARTS if part != "train"}
    return {part: read_predictions(path) for part, path in paths.items() if path.exists()}


# -- comparing ------------------------------------------------------------------------------------------------------------


def compare_all(
    frame: pd.DataFrame, parts: dict[str, pd.Series], held_out: dict[str, dict[str, Predictions]], spec: ExperimentSpec
) -> dict[str, Any]:
    """What leaked, and the comparisons; see `leakage`.

    Args:
        frame: manifest rows with `image_id` and `group`.
        parts: of each row, by kind.
        held_out: predictions of the parts that were not trained on, by kind.
        spec: for `evaluate`.
    """
    trained_on = set(frame.loc[parts["random"] == "train", "group"])
    known = set(frame.loc[frame["group"].isin(trained_on) & (parts["random"] != "train"), "image_id"])
    random, grouped = held_out["random"]["test"], held_out["grouped"]["test"]
    every = {kind: joined(held_out[kind].values()) for kind in KINDS}
    both = set(every["random"].ids) & set(every["grouped"].ids)
    task = TASKS[spec.task.kind]
    metrics = {name: f for name, f in task.overall_metrics(spec.evaluate.ece_bins).items() if name in task.compared["leakage"]}
    settings: dict[str, Any] = {"resamples": spec.evaluate.resamples, "level": spec.evaluate.level, "seed": spec.evaluate.seed}
    seen, new = rows_of(random, set(random.ids) & known), rows_of(random, set(random.ids) - known)
    mix = class_mix(random.labels[new], random.labels[seen])

    def one(key: str, question: str, a: tuple[str, Scored], b: tuple[str, Scored]) -> dict[str, Any]:
        found = compare(a[1], b[1], metrics, **settings)
        sides = {
            letter: {"name": name, "images": len(scored.groups), "groups": len(set(scored.groups))}
            for letter, (name, scored) in (("a", a), ("b", b))
        }
        estimates = {name: {which: value.as_dict() for which, value in each.items()} for name, each in found.items()}
        return {"key": key, "question": question, **sides, "metrics": estimates}

    def same_images(key: str, question: str, ids: Collection[str]) -> dict[str, Any]:
        a, b = ((f"{kind} split", scored_of(every[kind], rows_of(every[kind], ids))) for kind in KINDS)
        return one(key, question, a, b)

    everything = {kind: scored_of(p, np.arange(len(p))) for kind, p in (("random", random), ("grouped", grouped))}
    crossing = leaks(frame, parts["random"])
    return {
        "leak": {
            "groups": int(frame["group"].nunique()),
            "groups_crossing": len(crossing),
            "test_images": len(random),
            "test_images_known": len(seen),
        },
        "comparisons": [
            one(
                "test_parts",
                "The bill: each split's own test split, as it would have been reported",
                ("random split", everything["random"]),
                ("grouped split", everything["grouped"]),
            ),
            one(
                "within_random",
                "Within the random split: test images of groups that were trained on, and of others at the same "
                f"{task.noun} mix",
                ("group trained on", scored_of(random, seen)),
                ("group new", scored_of(random, new, mix)),
            ),
            same_images("same_known", "The same held-out images, their group trained on in the random split", both & known),
            same_images("same_new", "Control: the same held-out images, their group new to both", both - known),
        ],
        "level": spec.evaluate.level,
        "resamples": spec.evaluate.resamples,
        "notes": [
            f"Intervals: {100 * spec.evaluate.level:g} %, {spec.evaluate.resamples:,} resamples over groups, drawn together "
            "for both sides; one training each, so the chance of a training is not in them.",
            "Groups with several photographs may be harder or easier than others, so the second comparison mixes that with "
            "the leak; the third, on the same images, does not.",
            "Held-out images are those of val, cal and test in both splits. For log loss, less is better.",
        ],
    }


def joined(parts: Collection[Predictions]) -> Predictions:
    """Predictions of several parts as one set."""
    several = list(parts)
    return Predictions(
        ids=[i for p in several for i in p.ids],
        groups=[g for p in several for g in p.groups],
        labels=np.concatenate([p.labels for p in several]),
        logits=np.concatenate([p.logits for p in several]),
        embedding=None,
        meta=several[0].meta,
    )


def rows_of(p: Predictions, ids: Collection[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Rows of the given images, ordered by image_id, so that two models' rows answer to each other."""
    row_of = {image_id: row for row, image_id in enumerate(p.ids)}
    return np.array([row_of[image_id] for image_id in sorted(ids)], dtype=np.int64)


def scored_of(
    p: Predictions, rows: np.ndarray[Any, np.dtype[np.int64]], weights: np.ndarray[Any, np.dtype[np.float64]] | None = None
) -> Scored:
    """Some rows as a side of a comparison; the group of an image is the same in both splits."""
    return Scored(p.task.scores(p.labels[rows], p.probs()[rows]), [p.groups[row] for row in rows], weights)


# -- words ----------------------------------------------------------------------------------------------------------------


def side(values: dict[str, Any]) -> str:
    """A column's head.

    >>> side({"name": "random split", "images": 9, "groups": 5})
    'random split (9 images, 5 groups)'
    """
    return f"{values['name']} ({values['images']} images, {values['groups']} groups)"


def titles_of(kind: str) -> dict[str, str]:
    """The compared metrics of a task, and their names for a person.

    >>> list(titles_of("multiclass").values())
    ['accuracy', 'balanced accuracy', 'macro AUROC', 'log loss']
    """
    return {name: MEANINGS_OF[kind][name][0] for name in TASKS[kind].compared["leakage"]}


def signed(estimate: dict[str, Any]) -> str:
    """A difference with its sign and interval.

    >>> signed({"value": 0.02, "low": -0.01, "high": 0.05, "n": 9, "note": ""})
    '+0.020 (-0.010 to +0.050)'
    """
    if estimate["value"] is None:
        return str(estimate["note"])
    if estimate["low"] is None:
        return f"{estimate['value']:+.3f}"
    return f"{estimate['value']:+.3f} ({estimate['low']:+.3f} to {estimate['high']:+.3f})"
