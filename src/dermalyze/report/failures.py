"""Largest errors, with images: the wrong predictions with the highest confidence."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from dermalyze.report.evaluation_data import Evaluation, Json
from dermalyze.report.figures import draw
from dermalyze.report.section import Figure, figure_title
from dermalyze.report.style import QUIET

WORST = 8
"""Errors shown of each kind."""
COLUMNS = 4
WIDTH_IN = 9.6


def build(j: Evaluation) -> dict[str, Any]:
    """Wrong predictions with the highest probability, one per group: of all images, and of melanomas if there is that class."""
    scores = j.scores
    wrong = scores.predicted != scores.labels
    kinds = {"all": wrong}
    if "mel" in j.classes:
        kinds["mel"] = wrong & (scores.labels == j.classes.index("mel"))
    return {"failures": {kind: {"mistakes": int(among.sum()), "worst": _worst(j, among)} for kind, among in kinds.items()}}


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
    kinds = m["failures"]
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
    titles = {"all": ("Largest errors", "worst_mistakes.png"), "mel": ("Missed melanomas", "missed_melanomas.png")}
    said = {
        "all": "Largest errors: the wrong predictions with the highest confidence, one per lesion. Above each image: its "
        "label, the predicted class and its probability. Look for common features: hair, ink, a crop, a doubtful label.",
        "mel": "Missed melanomas: those predicted as another class with the highest probability, one per lesion. These are the "
        "most costly errors.",
    }
    drawn = {}
    for kind, (name, file) in titles.items():
        worst = m["failures"].get(kind, {}).get("worst", [])
        pictures = [j.picture(one["image_id"]) for one in worst] if j.picture is not None else []
        if any(pixels is not None for pixels in pictures):
            sheet = contact_sheet(worst, pictures, title=figure_title(name, m), leak=m["accepted_leak"])
            drawn[file] = Figure(sheet, said[kind])
    return drawn


def contact_sheet(
    worst: list[dict[str, Any]], pictures: list[NDArray[np.uint8] | None], *, title: str, leak: str | None = None
) -> bytes:
    """Images in rows of four, each below its label and prediction; an image that cannot be read leaves an empty frame."""
    rows = -(-len(worst) // COLUMNS)
    shapes = [pixels.shape for pixels in pictures if pixels is not None]
    aspect = max(height / width for height, width, _ in shapes)
    height_in = rows * (WIDTH_IN / COLUMNS * min(aspect, 1.4) + 0.3)

    def paint(canvas: Canvas) -> None:
        for place, (one, pixels) in enumerate(zip(worst, pictures, strict=True)):
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
