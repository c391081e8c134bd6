"""Tables that stand as JSON: nothing in a file goes unread, and every file is in the wheel."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from dermalyze.models.cards import Family, families
from dermalyze.models.names import Names, names
from dermalyze.report.checklists import Item, checklists
from dermalyze.workflows.guidelines import Guidelines, guidelines

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "dermalyze"

TABLES: dict[str, tuple[Any, Any]] = {
    "models/cards.json": (dict[str, Family], families),
    "models/names.json": (Names, names),
    "report/checklists.json": (dict[str, tuple[Item, ...]], checklists),
    "workflows/guidelines.json": (Guidelines, guidelines),
}
OTHER = {
    "data/sources/cards.json",
    "imaging/dermoscopy.json",
    "serve/small/artifact.json",
    "serve/small/metrics.json",
    "serve/web/examples/examples.json",
}
"""Measured or exported, and tested where they are read."""


def test_every_table_is_tested() -> None:
    assert {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.json")} == {*TABLES, *OTHER}


@pytest.mark.parametrize("file", TABLES)
def test_every_key_of_every_row_is_read(file: str) -> None:
    """A key that is misspelled would be left out, and one that only repeats a default is noise."""
    kind, load = TABLES[file]
    written = json.loads((PACKAGE / file).read_text(encoding="utf-8"))
    assert TypeAdapter(kind).dump_python(load(), mode="json", exclude_defaults=True) == written


def test_every_data_file_is_in_the_wheel() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["dermalyze"]
    packed = {path for pattern in patterns for path in PACKAGE.glob(pattern) if path.is_file()}
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert files == packed
