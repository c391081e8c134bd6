"""One section of a report: entries of `evaluation_metrics.json`, their text on the page, and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dermalyze.report.evaluation_data import Evaluation, Json


@dataclass(frozen=True)
class Figure:
    """A figure of the report.

    Attributes:
        data: PNG bytes.
        caption: what the figure shows; the text before the first colon is its short name.
    """

    data: bytes
    caption: str


def nothing(j: Evaluation) -> dict[str, Any]:
    """For a section whose entries the stage computes."""
    return {}


def no_figures(m: Json, j: Evaluation) -> dict[str, Figure]:
    """For a section without figures."""
    return {}


def entry(key: str) -> Callable[[Json], Any]:
    """The view of a section that prints one entry of the file unchanged."""
    return lambda m: m[key] or None


@dataclass(frozen=True)
class Section:
    """One section.

    Attributes:
        title: its heading.
        template: file in `templates/`; it receives `m` (the whole file), `v` (from `view`) and `pictures` (by name).
        view: from the whole file to what the template prints; None: the section is left out with its heading.
        build: entries of the file, by key; no two sections have the same key.
        figures: by file name; their numbers come from the file.

    """

    title: str
    template: str
    view: Callable[[Json], Mapping[str, Any] | None]
    build: Callable[[Evaluation], dict[str, Any]] = nothing
    figures: Callable[[Json, Evaluation], dict[str, Figure]] = no_figures


def figure_title(name: str, m: Json) -> str:
    """The title of a figure: its name, the data set and the recipe."""
    part = "Test split" if m["set"] == "test" else f"External set {m['set']}"
    return f"{name}. {part}, {m['n_images']:,} images of {m['n_groups']:,} groups, recipe {m['recipe']}"
