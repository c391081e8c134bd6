"""How much of the label the metadata give away without a look at the image."""

# Shapes: N images, D features.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermalyze.audit.association import GIVEAWAY_AUROC, associations, binned
from dermalyze.audit.checks import Finding
from dermalyze.audit.out_of_fold import enough_groups, out_of_fold
from dermalyze.config.columns import is_giveaway
from dermalyze.core.run import OWN_NAMES
from dermalyze.data.grouping import keys
from dermalyze.metrics.bootstrap import Estimate, TargetScores, estimates
from dermalyze.metrics.calibration_error import ECE_BINS
from dermalyze.metrics.multilabel import MISSING
from dermalyze.metrics.ranking import Ints
from dermalyze.tasks.base import TASKS, Task

INPUTS = ("age", "sex", "site", "source")
RARE = 20
"""A value on fewer images than this has no column of its own."""
RESAMPLES, LEVEL, SEED = 200, 0.95, 0
MULTICLASS = TASKS["multiclass"]


@dataclass(frozen=True)
class MetadataModel:
    """How well the metadata alone tell the label, on groups they have not seen.

    Attributes:
        inputs: the columns that were used.
        images, groups: that were evaluated: those of classes with enough groups.
        macro_auroc: mean one-vs-rest AUROC, interval over groups.
        per_class: class to its one-vs-rest AUROC.
    """

    inputs: tuple[str, ...]
    images: int
    groups: int
    macro_auroc: Estimate
    per_class: dict[str, Estimate]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "inputs": list(self.inputs),
            "images": self.images,
            "groups": self.groups,
            "interval_level": LEVEL,
            "macro_auroc": self.macro_auroc.as_dict(),
            "per_class_auroc": {name: found.as_dict() for name, found in self.per_class.items()},
        }

    def findings(self) -> list[Finding]:
        """One finding where the metadata together tell a class as surely as a give-away column would."""
        name, found = max(self.per_class.items(), key=lambda pair: pair[1].value or 0.0)
        if (found.value or 0.0) < GIVEAWAY_AUROC:
            return []
        detail = (
            f"{', '.join(self.inputs)} alone tell '{name}' from the rest (AUROC {found.value:.2f} on unseen groups): "
            "the classes come from different people or places; a network can learn that instead of what the images show"
        )
        return [Finding("telling_metadata", "warn", len(self.inputs), detail, self.inputs)]

    def line(self) -> str:
        """One line for a person."""
        found = self.macro_auroc
        interval = "" if found.low is None or found.high is None else f" ({found.low:.3f} to {found.high:.3f})"
        return f"{', '.join(self.inputs)} alone, without an image: macro AUROC {found.value:.3f}{interval}"


def column_table(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One row a metadata column (age, sex, site, source and the user's): how well it alone tells each class.

    Each: `column`; `values`, how many different ones; `missing`, images without; `per_class_auroc`, one-vs-rest on groups
    that it has not seen; `auroc` and `class`, the best of these (null where the column never varies or no class can be
    evaluated); `giveaway`, whether the column is known by name to tell.

    Args:
        frame: usable manifest rows with `group`.
    """
    skipped = {*OWN_NAMES, "group"} - set(INPUTS)
    table = []
    for column in [str(c) for c in frame.columns if c not in skipped]:
        found = keys(frame, column)
        if found.isna().all():
            continue
        varies = found.nunique(dropna=False) > 1
        areas = associations(binned(frame[column]), frame["label"], frame["group"]) if varies else {}
        best = max(areas, key=lambda name: areas[name]) if areas else None
        table.append(
            {
                "column": column,
                "values": int(found.nunique()),
                "missing": int(found.isna().sum()),
                "auroc": areas[best] if best is not None else None,
                "class": best,
                "per_class_auroc": areas,
                "giveaway": is_giveaway(column),
            }
        )
    return table


def metadata_model(frame: pd.DataFrame, task: Task = MULTICLASS, classes: Sequence[str] = ()) -> MetadataModel | None:
    """Cross-validated logistic regression on age in ten bins, sex, site and source, whichever vary.

    Args:
        frame: usable manifest rows with `group`.
        task: where an image has several labels, each of them has a regression of its own.
        classes: the labels of such a task.

    Returns:
        None where no such column varies, or fewer than two classes are in enough groups.
    """
    targets = task.targets(frame["label"].tolist(), classes or task.names(frame["label"].tolist()))
    several = targets.ndim == 2
    rows = (frame if several else frame[enough_groups(frame)]).reset_index(drop=True)
    inputs = tuple(column for column in INPUTS if keys(rows, column).nunique(dropna=False) > 1)
    features_ND = one_hot(rows, inputs) if inputs else np.zeros((0, 0), dtype=np.float32)
    if features_ND.size == 0:
        return None
    scores: TargetScores
    if several:
        names = tuple(classes)
        scores = each_label(rows, features_ND, task, targets)
    else:
        found = out_of_fold(rows, features_ND)
        scores, names = found.scores, found.classes
    group = rows["group"].astype(str).tolist()
    metrics = {"macro": task.overall_metrics(ECE_BINS)["macro_auroc"], "each": task.class_metrics(ECE_BINS)["auroc"]}
    areas = estimates(scores, group, metrics, resamples=RESAMPLES, level=LEVEL, seed=SEED, names=names)
    macro, each = areas["macro"], areas["each"]
    assert isinstance(macro, Estimate)
    assert isinstance(each, list)
    return MetadataModel(inputs, len(rows), len(set(group)), macro, dict(zip(names, each, strict=True)))


def each_label(rows: pd.DataFrame, features_ND: NDArray[np.float32], task: Task, targets_NC: Ints) -> TargetScores:
    """Held-out probabilities of each label by itself; one that too few groups have, or lack, counts as missing."""
    known_NC, probs_NC = np.full(targets_NC.shape, MISSING), np.full(targets_NC.shape, 0.5)
    for c, target_N in enumerate(targets_NC.T):
        asked = np.flatnonzero(target_N != MISSING)
        one = rows.iloc[asked].assign(label=np.where(target_N[asked] == 1, "1", "0")).reset_index(drop=True)
        if enough_groups(one).any():
            known_NC[asked, c] = target_N[asked]
            probs_NC[asked, c] = out_of_fold(one, features_ND[asked]).scores.probs[:, 1]
    return task.scores(known_NC, probs_NC)


def one_hot(frame: pd.DataFrame, columns: tuple[str, ...]) -> NDArray[np.float32]:
    """(N, D) one column a value or bin, missing among them; values on fewer than `RARE` images share none.

    >>> one_hot(pd.DataFrame({"sex": ["male"] * 20 + [None] * 20}), ("sex",)).sum(axis=0).tolist()
    [20.0, 20.0]
    """
    parts = []
    for column in columns:
        values = binned(frame[column], 10).astype(object).where(frame[column].notna(), "").astype(str)
        table = pd.get_dummies(values)
        parts.append(table.loc[:, table.sum() >= RARE].to_numpy(dtype=np.float32))
    return np.concatenate(parts, axis=1)
