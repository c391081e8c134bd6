"""The page of a report: one self-contained HTML file. Every number on it comes from `evaluation_metrics.json`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dermalyze.report.evaluation_data import Json
from dermalyze.report.section import Figure
from dermalyze.report.sections import headline, sections_of
from dermalyze.report.text import interval_or_note, task_of, value_text
from dermalyze.tasks.base import TASKS

if TYPE_CHECKING:
    from jinja2 import Template

PIXELS_PER_DOT = 0.6  # so that letters have one size in all figures
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
    """A template of this package; all output is escaped, and an undefined name is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("dermalyze", "report/templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=False).get_template(name)


def page(m: Json, figures: Mapping[str, Mapping[str, Figure]]) -> str:
    """The whole page.

    Args:
        m: the content of evaluation_metrics.json.
        figures: by section and file name, from `dermalyze.report.sections.draw_sections`.
    """
    level = f"{100 * m['level']:g} %"
    sections = [
        {
            "key": key,
            "title": section.title,
            "template": section.template,
            "v": view,
            "pictures": {name: figure_view(figure) for name, figure in figures.get(key, {}).items()},
        }
        for key, section in sections_of(m).items()
        if (view := section.view(m)) is not None
    ]
    return template("report.html.jinja").render(
        m=m,
        title=m["title"],
        subtitle=subtitle(m),
        cards=[_card(name, estimate) for name, estimate in headline(m)],
        how_to_read=(
            f"Below each value is its {level} interval, from a bootstrap over {m['n_groups']:,} groups (images of one "
            "patient_id or lesion_id, where these are recorded). If the intervals of two models overlap widely, this set does "
            "not show which is better."
        ),
        sections=sections,
        methods=m["methods"],
        provenance=[(label, m["provenance"][key]) for key, label in PROVENANCE.items() if m["provenance"].get(key) is not None]
        + [("versions", ", ".join(f"{name} {version}" for name, version in m["provenance"]["versions"].items()))],
    )


def figure_view(figure: Figure) -> dict[str, Any]:
    """What the page needs from a figure."""
    return {
        "data": base64.b64encode(figure.data).decode(),
        "caption": figure.caption,
        "alt": figure.caption.split(":")[0],
        "width_px": round(int.from_bytes(figure.data[16:20], "big") * PIXELS_PER_DOT),  # from the PNG's header
    }


def subtitle(m: Json) -> str:
    """The data set and the inference recipe of the report."""
    part = "Test split" if m["set"] == "test" else f"External set {m['set']}"
    size = f"{m['n_images']:,} images of {m['n_groups']:,} groups, {len(m['classes'])} {TASKS[task_of(m)].nouns}"
    return f"{part}: {size}; inference recipe {m['recipe']}."


def _card(name: str, estimate: Json) -> dict[str, Any]:
    return {
        "name": name,
        "value": value_text(estimate),
        "interval": interval_or_note(estimate),
        "none": estimate["value"] is None,
    }
