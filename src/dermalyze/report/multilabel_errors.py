"""Largest errors per label: misses with the lowest probability and false positives with the highest."""

from __future__ import annotations

from typing import Any

import numpy as np

from dermalyze.report.evaluation_data import Evaluation, Json
from dermalyze.report.largest_errors import WORST, contact_sheet
from dermalyze.report.section import Figure, figure_title


def build(j: Evaluation) -> dict[str, Any]:
    """Number of missed and false positive labels, and the largest errors among them, one per group."""
    s = j.scores
    missed, alarms = s.positive & ~s.called, s.negative & s.called
    return {
        "largest_errors": {
            "missed": {"mistakes": int(missed.sum()), "worst": _worst(j, missed, 1 - s.probs)},
            "alarms": {"mistakes": int(alarms.sum()), "worst": _worst(j, alarms, s.probs)},
        }
    }


def _worst(j: Evaluation, among: Any, how_wrong: Any) -> list[dict[str, Any]]:
    pairs = [(-how_wrong[n, c], j.p.ids[n], n, c) for n, c in np.argwhere(among)]
    chosen: dict[str, dict[str, Any]] = {}
    for _, image_id, n, c in sorted(pairs):
        name = j.classes[c]
        one = {"image_id": image_id, "of": name, "probability": float(j.scores.probs[n, c])}
        there = bool(j.scores.positive[n, c])
        words = {"label": name, "called": f"no {name}"} if there else {"label": f"no {name}", "called": name}
        chosen.setdefault(j.p.groups[n], {**one, **words})
        if len(chosen) == WORST:
            break
    return list(chosen.values())


def view(m: Json) -> dict[str, Any] | None:
    """The number of errors, and the largest as a table; None without errors."""
    missed, alarms = m["largest_errors"]["missed"], m["largest_errors"]["alarms"]
    if not missed["mistakes"] and not alarms["mistakes"]:
        return None
    return {
        "mistakes": f"{missed['mistakes']:,} labels were missed and {alarms['mistakes']:,} were false positives.",
        "rows": [(one["image_id"], one["label"], one["called"], f"{one['probability']:.3f}")
                 for one in (*missed["worst"], *alarms["worst"])],
    }  # fmt: skip


def figures(m: Json, j: Evaluation) -> dict[str, Figure]:
    """The images, if they are available."""
    titles = {"missed": ("Missed labels", "missed_labels.png"), "alarms": ("False positive labels", "false_alarms.png")}
    said = {
        "missed": "Missed labels: present labels with the lowest probability, one per group. Above each image: its label, the "
        "prediction and the label's probability.",
        "alarms": "False positive labels: absent labels predicted with the highest probability, one per group.",
    }
    found = {}
    for kind, (name, file) in titles.items():
        worst = m["largest_errors"][kind]["worst"]
        thumbnails = [j.thumbnail(one["image_id"]) for one in worst] if j.thumbnail is not None else []
        if any(pixels is not None for pixels in thumbnails):
            sheet = contact_sheet(worst, thumbnails, title=figure_title(name, m), leak=m["accepted_leak"])
            found[file] = Figure(sheet, said[kind])
    return found
