"""How well each source of uncertainty separates correct from wrong predictions, on the same images."""

# Shapes: N images, S passes, C classes.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from dermalyze.metrics import bootstrap, uncertainty
from dermalyze.metrics import selective as silence
from dermalyze.metrics.classification import Tally, defined
from dermalyze.metrics.ranking import Floats, spearman_p
from dermalyze.report import figures
from dermalyze.report.evaluation_data import Evaluation, Json, scores_of
from dermalyze.report.section import Figure, figure_title
from dermalyze.report.selective_prediction import quality
from dermalyze.report.style import GRID, QUIET, class_styles
from dermalyze.report.text import cell, number, with_p
from dermalyze.scoring.predictions import Predictions
from dermalyze.tasks.answering import Answering

SOURCE_NAMES = {
    "max_probability": "largest probability",
    "margin": "margin over the second class",
    "neg_entropy": "entropy of the prediction",
    "expected_entropy": "mean entropy of the passes (aleatoric)",
    "mutual_information": "mutual information (epistemic)",
    "variance": "variance of the passes",
    "disagreement": "disagreement of the passes",
}
"""Sources of the prediction, then those of several passes, in the order of the page."""


def confidences(p: Predictions, probs_NC: Floats) -> dict[str, Floats]:
    """(N,) of each source, higher is more confident: of the calibrated prediction, and of the uncalibrated passes if they are
    stored; with several labels per image, the least confident."""
    found = {name: silence.confidence_of(name, p.task.choices(probs_NC)) for name in silence.CONFIDENCES}
    probs_NSC = p.sample_probs()
    if probs_NSC is not None:
        choices = p.task.choices(probs_NSC)
        found |= {name: -uncertainty.summed(of, choices) for name, of in uncertainty.SOURCES.items() if name in SOURCE_NAMES}
    return found


def build(j: Evaluation) -> dict[str, Any]:
    """Each recipe's sources: quality, AURC with its interval, and its difference from the served recipe's own confidence."""
    recipes = [(j.p, j.answering), *j.others]
    aurcs: dict[tuple[str, str], Callable[[Tally], Floats]] = {}
    rows: list[dict[str, Any]] = []
    for p, answering in recipes:
        row, metrics = _recipe(p, answering)
        rows.append(row)
        aurcs |= {(row["recipe"], source): metric for source, metric in metrics.items()}
    base = (rows[0]["recipe"], silence.CONFIDENCE)
    resampled = bootstrap.resample(
        j.scores, j.p.groups, {f"{r}/{s}": metric for (r, s), metric in aurcs.items()},
        resamples=j.spec.resamples, seed=j.spec.seed,
    )  # fmt: skip
    best = rows[0]["sources"][silence.CONFIDENCE]["aurc"]
    settings: dict[str, Any] = {"n": len(j.p), "groups": len(set(j.p.groups)), "level": j.spec.level}
    for row in rows:
        for source, values in row["sources"].items():
            value, found = values["aurc"], resampled[f"{row['recipe']}/{source}"]
            apart = found - resampled["/".join(base)]
            value, best_value = (np.nan if v is None else v for v in (value, best))
            values["aurc"] = bootstrap.estimate(value, found, **settings).as_dict()
            values["difference"] = bootstrap.estimate(value - best_value, apart, **settings).as_dict()
    return {"uncertainty": {"base": {"recipe": base[0], "source": base[1]}, "recipes": rows}}


def _recipe(p: Predictions, answering: Answering) -> tuple[dict[str, Any], dict[str, Callable[[Tally], Floats]]]:
    """A recipe's row without intervals, and the AURC of each source as a metric."""
    scores = scores_of(p, answering)
    wrong = (~scores.right).astype(np.float64)
    losses = {"spearman_brier": scores.squared_errors, "spearman_log_loss": scores.log_losses}
    known, groups = confidences(p, scores.probs), len(set(p.groups))
    figures_of = {
        source: {
            **quality(confidence, wrong, groups),
            **{name: silence.spearman_of(confidence, loss) for name, loss in losses.items()},
        }
        for source, confidence in known.items()
    }
    for values in figures_of.values():
        values |= {f"{name}_p": spearman_p(values[name], groups) for name in losses}
    row = {
        "recipe": p.meta["recipe"],
        "passes": 1 if p.samples is None else p.samples.shape[1],
        "members": p.meta.get("members"),
        "calibrator": answering.calibrator.kind,
        "metrics": {
            "accuracy": defined(scores.right.mean()) if len(p) else None,
            "log_loss": defined(scores.log_losses.mean()) if len(p) else None,
            "brier": defined(scores.squared_errors.mean()) if len(p) else None,
        },
        "sources": figures_of,
    }
    return row, {source: silence.aurc_metric(confidence, wrong) for source, confidence in known.items()}


def title_of(row: Json) -> str:
    """The title of a recipe with its number of passes.

    >>> title_of({"recipe": "flips", "passes": 4, "members": None}), title_of({"recipe": "plain", "passes": 5, "members": 5})
    ('flips, 4 passes', 'plain, 5 members')
    """
    kind = "member" if row["members"] else "pass"
    count = row["passes"]
    return f"{row['recipe']}, {count} {kind}" + ("" if count == 1 else "s" if row["members"] else "es")


def view(m: Json) -> dict[str, Any] | None:
    """What the page shows on sources of uncertainty; None for a single pass, which "Selective prediction" covers."""
    u = m["uncertainty"]
    if all(row["passes"] == 1 for row in u["recipes"]) and len(u["recipes"]) == 1:
        return None
    keys = ("e_aurc", "augrc", "error_auroc")
    return {
        "base": f"{SOURCE_NAMES[u['base']['source']]}, {u['base']['recipe']}",
        "others": len(u["recipes"]) > 1,
        "ensemble": any(row["members"] for row in u["recipes"]),
        "dropout": any(row["recipe"] == "mc_dropout" for row in u["recipes"]),
        "recipes": [
            {
                "title": title_of(row),
                "figures": [number(row["metrics"][name]) for name in ("accuracy", "log_loss", "brier")],
                "rows": [
                    (
                        SOURCE_NAMES[source],
                        [cell(values["aurc"]), cell(values["difference"])],
                        [
                            *(number(values[key]) for key in keys),
                            *(with_p(values[name], values[f"{name}_p"]) for name in ("spearman", "spearman_brier")),
                        ],
                    )
                    for source, values in row["sources"].items()
                ],
            }
            for row in u["recipes"]
        ],
    }


def draw(m: Json, j: Evaluation) -> dict[str, Figure]:
    """AURC of every source and recipe."""
    u = m["uncertainty"]
    rows = [(title_of(row), {SOURCE_NAMES[s]: v["aurc"] for s, v in row["sources"].items()}) for row in u["recipes"]]
    axis, title = "AURC: mean error rate over coverages, lower is better", figure_title("Sources of uncertainty", m)
    return {
        "uncertainty.png": Figure(
            dots_by_source(rows, list(SOURCE_NAMES.values()), axis=axis, title=title, leak=m["accepted_leak"]),
            "Sources of uncertainty: the error rate that remains when the most confident images are answered first, by source "
            "and recipe. Further left is better. If intervals overlap widely, the sources do not differ much. The dashed "
            "line is the largest probability of the served recipe.",
        )
    }


def dots_by_source(
    rows: Sequence[tuple[str, Mapping[str, Json]]],
    sources: Sequence[str],
    *,
    axis: str,
    title: str,
    leak: str | None = None,
) -> bytes:
    """One line per source with one dot and interval per row; the dashed line is the first source of the first row.

    Args:
        rows: name, and an estimate by source; not every row needs every source.
        sources: in order, from the top.
        axis: what is measured.
    """
    styles = class_styles([name for name, _ in rows])
    shown = [source for source in sources if any(source in found for _, found in rows)]

    def paint(figure: Canvas) -> None:
        axes = figure.subplots()
        base = rows[0][1][shown[0]]["value"]
        if base is not None:
            axes.axvline(base, color=QUIET, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        for k, ((name, found), style) in enumerate(zip(rows, styles, strict=True)):
            shift = 0.6 * ((k + 0.5) / len(rows) - 0.5)
            axes.plot([], [], style.marker, color=style.colour, markersize=6, label=name)
            for place, source in enumerate(shown):
                if source not in found or found[source]["value"] is None:
                    continue
                one, y = found[source], place + shift
                if one["low"] is not None:
                    axes.plot([one["low"], one["high"]], [y, y], "-", color=style.colour, linewidth=1.6, zorder=2)
                axes.plot(one["value"], y, style.marker, color=style.colour, markersize=6, zorder=3)
        axes.set_yticks(range(len(shown)), shown)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlabel(axis)
        axes.grid(axis="x", color=GRID, linewidth=0.7)
        axes.hlines(np.arange(len(shown) - 1) + 0.5, 0, 1, transform=axes.get_yaxis_transform(), color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

    return figures.draw(9.0, 1.4 + len(shown) * max(0.4, 0.17 * len(rows)), title, leak, paint)
