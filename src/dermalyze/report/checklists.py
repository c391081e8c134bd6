"""Coverage of reporting checklists: for each item, where the run answers it, what a person wrote, or NOT REPORTED.

Item numbers are those of the checklists. Item names are our own short ones and do not replace the checklists' text.

CLAIM 2024: Tejani et al. 2024, Radiology: Artificial Intelligence 6(4):e240300, doi:10.1148/ryai.240300
TRIPOD+AI: Collins et al. 2024, BMJ 385:e078378, doi:10.1136/bmj-2023-078378
STARD-AI: Sounderajah et al. 2025, Nature Medicine 31(10):3283-3289, doi:10.1038/s41591-025-03953-8

Sources of the numbers: all 52 numbers of TRIPOD+AI were compared with a word-for-word transcription of the article's table 2
with its footnotes (23b and 27a to 27c with three of them, 12d with two, which agree), and match. Those of STARD-AI
(40 items, 48 with sub-items) are from a transcription of the article's table 2 that states it was compared with the table row
by row. The articles themselves were not available.

CLEAR Derm (Daneshjou et al. 2022, JAMA Dermatology 158(1):90-96, doi:10.1001/jamadermatol.2021.4915) is left out. It has 25
items under data, technique, technical assessment and application, but only summaries were available, which give neither the
item numbers nor the wording. A table with invented numbers would be worse than none.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from dermalyze.errors import one_line

Json = Mapping[str, Any]

REPORTED, PARTLY, MISSING = "reported", "in part", "NOT REPORTED"
ALWAYS = ("about", "reproduce")
"""Anchors of the page that are not in the table of sections."""


@dataclass(frozen=True)
class Item:
    """One item of a checklist.

    Attributes:
        number: the checklist's own.
        name: our own short name.
        places: where a run can answer it: `#key` is a section of the page, anything else a key of `m["files"]`; words after a
            blank say where in the file.
        asks: fields of report.yaml that belong to it. If there are any, the run alone answers it in part at most.
    """

    number: str
    name: str
    places: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()


@functools.cache
def checklists() -> dict[str, tuple[Item, ...]]:
    """Maps each title to its items in the checklist's order; `checklists.json` is read once."""
    text = Path(__file__).with_name("checklists.json").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, tuple[Item, ...]]).validate_json(text, strict=True)


def answer(item: Item, m: Json, shown: Collection[str]) -> dict[str, Any]:
    """An item's state, where the run answers it, and what a person wrote.

    Args:
        item: one item of a checklist.
        m: the content of evaluation_metrics.json; `files` and `person` are used.
        shown: keys of the sections that are on the page.

    >>> answer(Item("44", "funding", (), ("funding",)), {"files": {}, "person": {"funding": "none"}}, ())["state"]
    'reported'
    """
    files, person = m["files"] or {}, m["person"] or {}
    places = []
    for place in item.places:
        key, _, words = place.partition(" ")
        if key.startswith("#"):
            if key[1:] in shown or key[1:] in ALWAYS:
                places.append({"anchor": key[1:], "file": None, "words": ""})
        elif key in files:
            places.append({"anchor": None, "file": files[key], "words": words})
    said = [one_line(person[field]) for field in item.asks if person.get(field)]
    whole = len(said) == len(item.asks) and (places or said)
    state = REPORTED if whole else PARTLY if places or said else MISSING
    return {"number": item.number, "name": item.name, "state": state, "places": places, "said": said}


def coverage(m: Json, shown: Collection[str]) -> list[dict[str, Any]]:
    """Every checklist with the state of its items, and how many are reported."""
    found = []
    for title, items in checklists().items():
        rows = [answer(item, m, shown) for item in items]
        counts = {state: sum(row["state"] == state for row in rows) for state in (REPORTED, PARTLY, MISSING)}
        found.append({"title": title, "rows": rows, "counts": counts, "total": len(rows)})
    return found


def view(m: Json, shown: Mapping[str, str]) -> dict[str, Any] | None:
    """What the page shows, only for a run's own test split; `shown`: titles of the sections on the page, by key."""
    if m["files"] is None:
        return None
    return {"lists": coverage(m, shown), "names": dict(shown)}


def markdown(m: Json, shown: Mapping[str, str]) -> str:
    """The tables as Markdown, for a supplement."""
    v = view(m, shown)
    names = {} if v is None else v["names"]
    lines = [f"# Reporting checklists: {escaped(m['title'])}", "", *NOTE, ""]
    for found in [] if v is None else v["lists"]:
        lines += [f"## {found['title']}", "", summary(found), "", "| item | about | state | where |", "|---|---|---|---|"]
        for row in found["rows"]:
            where = [place_text(place, names) for place in row["places"]] + [f"“{escaped(said)}”" for said in row["said"]]
            lines.append(f"| {row['number']} | {row['name']} | {row['state']} | {'; '.join(where)} |")
        lines.append("")
    return "\n".join([*lines, m["disclaimer"], ""])


NOTE = (
    "Item numbers are those of the checklists; item names are our own short ones. Read the checklists themselves before you "
    "submit. An item is reported in part if the run answers some of it and a person has to write the rest into report.yaml; "
    "nothing is guessed.",
    "",
    "CLAIM 2024: Tejani et al. 2024, doi:10.1148/ryai.240300. TRIPOD+AI: Collins et al. 2024, doi:10.1136/bmj-2023-078378. "
    "STARD-AI: Sounderajah et al. 2025, doi:10.1038/s41591-025-03953-8.",
)


def summary(found: Json) -> str:
    """How many items are in each state."""
    return ", ".join(f"{state}: {count}" for state, count in found["counts"].items()) + f"; of {found['total']} items."


def place_text(place: Json, names: Json) -> str:
    """A place in words.

    >>> place_text({"anchor": None, "file": "config.yaml", "words": "train"}, {})
    '`config.yaml` (train)'
    """
    if place["anchor"] is not None:
        return f"report.html, {names.get(place['anchor'], OTHER.get(place['anchor'], place['anchor']))}"
    return f"`{place['file']}`" + (f" ({place['words']})" if place["words"] else "")


OTHER = {"about": "About this model", "reproduce": "Reproducibility"}


def escaped(text: str) -> str:
    """Text escaped so that it is not read as markup and does not break a Markdown table.

    >>> escaped("a|b <i>")
    'a\\\\|b &lt;i&gt;'
    """
    plain = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#" else letter for letter in plain)
