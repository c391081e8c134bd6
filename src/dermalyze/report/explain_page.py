"""The gallery: one self-contained page. Every number on it is also in explanations.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dermalyze.config.classes import describe
from dermalyze.explain.faithfulness import FLOORS
from dermalyze.imaging import abcd
from dermalyze.report.explain_grading import MEASURES, NAMES, rim_sentences, trust
from dermalyze.report.heat import scale_css
from dermalyze.report.html import template

Json = Mapping[str, Any]
COLUMNS = ("faithfulness", "energy", "pointing", "stability", "unlearnt", "deletion_blur", "insertion_blur", "empty")
"""Measures in the page's table; the file contains all."""


def gallery(m: Json, drawings: Mapping[str, Json]) -> str:
    """The page.

    Args:
        m: the content of explanations.json.
        drawings: images by image_id, from `explain_cases.explain_case`.
    """
    networks: Sequence[Json] = m["networks"]
    said = [rim_sentences(one) for one in networks]
    values = {case["image_id"]: case for case in m["cases"]}
    return template("gallery.html.jinja").render(
        title=m["title"],
        subtitle=m["subtitle"],
        m=m,
        level=f"{100 * m['level']:g} %",
        alarms=[line for alarms, _ in said for line in alarms],
        tried=[line for _, line in said],
        trust=[trust(one) for one in networks],
        measures=[MEASURES[name][0] for name in COLUMNS],
        tables=[table(one) for one in networks],
        sections=[
            {**section, "cases": [{"v": values[image_id], "d": drawings[image_id]} for image_id in section["image_ids"]]}
            for section in m["sections"]
        ],
        several=len(m["runs"]) > 1,
        scale=scale_css(),
        meanings=list(MEASURES.values()),
        abcd=list(abcd.MEANINGS.values()),
        abcd_source=abcd.SOURCE,
        describe=describe,
    )


def table(network: Json) -> dict[str, Any]:
    """One network's methods and the baselines."""
    rows = []
    for method, found in network["methods"].items():
        graded = network["grades"].get(method)
        rows.append({
            "name": NAMES[method],
            "cells": [found[name] for name in COLUMNS],
            "grade": "baseline; independent of the network" if method in FLOORS else graded["sentence"],
            "css": "" if graded is None else {"better": "good", "no better": "bad"}.get(graded["verdict"], ""),
        })  # fmt: skip
    masks = f"{network['masks']} with a mask" if network["masks"] else "without masks"
    area = network["lesion_area"]["value"]
    share = "" if area is None else f", the lesion covers {area:.0%} of the image on average"
    return {
        "run": network["run"],
        "rows": rows,
        "says": f"{network['pictures']} test images of {network['groups']} lesions, {masks}{share}.",
        "refused": list(network["refused"].values()),
    }
