"""The page of a data audit: one self-contained HTML file with findings, tables and images."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PIL import Image

from dermalyze.core.result import DISCLAIMER
from dermalyze.data.store import ImageStore
from dermalyze.data.thumbnails import Gallery, small_pixels
from dermalyze.report.html import template

Json = Mapping[str, Any]

PICTURE_PX = 176
PICTURES_BYTES = 3_500_000
"""Limit of all encoded images on a page; galleries share it evenly."""
LONGEST_TABLE = 25
SEVERITIES = {
    "refuse": "the data set cannot be used as it is",
    "warn": "check this before you trust a result",
    "info": "for information; no action needed",
}
OWN_KEYS = ("images", "quarantined", "summary", "findings")
"""Keys of an audit's result that the page shows separately; every other value becomes a table."""


def audit_page(result: Json, galleries: Sequence[Gallery], store: ImageStore | None, paths: Mapping[str, str]) -> str:
    """The whole page.

    Args:
        result: the content of audit.json: `images`, `quarantined`, `summary` and `findings`; anything else in it is shown as
            tables, see `tables_in`.
        galleries: images to show, each with as many rows as fit.
        store: reads the images; None: the images cannot be read.
        paths: manifest path of each image_id.
    """
    cards = [
        {"name": "images checked", "value": f"{result['images']:,}", "style": "", "meaning": "each decoded once"},
        {"name": "quarantined", "value": f"{result['quarantined']:,}", "style": "", "meaning": "excluded by prepare"},
        *(
            {
                "name": name,
                "value": result["summary"][name],
                "style": name if result["summary"][name] else "",
                "meaning": meaning,
            }
            for name, meaning in SEVERITIES.items()
        ),
    ]
    return template("audit.html.jinja").render(
        title="Data audit",
        subtitle="Findings that could invalidate a result, the most severe first. The values are also in audit.json.",
        disclaimer=DISCLAIMER,
        cards=cards,
        findings=result["findings"],
        tables=[table for key in result if key not in OWN_KEYS for table in tables_in(key, result[key])],
        galleries=[_drawn(gallery, store, paths, PICTURES_BYTES // len(galleries)) for gallery in galleries],
    )


def tables_in(title: str, value: Any) -> Iterator[dict[str, Any]]:
    """Tables of any JSON value: {title, explanation, columns, rows} unchanged, one row per object of a list, one line per
    single value of an object, and nested values one after the other.

    >>> [(t["title"], t["columns"], t["rows"]) for t in tables_in("pairs", [{"a": 1, "b": None}])]
    [('Pairs', ['a', 'b'], [['1', '–']])]
    """
    if isinstance(value, Mapping) and {"columns", "rows"} <= value.keys():
        yield _table(value.get("title") or title, value["columns"], value["rows"], value.get("explanation") or "")
    elif isinstance(value, Mapping):
        single = [[key.replace("_", " "), item] for key, item in value.items() if not isinstance(item, Mapping | list | tuple)]
        if any(item is not None for _, item in single):
            yield _table(title, [], single)
        for key, item in value.items():
            if isinstance(item, Mapping | list | tuple):
                name = key.replace("_", " ")
                yield from tables_in(name if title == "tables" else f"{title}: {name}", item)
    elif isinstance(value, list | tuple) and value and all(isinstance(row, Mapping) for row in value):
        columns = list(dict.fromkeys(key for row in value for key in row))
        yield _table(title, [c.replace("_", " ") for c in columns], [[row.get(column) for column in columns] for row in value])
    elif isinstance(value, list | tuple) and value:
        yield _table(title, [], [[item] for item in value])


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], explanation: str = "") -> dict[str, Any]:
    shown = rows[:LONGEST_TABLE]
    width = max((len(row) for row in shown), default=0)
    numeric = [
        i
        for i in range(1, width)
        if all(isinstance(row[i], int | float | None) for row in shown if len(row) > i and row[i] != "")
    ]
    decimals = [_decimals([row[i] for row in shown if len(row) > i]) if i in numeric else 3 for i in range(width)]
    return {
        "title": title[:1].upper() + title[1:],
        "explanation": explanation,
        "columns": list(columns),
        "numeric": numeric,
        "rows": [[_cell(value, decimals[i]) for i, value in enumerate(row)] for row in shown],
        "more": len(rows) - len(shown),
    }


def _decimals(values: Sequence[Any]) -> int:
    """Decimals that a column needs, 3 at most.

    >>> _decimals([16.9, 12.0, None, 3])
    1
    """
    return max((len(str(round(value, 3)).partition(".")[2]) for value in values if isinstance(value, float)), default=0)


def _cell(value: Any, decimals: int = 3) -> str:
    """One value as text.

    >>> [_cell(v) for v in (None, True, 0.12345, 12000, "a", [1, 2], {"low": 0.5})]
    ['–', 'yes', '0.123', '12,000', 'a', '1, 2', 'low 0.500']
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,.{decimals if isinstance(value, float) else 0}f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(item)}" for key, item in value.items())
    return ", ".join(_cell(item) for item in value) if isinstance(value, list | tuple) else str(value)


def _drawn(gallery: Gallery, store: ImageStore | None, paths: Mapping[str, str], room: int) -> dict[str, Any]:
    """A gallery with its images, until `room` bytes are used; the first row is always shown."""
    rows: list[list[dict[str, str]]] = []
    for row in gallery.rows:
        drawn = [{"image_id": p.image_id, "caption": p.caption, "data": _thumbnail(store, paths.get(p.image_id))} for p in row]
        room -= sum(len(picture["data"]) for picture in drawn)
        if rows and room < 0:
            break
        rows.append(drawn)
    return {
        "title": gallery.title,
        "explanation": gallery.explanation,
        "rows": rows,
        "more": len(gallery.rows) - len(rows),
    }


def _thumbnail(store: ImageStore | None, path: str | None) -> str:
    """A small JPEG of one image in base64; "" if it cannot be read."""
    pixels = small_pixels(store, path, PICTURE_PX) if store is not None and path is not None else None
    if pixels is None:
        return ""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=78)
    return base64.b64encode(buffer.getvalue()).decode()
