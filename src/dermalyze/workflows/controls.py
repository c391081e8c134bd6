"""Negative controls: trainings and tests whose outcome is known beforehand, and what they say about this run and its set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dermalyze.artifact.artifact import open_export
from dermalyze.audit.metadata_baseline import metadata_model
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.atomic import write_json
from dermalyze.core.progress import say
from dermalyze.core.result import DISCLAIMER
from dermalyze.core.run import Run, differences, read_json
from dermalyze.data.manifest import read_classes, read_manifest
from dermalyze.data.sources.cards import focus_of
from dermalyze.data.splitting import read_division, require_no_leak
from dermalyze.errors import DataError, UsageError, nearest
from dermalyze.metrics.bootstrap import Estimate, estimates
from dermalyze.metrics.difference import Scored, compare
from dermalyze.report.controls import line
from dermalyze.report.evaluation import versions
from dermalyze.rng import permutation
from dermalyze.scoring.predictions import Predictions, read_predictions
from dermalyze.tasks.base import TASKS, Task
from dermalyze.workflows.control_images import ControlImages, with_splits
from dermalyze.workflows.shortcuts import TOLERANCE, Summary, exchange_borders, planted_mark, telling
from dermalyze.workflows.small_fits import begin, fit, guess, settings_of_fits

FITS = {"shuffled": 1, "metadata": 0, "foreground": 1, "background": 1, "border": 1, "shortcut": 0, "planted": 1}
"""Every control, and how many trainings it takes; `foreground`, `background` and `border` share one more, on whole images."""
PAINTED = ("foreground", "background", "border")
STEPS = ("split", "train", "export", "score")
SHUFFLE = 5  # stream of `dermalyze.rng`


@dataclass(frozen=True)
class ControlsResult:
    """What the controls found.

    Attributes:
        found: the content of report/controls.json.
        path: that file.
    """

    found: dict[str, Any]
    path: Path

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**self.found, "file": str(self.path)}

    def lines(self) -> list[str]:
        """Lines for a person: one per control, with its verdict."""
        c = self.found
        return [
            f"{c['title']}: trainings of {c['settings']['epochs']} epochs",
            *(line(name, control) for name, control in c["controls"].items()),
            *c["notes"],
            f"file: {self.path}; it comes onto the page with: dermalyze evaluate RUN",
            c["disclaimer"],
        ]


def controls(
    run: Run, spec: ExperimentSpec, *, only: Sequence[str] = (), epochs: int = 6, sets: Sequence[str] = ()
) -> ControlsResult:
    """Try what must fail, and what must not succeed; see `FITS` for the names.

    - shuffled: labels dealt out again among the groups of each part. The interval of the macro AUROC must cover .5.
    - metadata: age, sex, site and source without an image, beside the run's own model.
    - foreground, background, border: the foreground alone (all else in its mean color), all but its box, a border ring
      without that box. What tells the class without it is a give-away of the set (Bissoto et al. 2019,
      arXiv:1904.08818).
    - shortcut: the run's own model on test images with the border of another image: of the same class, or of another
      class. The difference is what the model takes from borders.
    - planted: a mark of ink in training images of one class; the measure of `shortcut` must find it.

    Trainings are ordinary runs in `RUN/controls/`, continued where they stopped. Controls done before with the same settings
    stay in the file.

    Args:
        run: prepared and split; exported, for `shortcut`.
        spec: its experiment. Early stopping is off in the trainings, and the recipe is `plain`.
        only: some controls; default: all that can be done.
        epochs: of each training.
        sets: further settings of the trainings, such as `preprocess.size=[96,128]`; not of data or split.

    Raises:
        UsageError: unknown names; not split, or not exported and `shortcut` asked for; other settings than were begun with.
        DataError: `foreground` or `background` asked for on a set without masks.
        LeakError: the split leaks.
        InterruptedRunError: a signal came; the same call continues.
        DermalyzeError: whatever a training refuses.
    """
    for name in only:
        if name not in FITS:
            raise UsageError(f"--only {name}: allowed are {', '.join(FITS)}{nearest(name, list(FITS))}")
    run.require_writable()
    require_no_leak(run, None)
    work = Work.begin(run, settings_of_fits(spec, epochs, sets, "controls"))
    names = [name for name in FITS if name in (only or FITS)]
    cannot = {name: why for name in names if (why := work.why_not(name)) is not None}
    if only and cannot:
        first, (error, reason) = next(iter(cannot.items()))
        raise error(f"--only {first}: {reason}")
    todo = [name for name in names if name not in cannot]
    fits = sum(FITS[name] for name in todo) + any(name in PAINTED for name in todo)
    train = int((work.parts == "train").sum())
    cost = "no training"
    if fits:
        cost = f"{fits} trainings of {epochs} epochs over {train} images{guess(run, work.small, train, fits)}"
    say(f"controls {', '.join(todo)}: {cost}")
    work.control_images.paint([name for name in todo if name in (*PAINTED, "planted")], work.target, work.parts)
    found: dict[str, Any] = {
        name: {"verdict": "not estimable", "why": why.partition(";")[0]} for name, (_, why) in cannot.items()
    }
    for number, name in enumerate(todo, start=1):
        say(f"control {number}/{len(todo)}: {name}")
        found[name] = {**CONTROLS[name](work), "noun": work.task.noun}
        say(line(name, found[name]))
        store(work, found)
    return ControlsResult(store(work, found), run.controls_path)


@dataclass(frozen=True)
class Work:
    """What the controls share.

    Attributes:
        run, full: the outer run, and its experiment for short trainings.
        small: the same with the first image alone, which is what the painted copies are of.
        frame, parts: usable manifest rows with `group`, and the part of each.
        classes: in the order of the model's outputs.
        target: the class whose training images are marked: the first of `evaluate.focus`, else the second most frequent.
        control_images: at the size of the trainings.
    """

    run: Run
    full: ExperimentSpec
    small: ExperimentSpec
    frame: pd.DataFrame
    parts: pd.Series
    classes: list[str]
    target: str
    control_images: ControlImages

    @classmethod
    def begin(cls, run: Run, full: ExperimentSpec) -> Work:
        small = full.model_copy(update={"model": full.model.model_copy(update={"image_2": None})})
        frame, parts = read_division(run)
        classes = read_classes(run)
        task = TASKS[small.task.kind]
        targets = task.targets(frame.loc[parts == "train", "label"].tolist(), classes)
        counts = dict(zip(classes, task.membership(targets, len(classes)).sum(axis=0).tolist(), strict=True))
        focus = focus_of(small.evaluate, classes, small.data)
        target = focus[0] if focus else sorted(classes, key=lambda name: -counts[name])[1]
        return cls(run, full, small, frame, parts, classes, target, ControlImages(run, small, frame))

    @property
    def judging(self) -> Summary:
        e = self.small.evaluate
        return Summary(self.task, self.classes, e.resamples, e.level, e.seed)

    @property
    def task(self) -> Task:
        return TASKS[self.small.task.kind]

    @property
    def part_of(self) -> dict[str, str]:
        return dict(zip(self.frame["image_id"], self.parts, strict=True))

    def why_not(self, name: str) -> tuple[type[UsageError | DataError], str] | None:
        """Why a control cannot be done."""
        if name in ("foreground", "background") and not self.control_images.has_masks:
            return DataError, "the set has no masks; leave it out, or name them in a mask_path column and prepare again"
        if name == "shortcut" and not self.run.describe()["export"]:
            return UsageError, f"the run has no exported model; run first: dermalyze export {self.run.root}"
        return None

    def trained(self, kind: str, spec: ExperimentSpec, manifest: pd.DataFrame) -> Run:
        """An inner run, trained and scored."""
        spec = spec.model_copy(update={"name": f"{spec.name[:60]} {kind}"})
        sub = begin(self.run, self.run.control_run(kind), spec, manifest, "controls")
        fit(sub, accept_leak=None, steps=STEPS, again=f"dermalyze controls {self.run.root}")
        return sub

    def tested(self, sub: Run) -> Predictions:
        """An inner run's predictions of the test split."""
        return read_predictions(sub.predictions_path("test", self.small.inference.recipe))

    def whole(self) -> Predictions:
        """What the same budget reaches on whole images; trained once."""
        return self.tested(self.trained("whole", self.small, with_splits(read_manifest(self.run), self.part_of)))

    def areas(self, p: Predictions) -> dict[str, Any]:
        """Macro AUROC, and each class's with intervals that hold for all classes together (Bonferroni)."""
        scores, j = p.task.scores(p.labels, p.probs()), self.judging
        options: dict[str, Any] = {"resamples": j.resamples, "seed": j.seed, "names": self.classes}
        macro = estimates(scores, p.groups, {"macro": j.overall["macro_auroc"]}, level=j.level, **options)["macro"]
        each = estimates(scores, p.groups, {"each": j.each_auroc}, level=j.class_level, **options)["each"]
        assert isinstance(macro, Estimate)
        assert isinstance(each, list)
        return {
            "images": len(p),
            "groups": len(set(p.groups)),
            "macro_auroc": macro.as_dict(),
            "per_class": {name: found.as_dict() for name, found in zip(self.classes, each, strict=True)},
            "class_level": j.class_level,
        }


# -- the controls ---------------------------------------------------------------------------------------------------------


def shuffled(work: Work) -> dict[str, Any]:
    """Train and test on labels that say nothing."""
    manifest = with_splits(read_manifest(work.run), work.part_of)
    label_of = dict(zip(work.frame["image_id"], shuffle(work.frame, work.parts, work.small.seed), strict=True))
    manifest["label"] = [label_of.get(i, label) for i, label in zip(manifest["image_id"], manifest["label"], strict=True)]
    found = work.areas(work.tested(work.trained("shuffled", work.full, manifest)))
    macro = found["macro_auroc"]
    if macro["low"] is None:
        return {"verdict": "not estimable", "why": macro["note"], **found}
    return {"verdict": "holds" if macro["low"] <= 0.5 <= macro["high"] else "suspicious", **found}


def metadata(work: Work) -> dict[str, Any]:
    """How much age, sex, site and source tell without an image, beside the run's own model where it has been evaluated."""
    found = metadata_model(work.frame, work.task, work.classes)
    if found is None:
        return {"verdict": "not estimable", "why": "no column of age, sex, site or source varies"}
    own = read_json(work.run.evaluation_path)["metrics"]["macro_auroc"] if work.run.evaluation_path.exists() else None
    beaten = own is not None and own["value"] is not None and (found.macro_auroc.low or 0.0) >= own["value"]
    return {
        "verdict": "suspicious" if beaten or found.findings() else "holds",
        **found.as_dict(),
        "own": own,
        "findings": [finding.detail for finding in found.findings()],
    }


def painted(kind: str) -> Callable[[Work], dict[str, Any]]:
    """Train and test on images of which only a part is left."""

    def control(work: Work) -> dict[str, Any]:
        whole, control_images = work.whole(), work.control_images
        manifest = control_images.manifest(kind, work.target, work.part_of)
        p = work.tested(work.trained(kind, control_images.experiment(kind, work.target), manifest))
        j, kept = work.judging, set(p.ids)
        a, b = scored(whole, kept), scored(p, kept)
        metric = {"macro_auroc": j.overall["macro_auroc"]}
        compared = compare(a, b, metric, resamples=j.resamples, level=j.level, seed=j.seed)["macro_auroc"]
        found = {
            **work.areas(p),
            "whole": compared["a"].as_dict(),
            "difference": compared["difference"].as_dict(),
            "masks": control_images.has_masks,
            "left_out": int((~control_images.used(kind)).sum()),
        }
        macro = found["macro_auroc"]
        found["telling"] = telling(found["per_class"], 0.5 + TOLERANCE)
        if macro["low"] is None:
            return {"verdict": "not estimable", "why": macro["note"], **found}
        if kind == "foreground":
            return {"verdict": "holds" if macro["low"] > 0.5 else "suspicious", **found}
        return {"verdict": "suspicious" if macro["low"] > 0.5 + TOLERANCE or found["telling"] else "holds", **found}

    return control


def shortcut(work: Work) -> dict[str, Any]:
    """What the run's own model takes from the borders of its test images."""
    spec = work.run.config()
    artifact = open_export(work.run, spec.inference.recipe, threads=work.small.train.threads)
    control_images = ControlImages(work.run, spec, work.frame, artifact)
    return exchange_borders(artifact, spec.inference.recipe, control_images, work.parts, work.judging)


def planted(work: Work) -> dict[str, Any]:
    """Train on images in which a mark goes with one class, and see whether that is found."""
    control_images = work.control_images
    manifest = control_images.manifest("planted", work.target, work.part_of)
    sub = work.trained("planted", control_images.experiment("planted", work.target), manifest)
    recipe = work.small.inference.recipe
    artifact = open_export(sub, recipe, threads=work.small.train.threads)
    return planted_mark(artifact, recipe, control_images, work.parts, work.judging, work.target)


CONTROLS: Mapping[str, Callable[[Work], dict[str, Any]]] = {
    "shuffled": shuffled,
    "metadata": metadata,
    **{kind: painted(kind) for kind in PAINTED},
    "shortcut": shortcut,
    "planted": planted,
}


def shuffle(frame: pd.DataFrame, parts: pd.Series, seed: int) -> list[str]:
    """A label for each row: those of the groups, dealt out again among the groups of each part.

    A group keeps one label, that of its first image before; every part keeps as many groups of each class.

    >>> frame = pd.DataFrame({"group": ["a", "a", "b", "c"], "label": ["mel", "mel", "nv", "nv"]})
    >>> labels = shuffle(frame, pd.Series(["train"] * 4), seed=2)
    >>> labels[0] == labels[1], sorted(labels[1:])
    (True, ['mel', 'nv', 'nv'])
    """
    drawn: dict[tuple[str, str], str] = {}
    for number, (part, rows) in enumerate(frame.groupby(parts.to_numpy(), sort=True)):
        first = rows.drop_duplicates("group")
        order = permutation(seed, number, len(first), stream=SHUFFLE)
        drawn |= {(part, group): label for group, label in zip(first["group"], first["label"].to_numpy()[order], strict=True)}
    return [drawn[part, group] for part, group in zip(parts, frame["group"], strict=True)]


def scored(p: Predictions, ids: set[str]) -> Scored:
    """Some images as a side of a comparison, in order of image_id."""
    row_of = {image_id: row for row, image_id in enumerate(p.ids)}
    rows = np.array([row_of[image_id] for image_id in sorted(ids)], dtype=np.int64)
    return Scored(p.task.scores(p.labels[rows], p.probs()[rows]), [p.groups[row] for row in rows])


def store(work: Work, found: Mapping[str, Any]) -> dict[str, Any]:
    """Write the file; controls done before stay in it, where they are of the same settings and split."""
    run, small = work.run, work.small
    settings = {
        "epochs": small.train.epochs,
        "seed": small.seed,
        "changed": [name for name in differences(run.config(), small) if name != "name"],
        "target": work.target,
    }
    provenance = {"manifest_sha256": run.manifest_hash(), "versions": versions()}
    before = read_json(run.controls_path) if run.controls_path.exists() else {}
    same = before.get("settings") == settings and before.get("provenance") == provenance
    merged = {**(before.get("controls", {}) if same else {}), **found}
    level = 100 * small.evaluate.level
    values = {
        "schema_version": 1,
        "title": f"Controls of {run.config().name}",
        "settings": settings,
        "level": small.evaluate.level,
        "resamples": small.evaluate.resamples,
        "controls": {name: merged[name] for name in FITS if name in merged},
        "notes": [
            f"Intervals: {level:g} %, {small.evaluate.resamples:,} resamples over groups; those of single "
            f"{work.task.nouns} are wider, so that they hold for all {work.task.nouns} together. Each network is trained once: "
            "the chance of a training is not in them.",
        ],
        "provenance": provenance,
        "disclaimer": DISCLAIMER,
    }
    write_json(run.controls_path, values)
    return values
