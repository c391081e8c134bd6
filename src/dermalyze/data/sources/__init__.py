"""Data sets on disk: one function per kind of source, each with its data-set card.

A source reads the tables and names of files under the data root (`files.Files`) and gives a `Listing`: one `Row` per
image, with id, label, lesion, patient and fields, and the classes in order. It opens no image and decides no split; a
file that is named and missing is a row that says so. `merging` joins several sources and links what shows one lesion.
`SOURCES` lists them all.

To add a source: its spec in `config/data.py`, a function that returns a `Listing`, a row of its file's `ROWS`, and a card
in `cards.json`: the biases of the data set, its malignant classes, and those that a report watches.
"""

from __future__ import annotations

from collections.abc import Callable

from dermalyze.data.sources.files import TABLE_SUFFIXES
from dermalyze.data.sources.general import csv, folder
from dermalyze.data.sources.isic import ham10000
from dermalyze.data.sources.merging import ONE_SOURCE, merged
from dermalyze.data.sources.reading import MISSING_FILE, Listing, Row, pseudonym

SOURCES: dict[str, Callable[..., Listing]] = {**ONE_SOURCE, "merged": merged}

__all__ = ["MISSING_FILE", "SOURCES", "TABLE_SUFFIXES", "Listing", "Row", "csv", "folder", "ham10000", "pseudonym"]
