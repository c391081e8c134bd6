"""Distribution shift between another set and the model's own data: metadata, image quality, embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dermalyze.metrics.bootstrap import Interval, estimate, group_index, group_weights
from dermalyze.metrics.ranking import Floats
from dermalyze.metrics.shift import embedding_shift, mean_difference_in_sd, total_variation
from dermalyze.metrics.subgroups import UNKNOWN
from dermalyze.report.evaluation_data import Evaluation, Json
from dermalyze.report.subgroups import TITLES, by_age, texts
from dermalyze.report.text import cell, number

if TYPE_CHECKING:
    import pandas as pd

    from dermalyze.scoring.predictions import Predictions

LOOKS = ("brightness", "contrast", "sharpness", "red", "green", "blue", "ita")
LARGE, NEGLIGIBLE = 0.25, 0.1
"""Standardized differences above the first are large, below the second negligible. Austin 2009, doi:10.1002/sim.3697"""
NAMES = {
    "red": "red, mean", "green": "green, mean", "blue": "blue, mean", "ita": "skin tone (ITA), degrees", "age": "age, years",
    "width": "width, px", "height": "height, px", "sharpness": "sharpness (variance of the Laplacian)",
}  # fmt: skip


def build(j: Evaluation) -> dict[str, Any]:
    """Each column and measure of the set against the training split, and its embeddings against those of the test split."""
    if j.p.meta["set"] == "test" or j.rows is None or j.train is None or not len(j.p):
        return {"shift": None}
    categories, labels = [], []
    if j.task.has("one_class"):
        own, known = [j.classes[c] for c in j.p.labels], j.train["label"].astype(str).tolist()
        categories.append(_Category("class", own, known, j.classes))
    else:
        trained_NC = j.task.targets(j.train["label"].astype(str).tolist(), j.classes)
        own_NC, known_NC = (np.where(z < 0, np.nan, z.astype(np.float64)) for z in (j.p.labels, trained_NC))
        labels = [_Number(name, own_NC[:, c], known_NC[:, c]) for c, name in enumerate(j.classes)]
    for name in ("age", "sex", "site"):
        own, known = ([value or UNKNOWN for value in _values(frame, name)] for frame in (j.rows, j.train))
        if {*own, *known} != {UNKNOWN}:
            categories.append(_Category(name, own, known, sorted({*own, *known}, key=lambda v: (v == UNKNOWN, v))))
    numbers = [
        _Number(name, *(_numbers(frame, name) for frame in (j.rows, j.train)))
        for name in ("age", "width", "height", *LOOKS)
        if name in j.rows and name in j.train
    ]
    numbers = [one for one in (*labels, *numbers) if one.comparable]
    estimates = _estimates(j, [*categories, *numbers])
    return {
        "shift": {
            "categories": [
                {
                    "name": one.name,
                    "levels": [
                        {"level": level, "here": float(here), "training": float(training)}
                        for level, here, training in zip(one.levels, one.here_L, one.training_L, strict=True)
                    ],
                    "total_variation": distance,
                }
                for one, distance in zip(categories, estimates, strict=False)
            ],
            "numbers": [
                {
                    "name": one.name,
                    "here": float(one.values.mean()),
                    "training": float(one.reference.mean()),
                    "missing": int((~one.inside).sum()),
                    "difference": distance,
                }
                for one, distance in zip(numbers, estimates[len(categories) :], strict=True)
            ],
            "embedding": _embeddings(j, j.home),
        }
    }


class _Category:
    """Shares of the levels of a column."""

    interval: Interval = "basic"  # noise raises the distance

    def __init__(self, name: str, own: list[str], known: list[str], levels: Sequence[str]) -> None:
        place = {level: k for k, level in enumerate(levels)}
        self.name, self.levels, self.inside = name, levels, np.ones(len(own), dtype=bool)
        self.codes = np.array([place[value] for value in own])
        self.training_L = np.bincount([place[value] for value in known], minlength=len(levels)) / max(1, len(known))
        self.here_L = np.bincount(self.codes, minlength=len(levels)) / max(1, len(own))

    def value(self, weights_NR: Floats) -> Floats:
        return total_variation(self.codes, weights_NR, self.training_L)


class _Number:
    """Mean of a measure."""

    interval: Interval = "percentile"

    def __init__(self, name: str, own_N: Floats, known_M: Floats) -> None:
        self.name, self.inside = name, ~np.isnan(own_N)
        self.values, self.reference = own_N[self.inside], known_M[~np.isnan(known_M)]
        both = np.concatenate([self.values, self.reference])
        self.comparable = bool(len(self.values) and len(self.reference) and np.ptp(both) > 0)

    def value(self, weights_NR: Floats) -> Floats:
        return mean_difference_in_sd(self.values, weights_NR[self.inside], self.reference)


def _estimates(j: Evaluation, columns: Sequence[_Category | _Number]) -> list[dict[str, Any]]:
    """Each column's distance with its interval, over the groups of the set; the training split is not resampled."""
    index, groups = group_index(j.p.groups)
    drawn: list[list[Floats]] = [[] for _ in columns]
    for weights in group_weights(index, groups, j.spec.resamples, j.spec.seed):
        for one, values in zip(columns, drawn, strict=True):
            values.append(one.value(weights))
    whole = np.ones((len(j.p), 1))
    return [
        estimate(
            float(one.value(whole)[0]), np.concatenate(values), n=int(one.inside.sum()),
            groups=len(np.unique(index[one.inside])), level=j.spec.level, interval=one.interval,
        ).as_dict()
        for one, values in zip(columns, drawn, strict=True)
    ]  # fmt: skip


def _numbers(frame: pd.DataFrame, name: str) -> Floats:
    values = np.asarray(frame[name].astype("Float64").to_numpy(float, na_value=np.nan), dtype=np.float64)
    return np.where(np.abs(values) < 90, values, np.nan) if name == "ita" else values  # larger values mean a color cast


def _values(frame: pd.DataFrame, name: str) -> list[str | None]:
    if name == "age":
        ages = by_age(frame)
        return [ages.levels[code] for code in ages.codes]
    return texts(frame, name)


def _embeddings(j: Evaluation, home: Predictions | None) -> dict[str, Any] | None:
    """Shift between one embedding per group of each set; None if there are none or too few."""
    if home is None or j.p.embedding is None or home.embedding is None or j.p.embedding.shape[1] != home.embedding.shape[1]:
        return None
    new, known = (_one_a_group(p) for p in (j.p, home))
    found = embedding_shift(new, known, resamples=j.spec.resamples, level=j.spec.level, seed=j.spec.seed)
    return None if found is None else found.as_dict()


def _one_a_group(p: Predictions) -> Floats:
    first = np.unique(p.groups, return_index=True)[1]
    return np.asarray(np.asarray(p.embedding, dtype=np.float64)[np.sort(first)])


# -- the page ------------------------------------------------------------------------------------------------------


def view(m: Json) -> dict[str, Any] | None:
    """Tables of shares, of means, and of distances."""
    s = m["shift"]
    if s is None:
        return None
    e = s["embedding"]
    return {
        "categories": [
            {
                "name": TITLES.get(one["name"], one["name"]),
                "distance": cell(one["total_variation"]),
                "levels": [(row["level"], number(row["training"]), number(row["here"])) for row in one["levels"]],
            }
            for one in s["categories"]
        ],
        "numbers": [
            {
                "name": NAMES.get(one["name"], one["name"]),
                "training": number(one["training"]), "here": number(one["here"]), "missing": one["missing"],
                "difference": cell(one["difference"]),
                "large": one["difference"]["value"] is not None and abs(one["difference"]["value"]) > LARGE,
            }
            for one in s["numbers"]
        ],
        "embedding": None
        if e is None
        else {
            "units": [f"{n:,}" for n in e["units"]],
            "energy": cell({"value": e["energy"], "low": e["low"], "high": e["high"], "n": e["units"][0], "note": ""}),
            "halves": number(e["halves"]), "halves_high": number(e["halves_high"]),
            "p": number(e["p_value"]), "frechet": number(e["frechet"]), "frechet_halves": number(e["frechet_halves"]),
            "sample": e["sample"],
        },
    }  # fmt: skip
