"""Largest errors, with images: the wrong predictions with the highest confidence."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from dermalyze.config.classes import describe
from dermalyze.report.evaluation_data import Evaluation, Json
from dermalyze.report.figures import draw
from dermalyze.report.section import Figure, figure_title
from dermalyze.report.style import QUIET

WORST = 8
"""Errors shown of each kind."""
COLUMNS = 4
WIDTH_IN = 9.6


def build(j: Evaluation) -> dict[str, Any]:
    """Wrong predictions with the highest probability, one per group: of all images, and of each class of `evaluate.focus`."""
    scores = j.scores
    wrong = scores.predicted != scores.labels
    missed = {name: wrong & (scores.labels == j.classes.index(name)) for name in j.focus}
    return {"largest_errors": {"all": _kind(j, wrong), "missed": {name: _kind(j, among) for name, among in missed.items()}}}


def _kind(j: Evaluation, among_N: NDArray[np.bool_]) -> dict[str, Any]:
    return {"mistakes": int(among_N.sum()), "worst": _worst(j, among_N)}


def _worst(j: Evaluation, among_N: NDArray[np.bool_]) -> list[dict[str, Any]]:
    scores = j.scores
    confidence = scores.probs.max(axis=1)
    chosen: dict[str, int] = {}
    for row in sorted(np.flatnonzero(among_N), key=lambda row: (-confidence[row], j.p.ids[row])):
        chosen.setdefault(j.p.groups[row], int(row))
        if len(chosen) == WORST:
            break
    return [
        {
            "image_id": j.p.ids[row],
            "label": j.classes[scores.labels[row]],
            "called": j.classes[scores.predicted[row]],
            "probability": float(confidence[row]),
            "of_label": float(scores.probs[row, scores.labels[row]]),
        }
        for row in chosen.values()
    ]


def view(m: Json) -> dict[str, Any] | None:
    """The number of errors, and the largest as a table; None without errors."""
    kinds = m["largest_errors"]
    if not kinds["all"]["mistakes"]:
        return None
    return {
        "mistakes": f"{kinds['all']['mistakes']:,} of {m['n_images']:,} predictions are wrong.",
        "rows": [
            (one["image_id"], one["label"], one["called"], f"{one['probability']:.3f}", f"{one['of_label']:.3f}")
            for one in kinds["all"]["worst"]
        ],
    }


def figures(m: Json, j: Evaluation) -> dict[str, Figure]:
    """The images, if they are available."""
    shown = {
        "largest_errors.png": (
            m["largest_errors"]["all"],
            "Largest errors",
            "Largest errors: the wrong predictions with the highest confidence, one per group. Above each image: its label, "
            "the predicted class and its probability. Look for common features: a mark, a crop, a doubtful label.",
        )
    }
    for name, kind in m["largest_errors"]["missed"].items():
        title = f"Missed images of {describe(name)}"
        said = f"{title}: those predicted as another class with the highest probability, one per group."
        shown[missed_name(name, j.classes.index(name))] = (kind, title, said)
    drawn = {}
    for file, (kind, title, said) in shown.items():
        worst = kind["worst"]
        thumbnails = [j.thumbnail(one["image_id"]) for one in worst] if j.thumbnail is not None else []
        if any(pixels is not None for pixels in thumbnails):
            sheet = contact_sheet(worst, thumbnails, title=figure_title(title, m), leak=m["accepted_leak"])
            drawn[file] = Figure(sheet, said)
    return drawn


def missed_name(name: str, index: int) -> str:
    """Name of the figure of a class's missed images; with the class's index where its name is no plain file name.

    >>> missed_name("mel", 4), missed_name("grade 2/3", 1)
    ('missed_mel.png', 'missed_grade_2_3_1.png')
    """
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower())
    return f"missed_{plain}.png" if plain == name else f"missed_{plain}_{index}.png"


def contact_sheet(
    worst: list[dict[str, Any]], thumbnails: list[NDArray[np.uint8] | None], *, title: str, leak: str | None = None
) -> bytes:
    """Images in rows of four, each below its label and prediction; an image that cannot be read leaves an empty frame."""
    rows = -(-len(worst) // COLUMNS)
    shapes = [pixels.shape for pixels in thumbnails if pixels is not None]
    aspect = max(height / width for height, width, _ in shapes)
    height_in = rows * (WIDTH_IN / COLUMNS * min(aspect, 1.4) + 0.3)

    def paint(canvas: Canvas) -> None:
        for place, (one, pixels) in enumerate(zip(worst, thumbnails, strict=True)):
            axes = canvas.add_subplot(rows, COLUMNS, place + 1)
            axes.set_title(
                f"{one['label']}, predicted {one['called']} {one['probability']:.2f}", loc="left", fontsize=9.5, pad=3
            )
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if pixels is None:
                axes.text(0.5, 0.5, "not available", ha="center", va="center", color=QUIET, transform=axes.transAxes)
            else:
                axes.imshow(pixels, interpolation="bilinear")

    return draw(WIDTH_IN, height_in, title, leak, paint)
