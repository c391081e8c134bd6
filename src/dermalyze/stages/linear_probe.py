"""What simple classifiers reach on features that stay as they are: how much of a result the features alone explain."""

# Shapes: N images, D features, C classes, R draws.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dermalyze.config.classes import describe
from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.atomic import write_json
from dermalyze.core.progress import progress, say
from dermalyze.core.result import DISCLAIMER
from dermalyze.core.run import Run
from dermalyze.data.manifest import read_classes
from dermalyze.data.sources.cards import focus_of
from dermalyze.data.splitting import require_no_leak
from dermalyze.errors import DataError
from dermalyze.metrics.bootstrap import Estimate, estimates, not_estimable
from dermalyze.metrics.ranking import Floats, Ints
from dermalyze.report.figures import interval_text
from dermalyze.scoring.features.linear_probe import (
    CLASSIFIER_NAMES,
    CLASSIFIERS,
    DRAWS,
    SHOTS,
    Chosen,
    Part,
    by_words,
    few_shot,
)
from dermalyze.scoring.features.store import OWN, Features, read_features
from dermalyze.scoring.predictions import Predictions, read_predictions, write_predictions
from dermalyze.tasks.base import TASKS, Task

OF_CLASS = {"recall": "sensitivity", "auroc": "AUROC"}


@dataclass(frozen=True)
class LinearProbeResult:
    """What `linear_probe` found.

    Attributes:
        values: the content of report/linear-probe-NAME.json.
        files: what was written, the table first.
    """

    values: dict[str, Any]
    files: tuple[Path, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**self.values, "files": [str(path) for path in self.files]}

    def lines(self) -> list[str]:
        """A table for a person, and what its intervals are over."""
        v = self.values
        task = TASKS[v["task"]]
        of_class = task.brief_of_class
        names = {name: name.replace("_", " ").replace("auroc", "AUROC") for name in task.brief}
        rows = [("", *names.values(), *(f"{OF_CLASS[of_class]}: {describe(name)}" for name in v["focus"]))]
        for row in (*v["models"], *v["few_shot"]):
            found = [*(row["metrics"].get(key) for key in names), *(row[of_class].get(name) for name in v["focus"])]
            rows.append((row["title"], *("" if cell is None else interval_text(cell) for cell in found)))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        leak = [f"LEAK ACCEPTED, NOT A FAIR RESULT: {v['accepted_leak']}"] if v["accepted_leak"] else []
        return [
            f"{v['what']}: {v['images']['test']} test images of {v['groups']} groups",
            *leak,
            *("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows),
            f"{100 * v['level']:g} % intervals over the test split's groups; those of {task.noun} centers over "
            f"{v['draws']} draws of their examples, on the same test images",
            f"table: {self.files[0]}",
            *(f"for evaluate --predictions: {path}" for path in self.files if path.name.startswith("test-by-")),
            v["disclaimer"],
        ]


def linear_probe(run: Run, spec: ExperimentSpec, *, features: str = OWN, accept_leak: str | None = None) -> LinearProbeResult:
    """Evaluate a linear probe, nearest neighbours, class centers of few examples and, if asked, prompts on the test split.

    Prompts (zero-shot) are there where `embed --clip` stored the features. C and k are chosen on the validation split; the
    predictions of all but the centers are stored for val, cal and test, where
    `evaluate --predictions` reads them.

    Args:
        run: split, with predictions of every part.
        spec: `inference.recipe` and `evaluate` are used.
        features: `own`, or a name that `embed` stored.
        accept_leak: continue although the split leaks, for this reason.

    Raises:
        UsageError: nothing of that name is stored.
        ConfigError: `evaluate.focus` names no class.
        DataError: manifest or split changed, or there is no training image.
        LeakError: the split leaks and no reason was given.
        ModelError: a file is damaged.
    """
    task = TASKS[spec.task.kind]
    run.require_writable()
    found = read_features(run, spec.inference.recipe, features)
    crossing = require_no_leak(run, accept_leak if accept_leak is not None else found.accepted_leak)
    leak = "; ".join(dict.fromkeys(reason for reason in (found.accepted_leak, crossing) if reason)) or None
    classes = read_classes(run)
    focus = focus_of(spec.evaluate, classes, spec.data)
    parts = {part: part_of(found, part, classes, task) for part in ("train", "val", "cal", "test")}
    if not len(parts["train"].labels) or not len(parts["val"].labels) or not len(parts["test"].labels):
        raise DataError(f"{run.root.name}: train, val and test must all hold images; split the set again")
    test_groups = groups_of(found, "test")
    models, files = [], []
    say(f"linear-probe: {found.what}; {len(CLASSIFIERS)} models, then {len(SHOTS)} times {DRAWS} draws")
    trained = run.predictions_path("test", spec.inference.recipe)
    if trained.exists() and found.called.all():
        p = read_predictions(trained)
        models.append(
            {
                "name": "trained",
                "title": "the trained network",
                **evaluated(p.labels, p.probs(), p.groups, classes, task, spec.evaluate),
            }
        )
    with progress("linear-probe", len(CLASSIFIERS) + len(SHOTS), "models") as advance:
        for kind, fit in CLASSIFIERS.items():
            chosen = fit(parts["train"], parts["val"], task, len(classes))
            probs = chosen.classify(parts["test"].features)
            models.append(
                {
                    "name": kind,
                    "title": f"{CLASSIFIER_NAMES[kind]}, {chosen.setting} = {chosen.value:g}",
                    "chosen": {chosen.setting: chosen.value, "val_log_loss": chosen.log_loss},
                    **evaluated(parts["test"].labels, probs, test_groups, classes, task, spec.evaluate),
                }
            )
            files += store(run, found, kind, chosen, parts, classes, task, leak)
            advance(1)
        if (spoken := by_words(found.meta, classes)) is not None:
            words = found.meta["zero_shot"]
            models.append(
                {
                    "name": "zero-shot",
                    "title": f"{CLASSIFIER_NAMES['zero-shot']}, {spoken.setting} = {spoken.value:g}",
                    "chosen": {spoken.setting: spoken.value, "templates": words["templates"], "prompts": words["prompts"]},
                    **evaluated(
                        parts["test"].labels,
                        spoken.classify(parts["test"].features),
                        test_groups,
                        classes,
                        task,
                        spec.evaluate,
                    ),
                }
            )
            files += store(run, found, "zero-shot", spoken, parts, classes, task, leak)
        shots = []
        for count in SHOTS:
            drawn = few_shot(
                parts["train"], groups_of(found, "train"), parts["test"], task, len(classes),
                shots=count, draws=DRAWS, seed=spec.evaluate.seed,
            )  # fmt: skip
            shots.append(shots_row(count, drawn, parts, test_groups, classes, task, spec.evaluate.level))
            advance(1)
    values = {
        "schema_version": 1,
        "features": features,
        "what": found.what,
        "task": task.kind,
        "accepted_leak": leak,
        "classes": classes,
        "focus": list(focus),
        "images": {part: len(values.labels) for part, values in parts.items()},
        "groups": len(set(test_groups)),
        "resamples": spec.evaluate.resamples,
        "level": spec.evaluate.level,
        "draws": DRAWS,
        "models": models,
        "few_shot": shots,
        "manifest_sha256": run.manifest_hash(),
        "disclaimer": DISCLAIMER,
    }
    path = run.linear_probe_path(features)
    write_json(path, values)
    return LinearProbeResult(values, (path, *files))


def part_of(found: Features, part: str, classes: list[str], task: Task) -> Part:
    """Features and targets of one part; the part may be empty."""
    inside = (found.frame["part"] == part).to_numpy()
    return Part(found.values[inside], task.targets(found.frame.loc[inside, "label"].astype(str).tolist(), classes))


def groups_of(found: Features, part: str) -> list[str]:
    """The group of each image of a part."""
    return [str(group) for group in found.frame.loc[found.frame["part"] == part, "group"]]


def evaluated(
    labels: Ints, probs: Floats, groups: list[str], classes: list[str], task: Task, spec: EvaluateSpec
) -> dict[str, Any]:
    """Metrics with intervals, JSON-ready."""
    overall, of_class = task.overall_metrics(spec.ece_bins), task.brief_of_class
    metrics = {**{name: overall[name] for name in task.brief}, of_class: task.class_metrics(spec.ece_bins)[of_class]}
    found = estimates(
        task.scores(labels, probs), groups, metrics, resamples=spec.resamples, level=spec.level, seed=spec.seed, names=classes
    )
    each = found.pop(of_class)
    assert isinstance(each, list)
    return {
        "metrics": {name: one.as_dict() for name, one in found.items() if isinstance(one, Estimate)},
        of_class: {name: one.as_dict() for name, one in zip(classes, each, strict=True)},
    }


def shots_row(
    count: int,
    drawn: Mapping[str, Floats] | None,
    parts: Mapping[str, Part],
    groups: list[str],
    classes: list[str],
    task: Task,
    level: float,
) -> dict[str, Any]:
    """Means over draws with the interval that the draws span, JSON-ready; or why there are none."""
    size = len(parts["test"].labels), len(set(groups))
    title = f"{task.noun} centers of {count} example{'s' if count > 1 else ''} a {task.noun}"
    if drawn is None:
        note = not_estimable(size[0], f"a {task.noun} has fewer than {count} training groups")
        why = Estimate(None, None, None, *size, note=note)
        return {"shots": count, "title": title, "metrics": {task.brief[0]: why.as_dict()}, task.brief_of_class: {}}

    def spanned(values_R: Floats) -> dict[str, Any]:
        if np.isnan(values_R).any():  # no test image of a class, in every draw alike
            return Estimate(None, None, None, 0, 0, note=not_estimable(0)).as_dict()
        low, high = np.quantile(values_R, [(1 - level) / 2, (1 + level) / 2])
        return Estimate(float(values_R.mean()), float(low), float(high), *size).as_dict()

    return {
        "shots": count,
        "title": title,
        "metrics": {name: spanned(drawn[name]) for name in task.brief},
        task.brief_of_class: {name: spanned(drawn[task.brief_of_class][:, c]) for c, name in enumerate(classes)},
    }


def store(
    run: Run,
    found: Features,
    kind: str,
    chosen: Chosen,
    parts: Mapping[str, Part],
    classes: list[str],
    task: Task,
    leak: str | None,
) -> list[Path]:
    """Predictions of val, cal and test, as those of a model from elsewhere are stored."""
    name = kind if found.name == OWN else f"{kind}-{found.name}"
    written = []
    for part in ("val", "cal", "test"):
        if not len(parts[part].labels):
            continue
        ids = found.frame.loc[found.frame["part"] == part, "image_id"].astype(str).tolist()
        meta = {
            "classes": classes, "set": part, "recipe": "given", "task": task.kind, "scores": "probabilities",
            "accepted_leak": leak,
            "model": f"{CLASSIFIER_NAMES[kind]} ({chosen.setting} = {chosen.value:g}) on {found.what}",
            "model_sha256": found.meta.get("model_sha256") or found.meta.get("weights_sha256"),
            "manifest_sha256": run.manifest_hash(),
        }  # fmt: skip
        logits = task.logits(chosen.classify(parts[part].features)).astype(np.float32)
        path = run.predictions_path(part, f"by-{name}")
        write_predictions(path, Predictions(ids, groups_of(found, part), parts[part].labels, logits, None, meta))
        written.append(path)
    return written
