"""Data sets as they are found: one function a kind of source, each with its dataset card. `SOURCES` lists them all."""

from __future__ import annotations

from collections.abc import Callable

from dermalyze.data.sources.general import csv, folder
from dermalyze.data.sources.isic import ham10000
from dermalyze.data.sources.merging import ONE_SOURCE, merged
from dermalyze.data.sources.reading import MISSING_FILE, TABLE_SUFFIXES, Listing, Row, pseudonym

SOURCES: dict[str, Callable[..., Listing]] = {**ONE_SOURCE, "merged": merged}

__all__ = ["MISSING_FILE", "SOURCES", "TABLE_SUFFIXES", "Listing", "Row", "csv", "folder", "ham10000", "pseudonym"]
