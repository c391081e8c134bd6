"""The page of a report: one self-contained HTML file. Every number on it comes from `evaluation_metrics.json`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dermalyze.report.figures import PER_CLASS_PANELS, PER_CLASS_TITLES
from dermalyze.report.style import class_styles

if TYPE_CHECKING:
    from jinja2 import Template

Json = Mapping[str, Any]

MEANINGS: dict[str, tuple[str, str, str]] = {  # name in the file: name on the page, best value, meaning
    "accuracy": ("accuracy", "1", "share of images whose most probable class is right; high where a common class is easy"),
    "balanced_accuracy": ("balanced accuracy", "1", "mean sensitivity: every class counts the same, however rare"),
    "macro_precision": ("macro precision", "1", "mean over classes of the share of right calls"),
    "macro_recall": ("macro recall", "1", "the same as balanced accuracy"),
    "macro_f1": ("macro F1", "1", "mean over classes of the harmonic mean of precision and sensitivity"),
    "weighted_precision": ("weighted precision", "1", "precision averaged by number of images"),
    "weighted_recall": ("weighted recall", "1", "the same as accuracy"),
    "weighted_f1": ("weighted F1", "1", "F1 averaged by number of images"),
    "macro_auroc": ("macro AUROC", "1", "mean over classes of ranking one class above the rest; 0.5 is chance"),
    "macro_average_precision": ("macro average precision", "1", "mean area under the precision-recall curves"),
    "log_loss": ("log loss", "0", "mean of −log probability given to the right class, natural logarithm"),
    "brier": ("Brier score", "0", "mean squared error of the probabilities, summed over classes; 2 is the worst"),
    "ece": ("expected calibration error", "0", "mean gap between confidence and share right; noise alone keeps it above 0"),
}  # fmt: skip
PIXELS_PER_DOT = 0.6  # so that letters have one size in all figures
CARDS = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc")
PROVENANCE = {
    "seed": "seed of the experiment",
    "bootstrap_seed": "seed of the bootstrap",
    "config_sha256": "configuration, SHA-256",
    "manifest_sha256": "manifest, SHA-256",
    "predictions_sha256": "predictions, SHA-256",
    "calibration_sha256": "calibration, SHA-256",
    "model_sha256": "model (ONNX graph), SHA-256",
}


def template(name: str) -> Template:
    """A template of this room; all that it prints is escaped, and a name that is not given is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("dermalyze", "report")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=False).get_template(name)


def page(m: Json, images: Mapping[str, bytes]) -> str:
    """The whole page.

    Args:
        m: what stands in evaluation_metrics.json.
        images: PNG bytes by file name, as `dermalyze.report.evaluation.draw` gives them.
    """
    level = f"{100 * m['level']:g} %"
    return template("report.html.jinja").render(
        m=m,
        title=m["title"],
        subtitle=subtitle(m),
        level=level,
        cards=[_card(name, estimate) for name, estimate in headline(m)],
        how_to_read=(
            f"Beneath each figure its {level} interval, from a bootstrap over {m['n_groups']:,} groups (lesions, or patients "
            "where they are known). If two models' intervals overlap widely, this set does not tell which is better."
        ),
        metrics=[_metric_row(name, m) for name in m["metrics"]],
        calibration=calibration_section(m),
        selective=selective_section(m),
        conformal=conformal_section(m),
        class_columns=[PER_CLASS_TITLES[key] for key in PER_CLASS_TITLES],
        classes=_class_rows(m),
        class_note=(
            f"A class of fewer than {m['least_class_groups']} groups has no interval. Precision rests on the images "
            "called so, and depends on "
            "how common the class is in this set: elsewhere it will differ."
        ),
        figures=[
            {
                "data": base64.b64encode(images[name]).decode(),
                "caption": caption,
                "alt": caption.split(":")[0],
                "width_px": round(int.from_bytes(images[name][16:20], "big") * PIXELS_PER_DOT),  # from the PNG's header
            }
            for name, caption in captions(m).items()
            if name in images
        ],
        methods=m["methods"],
        provenance=[(label, m["provenance"][key]) for key, label in PROVENANCE.items() if m["provenance"].get(key) is not None]
        + [("versions", ", ".join(f"{name} {version}" for name, version in m["provenance"]["versions"].items()))],
    )


def subtitle(m: Json) -> str:
    """What was measured on what."""
    part = "Test part" if m["set"] == "test" else f"External set {m['set']}"
    size = f"{m['n_images']:,} images of {m['n_groups']:,} groups, {len(m['classes'])} classes"
    return f"{part}: {size}; inference recipe {m['recipe']}."


def headline(m: Json) -> list[tuple[str, Json]]:
    """The figures that come first: overall ones, the sensitivity for melanoma (or else for the worst class), and ECE."""
    rows = [(MEANINGS[name][0], m["metrics"][name]) for name in CARDS]
    per_class: Json = m["per_class"]
    known = [name for name in per_class if per_class[name]["recall"]["value"] is not None]
    if "mel" in per_class:
        rows.append(("melanoma sensitivity", per_class["mel"]["recall"]))
    elif known:
        worst = min(known, key=lambda name: float(per_class[name]["recall"]["value"]))
        rows.append((f"lowest sensitivity: {worst}", per_class[worst]["recall"]))
    return [*rows, ("calibration error (ECE)", m["metrics"]["ece"])]


def value_text(estimate: Json) -> str:
    """The value, or that it is not estimable.

    >>> value_text({"value": None, "n": 0, "note": "not estimable (n = 0)"})
    'not estimable (n = 0)'
    """
    return f"{estimate['value']:.3f}" if estimate["value"] is not None else f"not estimable (n = {estimate['n']})"


def interval_or_note(estimate: Json) -> str:
    """The interval, or why there is none.

    >>> interval_or_note({"value": 0.5, "low": 0.41, "high": 0.6, "n": 40, "note": ""})
    '0.410 – 0.600'
    """
    if estimate["low"] is not None:
        return f"{estimate['low']:.3f} – {estimate['high']:.3f}"
    return str(estimate["note"]).removeprefix(f"not estimable (n = {estimate['n']})").removeprefix(": ")


def _card(name: str, estimate: Json) -> dict[str, Any]:
    return {
        "name": name,
        "value": value_text(estimate),
        "interval": interval_or_note(estimate),
        "none": estimate["value"] is None,
    }


def _metric_row(name: str, m: Json) -> dict[str, str]:
    title, best, meaning = MEANINGS[name]
    before = (m["validation"] or {}).get(name)
    estimate = m["metrics"][name]
    return {
        "name": title,
        "value": value_text(estimate),
        "interval": interval_or_note(estimate),
        "validation": "–" if before is None else f"{before:.3f}",
        "best": best,
        "meaning": meaning,
    }


def _class_rows(m: Json) -> list[dict[str, Any]]:
    rows = []
    for (name, values), style in zip(m["per_class"].items(), class_styles(m["classes"]), strict=True):
        cells = [
            {"value": value_text(e), "interval": interval_or_note(e), "note": e["low"] is None}
            for e in (values[key] for key in PER_CLASS_TITLES)
        ]
        rows.append(
            {
                "name": name,
                "colour": style.colour,
                "cells": cells,
                **{k: values[k] for k in ("description", "support", "groups")},
            }
        )
    return rows


def calibration_section(m: Json) -> dict[str, Any]:
    """What is said of the probabilities: how they were made, before and after, and beside a perfectly calibrated model."""
    c = m["calibration"]
    fitted = c.get("fitted")
    kind = c["calibrator"].replace("_", " ")
    if c["calibrator"] == "none":
        how = "The probabilities are the plain softmax of the scores; no calibrator stands between them."
    else:
        how = (
            f"Scores become probabilities by a calibrator of kind {kind}, fitted on {fitted['images']:,} images "
            f"({fitted['groups']:,} groups) of the part {fitted['part']}."
        )
    if fitted and fitted["part"] == "val":
        how += " That part was also used for early stopping, so the fit flatters itself a little."
    changed = ("accuracy", "balanced_accuracy", "log_loss", "brier", "ece")
    before = c["before"]["metrics"]
    parts = c["brier_parts"]
    return {
        "how": how,
        "changes": [
            (MEANINGS[name][0], "–" if before[name] is None else f"{before[name]:.3f}", value_text(m["metrics"][name]))
            for name in changed
        ]
        if c["calibrator"] != "none"
        else [],
        "errors": [
            {
                "name": f"{error['bins']} bins of {error['binning']}",
                **{key: "–" if error[key] is None else f"{error[key]:.3f}" for key in ("value", "largest", "perfect", "high")},
                "p": "–" if error["p_value"] is None else f"{error['p_value']:.3f}",
            }
            for error in c["errors"]
        ],
        "classwise": None if c["classwise_ece"] is None else f"{c['classwise_ece']:.3f}",
        "parts": None if parts is None else ", ".join(f"{name} {value:.3f}" for name, value in parts.items()),
        "trials": [
            (t["kind"].replace("_", " "), f"{t['log_loss']:.4f}", t["kind"] == c["calibrator"]) for t in fitted["trials"]
        ]
        if fitted and fitted["trials"]
        else [],
    }


def selective_section(m: Json) -> dict[str, Any]:
    """What is said of keeping silent."""
    s = m["selective"]
    focus = s["focus"] is not None
    columns = ["share answered", "accuracy of the answered"]
    columns += ["melanoma: found among the answered", "melanoma: answered as something else"] if focus else []
    keys = ["coverage", "accuracy", *(["sensitivity", "missed"] if focus else [])]
    names = {"max_probability": "largest probability", "margin": "lead over the second", "neg_entropy": "entropy (negative)"}
    return {
        "columns": columns,
        "part": s["part"],
        "rows": [
            {
                "asked": f"{100 * row['asked']:g} %",
                "threshold": f"{row['threshold']:.3f}",
                "cells": [(value_text(row[key]), interval_or_note(row[key])) for key in keys],
            }
            for row in s["coverages"]
        ],
        "quality": [
            (names[name], ["–" if q[key] is None else f"{q[key]:.3f}" for key in ("error_auroc", "aurc", "e_aurc", "augrc")])
            for name, q in s["quality"].items()
        ],
    }


SET_NAMES = {
    "lac": "least ambiguous (LAC)",
    "aps": "adaptive (APS)",
    "aps_randomised": "adaptive, randomised",
    "raps": "adaptive, regularised (RAPS)",
}


def conformal_section(m: Json) -> dict[str, Any] | None:
    """What is said of answering with a set of classes."""
    c = m["conformal"]
    if c is None:
        return None
    marginal, own = "lac marginal", "lac by class"

    def cell(estimate: Json) -> tuple[str, str]:
        return value_text(estimate), interval_or_note(estimate)

    return {
        "level": f"{100 * c['level']:g} %",
        "part": c["part"],
        "rules": [
            (
                SET_NAMES[name.split()[0]] + (", a threshold a class" if name.endswith("by class") else ""),
                [cell(rule[key]) for key in ("coverage", "size", "single", "empty")],
            )
            for name, rule in c["rules"].items()
        ],
        "classes": [
            {
                "name": name,
                "lesions": c["rules"][own]["by_class"][name]["lesions"],
                "marginal": cell(c["rules"][marginal]["by_class"][name]),
                "own": cell(c["rules"][own]["by_class"][name])
                if c["rules"][own]["by_class"][name]["estimable"]
                else ("not estimable", "too few lesions for this level; the class is in every set"),
            }
            for name in m["classes"]
        ],
    }


def captions(m: Json) -> dict[str, str]:
    """What to see in each figure, by file name."""
    panels = ", ".join(PER_CLASS_PANELS.values())
    return {
        "confusion_matrix.png": (
            "Confusion matrix: a row is a true class, a column what the model called it. Left, each row sums to 1, so "
            "the diagonal is the "
            f"sensitivity; right, the same in images. {confusions(m)}"
        ),
        "roc_curves.png": (
            "ROC curves, each class against all others: up is more of the class found, right is more of the others "
            "called so by mistake. "
            "The closer to the upper left corner the better; a stepped curve means few images, and a wide interval beside it."
        ),
        "per_class_metrics.png": (
            f"Class by class: {panels}. Black lines are intervals; where one is long, the set has too few lesions of "
            "the class to say more. "
            "Look for classes with high AUROC and low sensitivity: the model ranks them well, but calls them something else."
        ),
        "risk_coverage.png": (
            "Keeping silent: when only the surest cases are answered, how many of those answers are wrong. The further the "
            "curve lies below the dotted line, the better the model knows when it is wrong; the dashed line is the best that "
            "the same answers allow. Points: thresholds taken from the calibration part, as they turn out here."
        ),
        "calibration_curve.png": (
            "Reliability diagram: of the answers given with some confidence, the share that is right. On the dotted "
            "line confidence can be taken "
            "at its word; below it the model is overconfident. Below: how many images stand behind each point. "
            "Vertical lines are Wilson intervals "
            "with the number of groups as sample size. The thin grey line, where there is one, is the model before "
            "calibration."
        ),
    }


def confusions(m: Json, most: int = 3) -> str:
    """The commonest mistakes in words.

    >>> confusions({"confusion_matrix": {"labels": ["mel", "nv"], "counts": [[8, 2], [0, 90]]}})
    'The commonest mistakes: mel called nv (2 of 10).'
    """
    labels, counts = m["confusion_matrix"]["labels"], m["confusion_matrix"]["counts"]
    pairs = [(n, i, j) for i, row in enumerate(counts) for j, n in enumerate(row) if i != j and n]
    worst = sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))[:most]
    if not worst:
        return "There is no mistake to show."
    said = [f"{labels[i]} called {labels[j]} ({n:,} of {sum(counts[i]):,})" for n, i, j in worst]
    return f"The commonest mistakes: {', '.join(said)}."
