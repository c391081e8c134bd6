"""Subgroups: metrics by age, sex, body site, source, image quality and skin tone, each against all other images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from dermalyze.calibration.decision_rule import DECISIONS
from dermalyze.config.classes import describe
from dermalyze.errors import ConfigError, nearest
from dermalyze.imaging.skin_tone import CAST, ITA_BANDS, ita_band
from dermalyze.metrics.bootstrap import MIN_CLASS_GROUPS, MIN_GROUPS
from dermalyze.metrics.selective import threshold_for
from dermalyze.metrics.subgroups import UNKNOWN, Division, comparisons, divide, subgroups
from dermalyze.report.evaluation_data import Evaluation, Json
from dermalyze.report.figures import draw
from dermalyze.report.section import Figure, figure_title
from dermalyze.report.style import ACCENT, ALARM, GRID, INK, QUIET
from dermalyze.report.text import cell

if TYPE_CHECKING:
    import pandas as pd

AGES = (30, 45, 60, 75)
"""Years at which an age group begins; the first begins at 0."""
COVERAGE = 0.9  # of the calibration split, for the referral rate if the served rule refers nothing
LEVELS = 16  # of a column of the user's; rarer ones are merged
SIGNIFICANT = 0.05
THIRDS = {  # of the training split: measure, and its levels
    "sharpness": ("sharpness", ("blurred third", "middle third", "sharp third")),
    "exposure": ("brightness", ("darkest third", "middle third", "brightest third")),
    "resolution": ("megapixels", ("smallest third", "middle third", "largest third")),
}
NOTES = {
    "sharpness": "variance of the Laplacian after downscaling to at most 200 px, so that it does not depend on the size; hair "
    "and the structure of the object also raise it, so a smooth one can count as blurred",
    "exposure": "mean brightness, 0 to 1",
    "resolution": "megapixels of the file",
}
MEASURES = {  # name in the file: name on the page, and whether a positive gap is good (1), bad (-1) or neither (0)
    "accuracy": ("accuracy", 1),
    "balanced_accuracy": ("balanced accuracy", 1),
    "sensitivity": ("sensitivity", 1),
    "macro_auroc": ("macro AUROC", 1),
    "malignant_auroc": ("AUROC, malignant or not", 1),
    "overconfidence": ("confidence minus accuracy", 0),
    "log_loss": ("log loss", -1),
    "referred": ("referred", 0),
}
TITLES = {"age": "age, years", "ita": "skin tone (ITA band)"}
HIDDEN = ("macro_auroc",)  # only in the file: it needs every class, and few subgroups have all
DRAWN = ("accuracy", "sensitivity", "malignant_auroc", "overconfidence")


def build(j: Evaluation) -> dict[str, Any]:
    """Every subgroup of every column, the gaps, and the number of tests.

    Raises:
        ConfigError: `evaluate.subgroups` names a column that the set does not have.
    """
    if j.rows is None or not len(j.p):
        return {"subgroups": None}
    columns = divisions(j.rows, j.train, j.spec.subgroups)
    focus = first_focus(j)
    malignant = [j.classes.index(name) for name in j.malignant]
    answered, coverage = answered_by_rule(j), None
    if answered is None and j.known is not None:
        coverage = COVERAGE
        answered = j.scores.confidence >= threshold_for(j.known.confidence, coverage)
    found = subgroups(
        j.scores, j.p.groups, columns, resamples=j.spec.resamples, level=j.spec.level, seed=j.spec.seed,
        focus=None if focus is None else j.classes.index(focus), malignant=malignant, answered_N=answered,
    )  # fmt: skip
    return {
        "subgroups": {
            "columns": [{"name": d.name, "note": d.note, "levels": list(d.levels), "bounds": list(d.bounds)} for d in columns],
            "subgroups": [one.as_dict() for one in found],
            "comparisons": comparisons(found),
            "focus": focus,
            "coverage": coverage,
            "by_rule": answered is not None and coverage is None,
            "least_groups": MIN_GROUPS,
            "least_class_groups": MIN_CLASS_GROUPS,
        }
    }


def first_focus(j: Evaluation) -> str | None:
    """The class whose sensitivity is measured beside that of all: the first of `evaluate.focus`, or None."""
    return j.focus[0] if j.focus and j.task.has("one_class") else None


def answered_by_rule(j: Evaluation) -> NDArray[np.bool_] | None:
    """(N,) whether the served rule answers, with one class or a set; None if there is no rule that refers images."""
    if j.beyond is None or not (j.beyond.rule.limit or j.beyond.rule.referral or j.beyond.rule.sets):
        return None
    outcome_N = j.beyond.rule.outcomes(j.scores.probs, j.classes, j.beyond.foreignness(j.p))
    return np.array([DECISIONS[i] != "refer" for i in outcome_N], dtype=np.bool_)


def divisions(rows: pd.DataFrame, train: pd.DataFrame | None, further: Sequence[str]) -> list[Division]:
    """The columns by which a set is divided.

    Args:
        rows: metadata of the images, in order.
        train: metadata of the training split, whose terciles bound image quality; None: those of the set itself.
        further: columns named by the user.

    Raises:
        ConfigError: one of these columns does not exist.
    """
    absent = [name for name in further if name not in rows]
    if absent:
        raise ConfigError(
            f"evaluate.subgroups: the set has no column '{absent[0]}'{nearest(absent[0], list(rows.columns))}; "
            f"it has {', '.join(map(str, rows.columns))}"
        )
    found = [by_age(rows)]
    found += [divide(name, *_common(texts(rows, name))) for name in ("sex", "site", "source")]
    found += [d for name in THIRDS if (d := _by_third(name, rows, train)) is not None]
    if "ita" in rows:
        bands = [ita_band(float(value)) for value in rows["ita"]]
        found.append(divide("ita", bands, [*(name for name, _ in ITA_BANDS), CAST], _tone_note()))
    return [*found, *(divide(name, *_common(texts(rows, name))) for name in further if name not in {d.name for d in found})]


def by_age(rows: pd.DataFrame) -> Division:
    """Age groups, all unknown if there is no such column."""
    edges = [0, *AGES]
    names = [*(f"{a}-{b - 1}" for a, b in zip(edges, AGES, strict=False)), f"{AGES[-1]}+"]
    ages = rows["age"].astype(float) if "age" in rows else [float("nan")] * len(rows)
    return divide(
        "age", [None if np.isnan(age) else names[int(np.searchsorted(AGES, age, side="right"))] for age in ages], names
    )


def _by_third(name: str, rows: pd.DataFrame, train: pd.DataFrame | None) -> Division | None:
    """Thirds of the training split; None if the bounds are equal."""
    measure, levels = THIRDS[name]
    own = _numbers(rows, measure)
    known = own if train is None else _numbers(train, measure)
    known = known[~np.isnan(known)]
    low, high = np.quantile(known, [1 / 3, 2 / 3]) if len(known) else (np.nan, np.nan)
    if not low < high:
        return None
    part = "the training split" if train is not None else "this set"
    note = f"thirds of {part}, bounded by {low:.3f} and {high:.3f}: {NOTES[name]}"
    values = [None if np.isnan(v) else levels[int(np.searchsorted([low, high], v, side="right"))] for v in own]
    return replace(divide(name, values, levels, note), bounds=(float(low), float(high)))


def _numbers(rows: pd.DataFrame, measure: str) -> NDArray[np.float64]:
    if measure == "megapixels":
        if not {"width", "height"} <= set(rows.columns):
            return np.full(len(rows), np.nan)
        return np.asarray(rows["width"].astype("Float64") * rows["height"].astype("Float64") / 1e6, dtype=np.float64)
    return np.asarray(rows[measure] if measure in rows else np.full(len(rows), np.nan), dtype=np.float64)


def texts(rows: pd.DataFrame, name: str) -> list[str | None]:
    """Values of a column, None if a value is missing or blank or the column is absent."""
    from dermalyze.data.grouping import keys

    return [value if isinstance(value, str) else None for value in keys(rows, name)]


def _common(values: list[str | None]) -> tuple[list[str | None], list[str] | None, str]:
    """Values with the rare ones merged if there are many, the levels in order, and a note on the merge."""
    counts: dict[str, int] = {}
    for value in values:
        if value is not None:
            counts[value] = counts.get(value, 0) + 1
    if len(counts) <= LEVELS:
        return values, None, ""
    kept = sorted(sorted(counts, key=lambda value: (-counts[value], value))[: LEVELS - 1])
    other = f"{len(counts) - len(kept)} others"
    shown = [value if value is None or value in kept else other for value in values]
    return shown, [*kept, other], f"the {len(kept)} most common of {len(counts)} values, the others merged"


def _tone_note() -> str:
    bounds = ", ".join(f"{name} to {upper:g}" for name, upper in ITA_BANDS[:-1])
    return (
        "individual typology angle of the skin around the lesion, estimated from the photograph; bands of degrees: "
        f"{bounds}, {ITA_BANDS[-1][0]} above. White balance, exposure and polarized light change it: it compares images, and "
        "people only if the camera is calibrated. It is not a Fitzpatrick type. Skin that is bluer than gray has no band "
        f"({CAST})"
    )


# -- the page ------------------------------------------------------------------------------------------------------


def view(m: Json) -> dict[str, Any] | None:
    """One table per column; a column without values is only named."""
    f = m["subgroups"]
    if f is None:
        return None
    shown = [name for name in MEASURES if name not in HIDDEN and any(name in one["values"] for one in f["subgroups"])]
    tables, unknown = [], []
    for column in f["columns"]:
        if column["levels"] == [UNKNOWN]:
            unknown.append(TITLES.get(column["name"], column["name"]))
            continue
        rows = [one for one in f["subgroups"] if one["column"] == column["name"]]
        tables.append(
            {
                "title": TITLES.get(column["name"], column["name"]),
                "note": column["note"],
                "rows": [
                    {
                        "level": one["level"],
                        "n": one["n"],
                        "groups": one["groups"],
                        "cells": [_cell(one, name) for name in shown],
                    }
                    for one in rows
                ],
            }
        )
    return {
        "tables": tables,
        "unknown": ", ".join(unknown),
        "measures": [measure_title(f, name) for name in shown],
        "coverage": None if f["coverage"] is None else f"{100 * f['coverage']:g} %",
        "by_rule": f["by_rule"],
        "comparisons": f"{f['comparisons']:,}",
        "least": (f["least_groups"], f["least_class_groups"]),
        "largest": [
            (
                f"{TITLES.get(one['column'], one['column'])}: {one['level']}",
                measure_title(f, name),
                *cell(one["gaps"][name]),
                _p(p),
            )
            for p, name, one in _telling(f)
        ],
    }


def measure_title(f: Json, name: str) -> str:
    """A measure's name on the page; the sensitivity is that of one class."""
    return f"sensitivity: {describe(f['focus'])}" if name == "sensitivity" else MEASURES[name][0]


def _cell(one: Json, name: str) -> dict[str, Any]:
    estimate = one["values"][name]
    value, interval = cell(estimate) if estimate["value"] is not None else ("–", f"n = {estimate['n']}")
    adjusted = one["adjusted"].get(name)
    return {"value": value, "interval": interval, "marked": adjusted is not None and adjusted < SIGNIFICANT}


def _p(p: float) -> str:
    return "below 0.001" if p < 0.001 else f"{p:.3f}"


def _telling(f: Json, most: int = 12) -> list[tuple[float, str, Json]]:
    """Gaps that remain after the correction, the smallest p-value first."""
    found = [(p, name, one) for one in f["subgroups"] for name, p in one["adjusted"].items() if p < SIGNIFICANT]
    return sorted(found, key=lambda row: (row[0], row[2]["column"], row[2]["level"], row[1]))[:most]


def figures(m: Json, j: Evaluation) -> dict[str, Figure]:
    """Gaps to all other images, as dots with intervals."""
    f = m["subgroups"]
    tested = [one for one in f["subgroups"] if any(gap["low"] is not None for gap in one["gaps"].values())]
    names = [name for name in DRAWN if any(one["gaps"].get(name, {}).get("low") is not None for one in tested)]
    if not names:
        return {}
    titles = [measure_title(f, name) for name in names]
    data = gap_plot(tested, names, titles, title=figure_title("Subgroup gaps", m), leak=m["accepted_leak"])
    said = (
        "Subgroup gaps: each metric in a subgroup minus the same metric in all other images, with its interval. The line is at "
        "no gap. Filled: the gap remains after Holm's correction for all comparisons (red: worse, blue: better); hollow: it "
        "may be chance. A different mix of diagnoses can also cause a gap."
    )
    return {"subgroup_gaps.png": Figure(data, said)}


def gap_plot(
    tested: Sequence[Json], names: Sequence[str], titles: Sequence[str], *, title: str, leak: str | None = None
) -> bytes:
    """One row per subgroup, by column; one panel per metric, with its title."""
    places: list[float] = []
    heads: list[tuple[float, str]] = []
    at = 0.0
    for one, before in zip(tested, [None, *tested], strict=False):
        if before is None or one["column"] != before["column"]:
            heads.append((at + 0.15, str(TITLES.get(one["column"], one["column"]))))
            at += 1
        places.append(at)
        at += 1

    def paint(canvas: Canvas) -> None:
        first = None
        for k, name in enumerate(names):
            axes = canvas.add_subplot(1, len(names), k + 1, sharey=first)
            axes.axvline(0, color=QUIET, linewidth=0.9)
            for one, y in zip(tested, places, strict=True):
                gap = one["gaps"].get(name)
                if gap is None or gap["low"] is None:
                    continue
                significant = one["adjusted"].get(name, 1.0) < SIGNIFICANT
                good = MEASURES[name][1] * gap["value"] if significant else 0.0
                color = ALARM if good < 0 else ACCENT if good > 0 else INK
                axes.plot([gap["low"], gap["high"]], [y, y], color=color, linewidth=1.6 if significant else 1.0)
                face = color if significant else "white"
                axes.plot(gap["value"], y, "o", markersize=5, markerfacecolor=face, markeredgecolor=color)
            axes.set_title(titles[k], loc="left", fontsize=9)
            axes.grid(axis="x", color=GRID, linewidth=0.7)
            axes.set_axisbelow(True)
            axes.tick_params(axis="y", length=0)
            axes.locator_params(axis="x", nbins=4)
            axes.spines["left"].set_visible(False)
            if first is None:
                first = axes
                axes.set_yticks(places, [f"{one['level']}  ({one['n']:,})" for one in tested], fontsize=9)
                axes.set_ylim(at - 0.4, -0.4)
                for y, head in heads:
                    axes.annotate(
                        head, (0, y), xycoords=("axes fraction", "data"), xytext=(-6, 0), textcoords="offset points",
                        ha="right", va="center", color=ACCENT, fontsize=9.5, fontweight="bold",
                    )  # fmt: skip
            else:
                axes.tick_params(labelleft=False)

    return draw(9.6, 1.1 + 0.22 * at, title, leak, paint)
