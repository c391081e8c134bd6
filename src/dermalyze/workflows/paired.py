"""Two or more runs on the same test images: what differs, by how much, and whether that is more than chance."""

# Shapes: N images (or lesions), C classes.

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.atomic import sha256_file, write_text
from dermalyze.core.progress import say
from dermalyze.core.result import DISCLAIMER
from dermalyze.core.run import Run, read_json
from dermalyze.data.grouping import components, lesion_names
from dermalyze.data.sources.cards import malignant_of
from dermalyze.data.splitting import read_part
from dermalyze.errors import DataError, LeakError, ModelError, UsageError
from dermalyze.metrics.aggregation import differing, pool
from dermalyze.metrics.bootstrap import Masks, TargetScores
from dermalyze.metrics.paired_tests import Difference, Discordance, delong, holm, mcnemar, paired
from dermalyze.report.run_comparison import comparison_page, told
from dermalyze.scoring.check_test import check_test
from dermalyze.scoring.external_set import made_with, shares_lesions
from dermalyze.scoring.predictions import Predictions, read_predictions
from dermalyze.tasks.base import TASKS, Task

Unit = Literal["image", "lesion"]


@dataclass(frozen=True, eq=False)
class Side:
    """A run's answers for its test images, checked as `evaluate` checks them.

    Attributes:
        name: told apart from the others.
        frame: manifest rows of the test split, one per image, in the order of `scores`.
        calibrator: its kind.
        leak: the reason for which a leak was accepted, or None.
    """

    name: str
    run: Run
    spec: ExperimentSpec
    classes: list[str]
    frame: pd.DataFrame
    scores: TargetScores
    calibrator: str
    leak: str | None
    predictions_sha256: str

    def take(self, ids: Sequence[str], classes: list[str]) -> Side:
        """The same for some of its images, and with its classes, in that order."""
        row_of = {image_id: row for row, image_id in enumerate(self.frame["image_id"])}
        rows = np.array([row_of[image_id] for image_id in ids], dtype=np.int64)
        scores = self.scores.select(rows, np.array([self.classes.index(name) for name in classes]))
        return replace(self, classes=classes, frame=self.frame.iloc[rows].reset_index(drop=True), scores=scores)


def compare_runs(
    roots: Sequence[str | Path], *, shared: bool = False, by: str = "image", out: Path | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Compare runs by their stored predictions of the test split; see `dermalyze.workflows.runs.runs`.

    Args:
        roots: two or more run folders that `score` has been through.
        shared: take the groups that are whole in the test split of every run, where the parts differ.
        by: image, or lesion: photographs of a lesion pooled into one answer.
        out: an HTML page to write as well.

    Returns:
        JSON-ready values, and lines for a person.

    Raises:
        UsageError: one run only, a run named twice, another `by`, no predictions, or a page that is no .html.
        DataError: other test images, or other labels of the same ones.
        LeakError: a run was made with images, or groups, that are compared.
        ModelError: other classes, or damaged predictions.
    """
    if by not in ("image", "lesion"):
        raise UsageError(f"--by {by}: must be image or lesion")
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--out {out.name}: must end in .html")
    runs = [Run.open(root) for root in roots]
    twice = [root for root, n in Counter(run.root.resolve() for run in runs).items() if n > 1]
    if twice:
        raise UsageError(f"{twice[0].name}: is named twice; compare different runs")
    sides = [read_side(run, name) for run, name in zip(runs, names_of(runs), strict=True)]
    sides = on_the_same(sides, shared)
    values = evaluated(sides, "lesion" if by == "lesion" else "image")
    if out is not None:
        write_text(out, comparison_page(values))
        values["page"] = str(out)
    return values, told(values)


def names_of(runs: Sequence[Run]) -> list[str]:
    """Folder names where they tell the runs apart, else their paths."""
    names = [run.root.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.root) for run in runs]


def read_side(run: Run, name: str) -> Side:
    """A run's test predictions, calibrated.

    Raises:
        UsageError, DataError, LeakError, ModelError: as `evaluate` refuses them.
    """
    spec = run.config()
    path = run.require(run.predictions_path("test", spec.inference.recipe), "score")
    p = read_predictions(path)
    leak = check_test(run, p, spec.inference.recipe, None)
    answering = p.answering(read_record(run, p))
    scores = answering.scores(p.labels, p.logits)
    frame = read_part(run, "test").set_index("image_id", drop=False).loc[p.ids].reset_index(drop=True)
    return Side(name, run, spec, p.classes, frame, scores, answering.calibrator.kind, leak, sha256_file(path))


def read_record(run: Run, p: Predictions) -> dict[str, Any] | None:
    """The calibration's record of the predictions' recipe; None where `calibrate` has not run.

    Raises:
        ModelError: it was fitted on the scores of another model.
    """
    path = run.calibration_path(p.meta["recipe"])
    if not path.exists():
        say(f"{run.root.name}: not calibrated; its probabilities are plain until: dermalyze calibrate {run.root}")
        return None
    known = read_json(path)
    record = known.get("calibration")
    if known.get("scores_sha256") != p.meta.get("scores_sha256") or not isinstance(record, dict):
        raise ModelError(f"{path.name}: fitted on the scores of another model; run again: dermalyze calibrate {run.root}")
    return record


def on_the_same(sides: list[Side], shared: bool) -> list[Side]:
    """The sides on the images that all have, in one order, with one order of classes.

    Raises:
        DataError, LeakError, ModelError: see `compare_runs`.
    """
    first = sides[0]
    for side in sides[1:]:
        if side.spec.task.kind != first.spec.task.kind:
            raise ModelError(
                f"{side.name}: has task {side.spec.task.kind}, {first.name} has {first.spec.task.kind}; only runs of the same "
                "task can be compared"
            )
        if set(side.classes) != set(first.classes):
            raise ModelError(
                f"{side.name}: has classes {side.classes}, {first.name} has {first.classes}; only runs of the same classes "
                "can be compared"
            )
    known = [dict(zip(side.frame["image_id"], side.frame["sha256"], strict=True)) for side in sides]
    common = [i for i in known[0] if all(i in images and images[i] == known[0][i] for images in known[1:])]
    if not common:
        raise DataError(f"the test parts of {' and '.join(side.name for side in sides)} have no image in common")
    if not shared and any(len(side.frame) != len(common) for side in sides):
        sizes = ", ".join(f"{side.name} {len(side.frame)}" for side in sides)
        raise DataError(
            f"the test parts are of other images ({sizes}; {len(common)} in all{_seen(sides)}); split the runs alike (the same "
            "data, split settings and seed), or compare on the shared images alone: --shared"
        )
    whole = common if not shared else whole_groups(sides, common)
    if len(whole) < len(common):
        left_out = f"{len(common) - len(whole)} of {len(common)} shared images left out"
        say(f"compare: {left_out}: other photographs of their groups are in other parts of a run")
    if not whole:
        raise DataError("no group is whole in the test parts of all; split the runs alike")
    aligned = [side.take(whole, first.classes) for side in sides]
    for side in aligned[1:]:
        other = int(differing(side.scores.targets, aligned[0].scores.targets).sum())
        if other:
            raise DataError(f"{side.name}: {other} of the images have another label than in {first.name}; correct the data")
    for one in sides:
        for other_side, taken in zip(sides, aligned, strict=True):
            kin = other_side.frame[other_side.frame["group"].isin(taken.frame["group"])]  # photographs of the same groups
            used = {} if one is other_side else made_with(one.run, kin, by_lesion=_alike(one, other_side))
            if used:
                raise LeakError(
                    f"{one.name}: was made with {sum(used.values())} photographs of the groups to compare, as "
                    f"{other_side.name} knows them; split the runs alike"
                )
    return aligned


def whole_groups(sides: Sequence[Side], common: list[str]) -> list[str]:
    """Of some images those whose group, as each run knows it, has no image beside them: a run may have been made with it."""
    kept = set(common)
    while True:
        torn: set[str] = set()
        for side in sides:
            outside = side.frame[~side.frame["image_id"].isin(kept)]["group"]
            torn |= kept & set(side.frame.loc[side.frame["group"].isin(outside), "image_id"])
        if not torn:
            return [image_id for image_id in common if image_id in kept]
        kept -= torn


def _seen(sides: Sequence[Side]) -> str:
    """Which runs were made with test images of another."""
    found = []
    for a in sides:
        counts = [(b.name, sum(made_with(a.run, b.frame, by_lesion=_alike(a, b)).values())) for b in sides if b is not a]
        found += [f"; {a.name} was made with {n} of {name}" for name, n in counts if n]
    return "".join(found)


def _alike(a: Side, b: Side) -> bool:
    """Whether lesion_id means the same in both."""
    same = a.spec.data.source == b.spec.data.source and a.spec.data.path == b.spec.data.path
    return same or shares_lesions(b.spec.data.source.kind, a.spec.data)


def joint_groups(sides: Sequence[Side]) -> list[str]:
    """One group for what any run keeps together, named by its first image."""
    ids = sides[0].frame["image_id"].astype(str).tolist()
    edges = []
    for side in sides:
        rows = pd.Series(range(len(ids))).groupby(side.frame["group"].to_numpy())
        edges += [pair for _, members in rows for pair in pairwise(members.tolist())]
    return [ids[root] for root in components(len(ids), edges)]


def evaluated(sides: Sequence[Side], unit: Unit) -> dict[str, Any]:
    """Every figure of the comparison, JSON-ready.

    Args:
        sides: on the same images, in one order.
        unit: what counts as one case.
    """
    spec, classes, task = sides[0].spec.evaluate, sides[0].classes, TASKS[sides[0].spec.task.kind]
    groups = joint_groups(sides)
    scores = {side.name: side.scores for side in sides}
    torn: list[str] = []
    if unit == "lesion":
        names = lesion_names(sides[0].frame)
        pooled = {name: pool(one, names, groups) for name, one in scores.items()}
        scores = {name: one.scores for name, one in pooled.items()}
        groups, torn = pooled[sides[0].name].groups, pooled[sides[0].name].disagreeing
    malignant = malignant_of(spec, classes, sides[0].spec.data)
    first = scores[sides[0].name]  # targets, and so what a metric rests on, are those of all
    metrics = {name: f for name, f in task.overall_metrics(spec.ece_bins).items() if name not in task.same_twice()}
    recall = task.class_metrics(spec.ece_bins)["recall"]
    sensitivities = {f"recall {name}": _of_class(recall, c) for c, name in enumerate(classes)}
    among = {f"recall {name}": first.rests_on("recall", c) for c, name in enumerate(classes)}
    values, differences = paired(
        scores, groups, {**metrics, **sensitivities}, resamples=spec.resamples, level=spec.level, seed=spec.seed, among=among,
        basic=task.basic,
    )  # fmt: skip
    pairs = list(combinations(scores, 2))
    asked = {
        question: {name: task.binary(one, yes_C) for name, one in scores.items()}
        for question, yes_C in task.rankings(classes, malignant).items()
    }
    aurocs = {
        (a, b): {
            question: delong(sides_of[a][0], sides_of[a][1], sides_of[b][1], level=spec.level)
            for question, sides_of in asked.items()
        }
        for a, b in pairs
    }
    there_N = first.rests_on(None, None)
    right = {(a, b): discordance(scores[a].right, scores[b].right, there_N) for a, b in pairs}
    calls = {name: task.calls(one, classes) for name, one in scores.items()}
    each = {
        (a, b): {c: discordance(ours, calls[b][c][0], among_N) for c, (ours, among_N) in calls[a].items()} for a, b in pairs
    }
    each_p = dict(
        zip(
            [(pair, c) for pair in pairs for c in each[pair]],
            holm([one.mid_p for pair in pairs for one in each[pair].values()]),
            strict=True,
        )
    )
    overall = {pair: {name: differences[pair][name] for name in metrics} for pair in pairs}
    recalls = {pair: {name: differences[pair][f"recall {name}"] for name in classes} for pair in pairs}
    mid_p = holm([right[pair].mid_p for pair in pairs])
    tests = {"metrics": corrected(overall), "recall": corrected(recalls), "auroc": corrected(aurocs)}
    return {
        "schema_version": 1,
        "runs": [
            {
                "name": side.name,
                "recipe": side.spec.inference.recipe,
                "calibrator": side.calibrator,
                "accepted_leak": side.leak,
                "predictions_sha256": side.predictions_sha256,
            }
            for side in sides
        ],
        "task": task.kind,
        "classes": classes,
        "unit": unit,
        "n": len(first),
        "n_images": len(sides[0].frame),
        "n_groups": len(set(groups)),
        "left_out": len(torn),
        "resamples": spec.resamples,
        "level": spec.level,
        "seed": spec.seed,
        "values": {
            name: {key: one.as_dict() for key, one in found.items() if key in metrics} for name, found in values.items()
        },
        "pairs": [
            {
                "first": pair[0],
                "second": pair[1],
                **{key: found[pair] for key, found in tests.items()},
                "mcnemar": {**right[pair].as_dict(), "mid_p_holm": mid_p[k]},
                "calls": {c: {**one.as_dict(), "mid_p_holm": each_p[pair, c]} for c, one in each[pair].items()},
            }
            for k, pair in enumerate(pairs)
        ],
        "methods": methods(spec.resamples, spec.level, unit, task),
        "disclaimer": DISCLAIMER,
    }


def corrected(found: Mapping[tuple[str, str], Mapping[str, Difference]]) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """JSON-ready differences, their p-values corrected over all pairs and names of one table."""
    keys = [(pair, name) for pair, rows in found.items() for name in rows]
    p_values = dict(zip(keys, holm([found[pair][name].p_value for pair, name in keys]), strict=True))
    return {
        pair: {name: {**one.as_dict(), "p_holm": p_values[pair, name]} for name, one in rows.items()}
        for pair, rows in found.items()
    }


def methods(resamples: int, level: float, unit: Unit, task: Task) -> str:
    """How the numbers were made, in words."""
    pooled = (
        "Photographs of one lesion are pooled into one answer, the mean of their probabilities. " if unit == "lesion" else ""
    )
    return (
        f"{pooled}Differences are the first run minus the second. Their {100 * level:g} % intervals and p-values come from "
        f"{resamples:,} resamples of whole groups, the same ones for every run; a p-value cannot be below "
        f"{2 / (resamples + 1):.2g}. AUROC of a {task.noun} by DeLong's test and right answers by McNemar's count every "
        f"{unit} as independent: where several belong to one group, their intervals are too narrow and their p-values too "
        "small. p (Holm) is corrected for all questions of its table. A small difference that is not significant has not been "
        "shown to be none: read the interval."
    )


def discordance(first_N: Masks, second_N: Masks, among_N: Masks) -> Discordance:
    """McNemar's test of which of two runs is right, among some cases."""
    ours, theirs = (right_N[among_N].astype(np.int64) for right_N in (first_N, second_N))
    return mcnemar(np.ones(len(ours), dtype=np.int64), ours, theirs)


def _of_class(metric: Any, c: int) -> Any:
    return lambda t: metric(t)[:, c]
