"""The page of names: each of our names exists, and each of the documents' networks is known."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from dermalyze.models.backbones import check_name
from dermalyze.models.names import canonical_name

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "names.md").read_text(encoding="utf-8")
ROWS = [line.split(" | ")[1].strip() for line in PAGE.splitlines() if line.startswith("| `") or " | `dermalyze." in line]
NAMES = sorted(set(re.findall(r"`(dermalyze(?:\.\w+)+)`", PAGE)))


def resolve(dotted: str) -> Any:
    """The object of a dotted name: the longest module, then attributes; a field of a specification counts."""
    steps = dotted.split(".")
    for length in range(len(steps), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(steps[:length]))
        except ModuleNotFoundError:
            continue
        for step in steps[length:]:
            found = found.model_fields[step] if step in getattr(found, "model_fields", {}) else getattr(found, step)
        return found
    raise AssertionError(dotted)


@pytest.mark.parametrize("name", NAMES)
def test_our_name_exists(name: str) -> None:
    resolve(name)


def test_a_name_that_does_not_exist_is_found() -> None:
    for wrong in ("dermalyze.models.classifier.Classifier.embedding", "dermalyze.ModelFactory", "dermalyze.no_room.x"):
        with pytest.raises(AttributeError):
            resolve(wrong)


def test_every_row_names_one_of_ours() -> None:
    assert len(ROWS) > 25
    assert all(re.fullmatch(r"`dermalyze(\.\w+)+`", cell) for cell in ROWS)


def test_networks_named_on_the_page_are_known() -> None:
    last = PAGE.rpartition("taken too")[2].partition("The whole table")[0]
    networks = re.findall(r"`([A-Z]\w+[-_]\w+)`", last)
    assert len(networks) == 5
    for name in networks:
        if canonical_name(name) != "densenet264":
            check_name(canonical_name(name))
