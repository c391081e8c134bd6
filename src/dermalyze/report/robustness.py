"""Corruption robustness: metrics on corrupted copies of the test images, by kind and severity and on average."""

# Shapes: N images, R resamples.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from dermalyze.calibration.decision_rule import DECISIONS
from dermalyze.config.classes import describe
from dermalyze.imaging.corruptions import CORRUPTIONS, SEVERITIES
from dermalyze.metrics import bootstrap
from dermalyze.metrics.ranking import Floats
from dermalyze.report.evaluation_data import Evaluation, Json
from dermalyze.report.figures import draw
from dermalyze.report.section import Figure
from dermalyze.report.style import GRID, INK, QUIET
from dermalyze.report.text import cell
from dermalyze.scoring.predictions import Predictions

BEFORE_FOCUS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}
AFTER_FOCUS = {
    "ece": "ECE",
    "macro_f1": "macro F1",
    "macro_ece": "macro ECE",
    "referred": "referred",
}


def columns(focus: Sequence[str]) -> dict[str, str]:
    """Key in the file to title on the page of every metric, in order; one sensitivity per class of `evaluate.focus`.

    >>> list(columns(["mel"]))[:4]
    ['accuracy', 'balanced_accuracy', 'sensitivity_mel', 'ece']
    """
    return {**BEFORE_FOCUS, **{f"sensitivity_{name}": f"sensitivity: {describe(name)}" for name in focus}, **AFTER_FOCUS}


def build(j: Evaluation) -> dict[str, Any]:
    """Metrics per kind and severity, with means over severities and over all; null without corrupted copies."""
    copies = j.beyond.corrupted if j.beyond is not None else None
    if copies is None:
        return {"corruptions": None}
    place = {image_id: i for i, image_id in enumerate(copies.ids)}
    names = list(dict.fromkeys(image_id.rsplit("/", 2)[0] for image_id in copies.ids))
    own = {image_id: i for i, image_id in enumerate(j.p.ids)}
    clean = _one(j, j.p, [own[name] for name in names])
    found: dict[str, dict[int, dict[str, _Found]]] = {}
    for kind in CORRUPTIONS:
        rows = {s: [place[f"{name}/{kind}/{s}"] for name in names] for s in SEVERITIES}
        found[kind] = {s: _one(j, copies, chosen) for s, chosen in rows.items()}
    everything = [one for of_kind in found.values() for one in of_kind.values()]
    return {
        "corruptions": {
            "images": len(names),
            "groups": len({j.p.groups[own[name]] for name in names}),
            "clean": {key: one.estimate(j) for key, one in clean.items()},
            "kinds": {
                kind: {
                    "severities": {
                        str(s): {key: one.estimate(j) for key, one in values.items()} for s, values in of_kind.items()
                    },
                    "mean": {key: _mean([values[key] for values in of_kind.values()]).estimate(j) for key in clean},
                }
                for kind, of_kind in found.items()
            },
            "mean": {key: _mean([values[key] for values in everything]).estimate(j) for key in clean},
        }
    }


class _Found:
    """A metric on the set and on each resample, (R,); the resamples of all copies contain the same groups."""

    def __init__(self, metric: str, value: float, drawn_R: Floats, n: int, groups: int, *, basic: bool) -> None:
        self.metric, self.value, self.drawn_R, self.n, self.groups, self.basic = metric, value, drawn_R, n, groups, basic

    def estimate(self, j: Evaluation) -> dict[str, Any]:
        interval: bootstrap.Interval = "basic" if self.basic else "percentile"
        return bootstrap.estimate(
            self.value, self.drawn_R, n=self.n, groups=self.groups, level=j.spec.level, interval=interval,
            share=bootstrap.is_share(self.metric),
        ).as_dict()  # fmt: skip


def _mean(parts: list[_Found]) -> _Found:
    """The mean of one metric over kinds or severities."""
    first = parts[0]
    drawn_R = np.mean([part.drawn_R for part in parts], axis=0)
    value = float(np.mean([part.value for part in parts]))
    return _Found(first.metric, value, drawn_R, first.n, first.groups, basic=first.basic)


def _one(j: Evaluation, p: Predictions, rows: list[int]) -> dict[str, _Found]:
    """Every metric of some rows of the predictions."""
    assert j.beyond is not None
    chosen = np.array(rows, dtype=np.int64)
    embedding = p.embedding[chosen] if p.embedding is not None else None
    part = Predictions(
        [p.ids[i] for i in rows], [p.groups[i] for i in rows], p.labels[chosen], p.logits[chosen], embedding, p.meta
    )
    scores: Any = j.answering.scores(part.labels, part.logits)
    outcome_N = j.beyond.rule.outcomes(j.answering.probabilities(part.logits), part.classes, j.beyond.foreignness(part))
    referred_N = np.array([DECISIONS[i] == "refer" for i in outcome_N], dtype=np.float64)
    table = {**j.task.robust_metrics(j.spec.ece_bins), "referred": bootstrap.mean_of(referred_N)}
    among = np.ones(len(rows), dtype=bool)
    rests_on = dict.fromkeys(table, among)
    for name in j.focus if j.task.has("one_class") else ():
        of_class_N = part.labels == part.classes.index(name)
        table[f"sensitivity_{name}"] = bootstrap.mean_of(scores.right.astype(np.float64), of_class_N)
        rests_on[f"sensitivity_{name}"] = of_class_N
    drawn = bootstrap.resample(scores, part.groups, table, resamples=j.spec.resamples, seed=j.spec.seed)
    whole = scores.under(np.ones((len(rows), 1)))
    index, _ = bootstrap.group_index(part.groups)
    return {
        key: _Found(
            key,
            float(table[key](whole)[0]),
            drawn[key],
            int(rests_on[key].sum()),
            len(np.unique(index[rests_on[key]])),
            basic=key in j.task.basic,
        )
        for key in columns(j.focus)
        if key in table
    }


def view(m: Json) -> dict[str, Any] | None:
    """One table: one row per kind and severity, one column per metric; clean images first, the mean of all last."""
    c = m["corruptions"]
    if c is None:
        return None
    titles = {key: title for key, title in columns(m["focus"]).items() if key in c["clean"]}

    def row(name: str, values: Mapping[str, Any]) -> tuple[str, list[tuple[str, str]]]:
        return name, [cell(values[key]) for key in titles]

    kinds = []
    for kind, of_kind in c["kinds"].items():
        kinds.append([row(f"{kind} {s}", values) for s, values in of_kind["severities"].items()])
    return {
        "images": c["images"],
        "groups": c["groups"],
        "columns": list(titles.values()),
        "means": [
            row("not corrupted", c["clean"]),
            *(row(f"{kind}, mean of five", one["mean"]) for kind, one in c["kinds"].items()),
            row("mean of all", c["mean"]),
        ],
        "each": [one for of_kind in kinds for one in of_kind],
    }


_LINES = (
    ("#E69F00", "-", "o"), ("#56B4E9", (0, (5, 1.5)), "s"), ("#009E73", (0, (1.2, 1)), "^"), ("#4D4D4D", "-", "X"),
    ("#D55E00", (0, (5, 1.5, 1.2, 1.5)), "v"), ("#0072B2", (0, (8, 2)), "P"), ("#CC79A7", (0, (3, 1, 1, 1)), "D"),
)  # fmt: skip


def draw_figures(m: Json, j: Evaluation) -> dict[str, Figure]:
    """Accuracy by severity, one line per kind of corruption."""
    c = m["corruptions"]
    title = f"Corruption robustness: {c['images']:,} test images, recipe {m['recipe']}"
    data = accuracy_by_severity(c, title=title, leak=m["accepted_leak"])
    caption = (
        "Accuracy by severity: each line is one kind of corruption, from the original images (0) to the strongest (5). "
        "A line that falls early shows a corruption that photographs must avoid."
    )
    return {"corruptions.png": Figure(data, caption)}


def accuracy_by_severity(c: Json, *, title: str, leak: str | None = None) -> bytes:
    """One line per kind, with its name at the end, moved apart from the other names."""

    def paint(canvas: Canvas) -> None:
        axes = canvas.subplots()
        clean, lines = c["clean"]["accuracy"]["value"], []
        for (kind, of_kind), (color, dash, marker) in zip(c["kinds"].items(), _LINES, strict=True):
            each = [of_kind["severities"][str(s)]["accuracy"] for s in SEVERITIES]
            y = [clean, *(one["value"] for one in each)]
            axes.plot((0, *SEVERITIES), y, color=color, linestyle=dash, marker=marker, markersize=4.5, linewidth=1.6)
            lines.append((y[-1], kind, color))
        lines.sort()
        low, high = axes.get_ylim()
        places = spread([y for y, _, _ in lines], 0.055 * (high - low))
        for (y, kind, color), place in zip(lines, places, strict=True):
            arrow = {"arrowstyle": "-", "color": color, "linewidth": 0.9, "shrinkA": 1, "shrinkB": 3}
            axes.annotate(
                kind, (5, y), xytext=(5.22, place), color=INK, fontsize=10, va="center", annotation_clip=False, arrowprops=arrow
            )
        axes.plot((0, 5), (clean, clean), color=QUIET, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.set(xlim=(-0.1, 5.85), xticks=(0, *SEVERITIES))
        axes.set_xlabel("severity (0: original)")
        axes.set_ylabel("accuracy")
        axes.grid(color=GRID, linewidth=0.7, axis="y")
        axes.set_axisbelow(True)

    return draw(7.2, 4.4, title, leak, paint)


def spread(places: list[float], gap: float) -> list[float]:
    """Ascending positions, moved apart until neighbors are `gap` from each other, close to where they were.

    >>> [round(p, 2) for p in spread([0.5, 0.5, 0.9], 0.1)]
    [0.45, 0.55, 0.9]
    """
    blocks: list[list[float]] = []  # sum of wished middles, members
    for place in places:
        blocks.append([place, 1.0])
        while len(blocks) > 1 and _end(blocks[-2], gap) > _start(blocks[-1], gap) + 1e-12:
            total, count = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + count]
    return [_start(block, gap) + gap * (k + 0.5) for block in blocks for k in range(int(block[1]))]


def _start(block: list[float], gap: float) -> float:
    return block[0] / block[1] - gap * block[1] / 2


def _end(block: list[float], gap: float) -> float:
    return block[0] / block[1] + gap * block[1] / 2
