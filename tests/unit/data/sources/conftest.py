"""Small data sets in the exact layout of the published ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from layouts import write

from dermalyze.config.data import DataSpec
from dermalyze.data.store import ImageStore

Lay = Callable[..., ImageStore]


@pytest.fixture
def lay(tmp_path: Path) -> Lay:
    """`lay(files, folder="data")`: write a data set and open it."""

    def make(files: Mapping[str, str | bytes | dict[str, str]], folder: str = "data") -> ImageStore:
        write(tmp_path / folder, files)
        return ImageStore.open(DataSpec(path=str(tmp_path / folder)))

    return make
