"""From the scores of maps to grades: which method is faithful for which network, and whether a class depends on the border."""

# Shapes: N images.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dermalyze.explain.border_reliance import assess_rim, worst_place
from dermalyze.explain.faithfulness import FLOORS, grade, mean_with_interval
from dermalyze.explain.runner import Sample, Scores
from dermalyze.report.figures import interval_text

Json = dict[str, Any]
MEASURES: dict[str, tuple[str, str]] = {
    "faithfulness": ("faithfulness", "mean of insertion − deletion over both baselines, −1 to 1; higher is better"),
    "deletion_blur": ("deletion, blurred", "area under p(class) while the hottest pixels are blurred; lower is better"),
    "deletion_mean": ("deletion, mean color", "the same, masked in the mean color; lower is better"),
    "insertion_blur": ("insertion, blurred", "area under p(class) while they are restored; higher is better"),
    "insertion_mean": ("insertion, mean color", "the same from the mean color; higher is better"),
    "energy": ("energy in the lesion", "share of the map's heat inside the expert's mask; higher is nearer to the lesion"),
    "pointing": ("pointing game", "share of images whose hottest pixel is in the lesion"),
    "stability": ("stability", "rank correlation with the map of a slightly changed image; 1 is identical"),
    "unlearnt": (
        "similarity with random weights",
        "rank correlation with the map after the weights were shuffled; near 0 is good",
    ),
    "empty": ("empty maps", "share of images without evidence for the class"),
}
NAMES = {
    "gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++", "layercam": "LayerCAM", "closed_form": "closed-form CAM",
    "rollout": "attention rollout", "gradient_attention": "gradient-weighted attention",
    "integrated_gradients": "integrated gradients", "occlusion": "occlusion", "centre": "centered blob (baseline)",
    "random": "random map (baseline)",
}  # fmt: skip


def grade_network(
    name: str,
    classes: Sequence[str],
    sample: Sample,
    scores: Scores,
    methods: Sequence[str],
    refused: Mapping[str, str],
    **interval: Any,
) -> Json:
    """All results on one network's maps.

    Args:
        name: of the run.
        classes: names.
        sample: the images that were measured.
        scores: of their maps.
        methods: methods that support this network.
        refused: why the others do not.
        interval: resamples, level and seed.
    """
    ids, groups = sample.ids, sample.groups
    table = {
        method: {
            measure: mean_with_interval(scores.values(ids, method, measure), groups, **interval).as_dict()
            for measure in MEASURES
        }
        for method in (*methods, *FLOORS)
    }
    floors = {floor: scores.values(ids, floor, "faithfulness") for floor in FLOORS}
    grades = {
        method: grade(scores.values(ids, method, "faithfulness"), floors, groups, **interval).as_dict() for method in methods
    }
    best = best_of(table, grades)
    shown = best or max(methods, key=lambda method: table[method]["faithfulness"]["value"] or -1.0, default=None)
    return {
        "run": name,
        "weights_sha256": scores.key["weights_sha256"],
        "pictures": len(ids),
        "groups": len(set(groups)),
        "masks": int(np.isfinite(scores.values(ids, "centre", "area")).sum()),
        "lesion_area": mean_with_interval(scores.values(ids, "centre", "area"), groups, **interval).as_dict(),
        "methods": table,
        "grades": grades,
        "refused": dict(refused),
        "best": best,
        "shown": shown,
        "rim": rims(classes, sample, scores, shown, **interval) if shown is not None else [],
        "rim_by": shown,
    }


def best_of(table: Mapping[str, Json], grades: Mapping[str, Json]) -> str | None:
    """The most faithful of the methods that are better than both baselines; None if there is none."""
    good = [method for method, found in grades.items() if found["verdict"] == "better"]
    return max(good, key=lambda method: table[method]["faithfulness"]["value"], default=None)


def rims(classes: Sequence[str], sample: Sample, scores: Scores, method: str, **interval: Any) -> list[Json]:
    """For each predicted class: the loss of probability when the hottest place of the border, and each place, is masked."""
    group_of = dict(zip(sample.ids, sample.groups, strict=True))
    found = []
    for c, name in enumerate(classes):
        called = [i for i in sample.ids if scores.rows[i]["class"] == c]
        place = worst_place([scores.rows[i]["places"] for i in called], [group_of[i] for i in called], **interval)
        led = [i for i in called if scores.rows[i]["methods"][method]["rim"] is not None]
        if not led:
            continue
        fallen = [scores.rows[i]["methods"][method]["rim"] for i in led]
        pairs, where = [(float(one[0]), float(one[1])) for one in fallen], [str(one[2]) for one in fallen]
        rim = assess_rim(name, pairs, where, [group_of[i] for i in led], place, **interval)
        found.append({**rim.as_dict(), "pictures": len(led)})
    return found


def trust(network: Mapping[str, Any]) -> str:
    """One sentence: which method is most faithful for this network."""
    if not network["grades"]:
        return f"{network['run']}: no method was graded."
    if network["best"] is not None:
        value = network["methods"][network["best"]]["faithfulness"]
        return (
            f"{network['run']}: the most faithful method is {NAMES[network['best']]} (faithfulness "
            f"{value['value']:.3f}, {value['low']:.3f} to {value['high']:.3f}); it is "
            "better than a centered blob and a random map."
        )
    if all(one["verdict"] == "not graded" for one in network["grades"].values()):
        return f"{network['run']}: {next(iter(network['grades'].values()))['sentence']}."
    return f"{network['run']}: no method is better than both baselines on these {network['pictures']} lesions; trust none."


def table_lines(networks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Networks and methods as a Markdown table."""
    head = ("run", "map", "faithfulness", "minus blob", "minus random map", "energy in the lesion", "pointing", "grade")
    rows = [head, ("---",) * len(head)]
    for network in networks:
        for method, found in network["methods"].items():
            graded = network["grades"].get(method)
            over = [interval_text(graded["over"][floor]) if graded else "–" for floor in ("centre", "random")]
            numbers = [interval_text(found[name]) for name in ("faithfulness", "energy", "pointing")]
            rows.append(
                (network["run"], NAMES[method], numbers[0], *over, *numbers[1:], graded["verdict"] if graded else "baseline")
            )
    return ["| " + " | ".join(row) + " |" for row in rows] if len(rows) > 2 else []


def rim_sentences(network: Mapping[str, Any]) -> tuple[list[str], str]:
    """Suspected shortcuts at the image border, one sentence per class; and what was tested."""
    alarms = []
    for one in network["rim"]:
        start = f"Shortcut suspected in {network['run']}: {one['name']} depends on the border of the image. "
        if one["by_place"]:
            place = one["place"]
            alarms.append(
                f"{start}Masking the place '{place['name']}' lowers its probability by {place['fall']['value']:.2f}, "
                f"{place['over']['value']:.2f} ({place['over']['low']:.2f} to {place['over']['high']:.2f}, corrected for "
                f"{place['tried']} places) more than masking other places of the border."
            )
        if one["by_map"]:
            where = ", ".join(f"{place} ({n})" for place, n in list(one["where"].items())[:4])
            alarms.append(
                f"{start}Masking the hottest place of the border lowers its probability by {one['hot']['value']:.2f}, masking "
                f"the coldest by {one['cold']['value']:.2f}; the difference is {one['over']['value']:.2f} "
                f"({one['over']['low']:.2f} to {one['over']['high']:.2f}). Hottest: {where}."
            )
    judged = [one["name"] for one in network["rim"] if one["over"]["low"] is not None]
    if not judged:
        return alarms, f"{network['run']}: too few images of any class to test for shortcuts at the border."
    how = f"by {NAMES[network['rim_by']]} and place by place"
    tried = f"{network['run']}: tested for shortcuts at the border: {', '.join(judged)}, {how}"
    return alarms, tried + ("; none was found." if not alarms else ".")
