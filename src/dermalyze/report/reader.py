"""Reader comparison: a person's answers to the same images, from a manifest column; accuracy, and agreement with the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dermalyze.errors import ConfigError, nearest
from dermalyze.metrics import bootstrap
from dermalyze.metrics import classification as metrics
from dermalyze.metrics.difference import Scored, compare
from dermalyze.metrics.ranking import Ints
from dermalyze.metrics.scores import Scores
from dermalyze.report.evaluation_data import Evaluation, Json
from dermalyze.report.text import cell

MISSING, FOREIGN = -1, -2
SHOWN = {"accuracy": metrics.accuracy, "balanced_accuracy": metrics.balanced_accuracy, "kappa": metrics.kappa}
TITLES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "kappa": "kappa with the label"}


def answers(values: Iterable[Any], classes: Sequence[str]) -> tuple[Ints, dict[str, int]]:
    """Class index of each value, -1 for an empty value, -2 for a value that is not a class; and counts of the latter.

    Upper and lower case may differ from the class name if the match is unambiguous.

    >>> answers(["mel", " NV", None, "mole"], ["mel", "nv"])
    (array([ 0,  1, -1, -2]), {'mole': 1})
    """
    exact = {name: c for c, name in enumerate(classes)}
    folded = Counter(name.casefold() for name in classes)
    loose = {name.casefold(): c for c, name in enumerate(classes) if folded[name.casefold()] == 1}
    found, foreign = [], Counter[str]()
    for value in values:
        text = value.strip() if isinstance(value, str) else ""
        index = MISSING if not text else exact.get(text, loose.get(text.casefold(), FOREIGN))
        foreign.update([text] if index == FOREIGN else [])
        found.append(index)
    return np.array(found, dtype=np.int64), dict(foreign.most_common())


def build(j: Evaluation) -> dict[str, Any]:
    """Reader and model on the images that the reader answered; null if no reader is configured.

    Raises:
        ConfigError: the manifest has no such column.
    """
    column = j.spec.reader
    if column is None:
        return {"reader": None}
    if j.rows is None:
        return {
            "reader": {
                "column": column,
                "note": "the reader's column is in the run's manifest, which does not contain this set",
            }
        }
    if column not in j.rows:
        known = [str(name) for name in j.rows.columns]
        raise ConfigError(f"evaluate.reader: the manifest has no column '{column}'{nearest(column, known)}; it has {known}")
    index_N, foreign = answers(j.rows[column], j.classes)
    seen = index_N >= 0
    labels, called, probs = j.scores.labels[seen], index_N[seen], j.scores.probs[seen]
    groups = [group for group, answered in zip(j.p.groups, seen, strict=True) if answered]
    reader, model = Scores(labels, np.eye(len(j.classes))[called]), j.scores.with_values(labels, probs)
    how: dict[str, Any] = {"resamples": j.spec.resamples, "level": j.spec.level, "seed": j.spec.seed}
    both = compare(Scored(reader, groups), Scored(model, groups), SHOWN, **how)
    between = {"agreement": metrics.accuracy, "kappa": metrics.kappa}
    found = bootstrap.estimates(j.scores.with_values(called, probs), groups, between, names=j.classes, **how)
    counts = metrics.Tally(reader, np.ones((len(labels), 1))).confusion[0].astype(int)
    return {
        "reader": {
            "column": column,
            "note": "",
            "images": len(labels),
            "missing": int((index_N == MISSING).sum()),
            "foreign": foreign,
            "compared": {
                name: {"reader": one["a"].as_dict(), "model": one["b"].as_dict(), "difference": one["difference"].as_dict()}
                for name, one in both.items()
            },
            "between": {name: one.as_dict() for name, one in found.items() if isinstance(one, bootstrap.Estimate)},
            "confusion_matrix": {"labels": j.classes, "counts": counts.tolist()},
        }
    }


def view(m: Json) -> Json | None:
    """What the page shows on the reader."""
    r: Json | None = m["reader"]
    if r is None or r["note"]:
        return r
    foreign = ", ".join(f"{name} ({n:,})" for name, n in list(r["foreign"].items())[:5])
    left = (
        f" {sum(r['foreign'].values()):,} answers are not a class of the model and are left out: {foreign}." if foreign else ""
    )
    return {
        "column": r["column"],
        "note": "",
        "said": f"Column {r['column']}: {r['images']:,} of {m['n_images']:,} images have an answer, {r['missing']:,} have none."
        + left,
        "rows": [
            (TITLES[name], *(cell(one[side]) for side in ("reader", "model", "difference")))
            for name, one in r["compared"].items()
        ],
        "between": {name: cell(one) for name, one in r["between"].items()},
        "labels": m["classes"],
        "counts": list(zip(m["classes"], r["confusion_matrix"]["counts"], strict=True)),
    }
