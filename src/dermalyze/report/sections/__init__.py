"""The sections of a report, one table per task.

A `Section` has a title, a template, and up to three functions: `build` adds its numbers to `evaluation_metrics.json`, `view`
turns the stored numbers into what the page shows (None leaves it out), `figures` draws. Numbers come from an `Evaluation`; the
page only reads the stored file. Sections that apply to several tasks are in both tables. To add one, write its
functions in `report/`, a template, and a row in the table of each task that has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dermalyze.report import checklists
from dermalyze.report.evaluation_data import Evaluation, Json
from dermalyze.report.section import Figure, Section
from dermalyze.report.sections import multiclass, multilabel
from dermalyze.report.text import task_of

LAST = {"checklists": Section("Reporting checklists", "checklists.html.jinja", lambda m: checklists.view(m, shown_titles(m)))}
"""Sections that are computed from the others."""
SECTIONS: Mapping[str, Mapping[str, Section]] = {
    "multiclass": {**multiclass.SECTIONS, **LAST},
    "multilabel": {**multilabel.SECTIONS, **LAST},
}
HEADLINES: Mapping[str, Callable[[Json], list[tuple[str, Json]]]] = {
    "multiclass": multiclass.headline,
    "multilabel": multilabel.headline,
}


def sections_of(m: Json) -> Mapping[str, Section]:
    """The sections of the evaluated task, in order."""
    return SECTIONS[task_of(m)]


def headline(m: Json) -> list[tuple[str, Json]]:
    """The headline metrics, by their names on the page."""
    return HEADLINES[task_of(m)](m)


def shown_titles(m: Json) -> dict[str, str]:
    """Titles of the sections with content, by key; without the checklists, which are computed from them."""
    return {key: one.title for key, one in sections_of(m).items() if key not in LAST and one.view(m) is not None}


def build_sections(j: Evaluation) -> dict[str, Any]:
    """The entries of all sections in `evaluation_metrics.json`."""
    return {key: value for section in SECTIONS[j.task.kind].values() for key, value in section.build(j).items()}


def draw_sections(m: Json, j: Evaluation) -> Mapping[str, Mapping[str, Figure]]:
    """The figures by section and file name; none for a section that is not shown."""
    return {key: section.figures(m, j) if section.view(m) is not None else {} for key, section in sections_of(m).items()}
