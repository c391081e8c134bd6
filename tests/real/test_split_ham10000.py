"""The default split on HAM10000's own labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dermalyze.audit.checks import audit_frame
from dermalyze.config.data import SplitSpec
from dermalyze.data.grouping import groups, leaks
from dermalyze.data.splitting import assign

METADATA = Path(__file__).parents[3] / "shared" / "data" / "ham10000" / "HAM10000_metadata.csv"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not METADATA.exists(), reason="HAM10000_metadata.csv is not in ../shared/data/ham10000"),
]


@pytest.fixture(scope="module")
def metadata() -> pd.DataFrame:
    return pd.read_csv(METADATA).rename(columns={"dx": "label", "localization": "site"})


@pytest.mark.parametrize(
    "fractions",
    [{"train": 0.65, "val": 0.1, "cal": 0.1, "test": 0.15}, {"train": 0.7, "val": 0.15, "test": 0.15}],
    ids=["four", "three"],
)
def test_shares_of_classes_and_sizes(metadata: pd.DataFrame, fractions: dict[str, float]) -> None:
    parts = assign(metadata, SplitSpec(fractions=fractions))  # type: ignore[arg-type]
    asked = pd.Series(fractions)
    assert leaks(metadata.assign(group=groups(metadata)), parts) == []
    assert (parts.value_counts(normalize=True)[asked.index] - asked).abs().max() < 0.001
    images = pd.crosstab(metadata["label"], parts, normalize="index")[asked.index]
    assert (images - asked).abs().max(axis=None) < 0.006
    first = metadata.drop_duplicates("lesion_id")
    held = pd.crosstab(first["label"], parts[first.index])[asked.index]
    assert (held - np.outer(held.sum(axis=1), asked)).abs().max(axis=None) <= 2


def test_folds_test_every_lesion_once(metadata: pd.DataFrame) -> None:
    tested = sum((assign(metadata, SplitSpec(kind="kfold", folds=5, fold=k)) == "test").astype(int) for k in range(5))
    assert (tested == 1).all()


def test_the_audit_finds_dx_type_and_no_column_of_the_patient(metadata: pd.DataFrame) -> None:
    found = audit_frame(metadata, SplitSpec())
    assert {(f.kind, f.examples[0]) for f in found} == {("giveaway_column", "dx_type"), ("one_class_value", "confocal")}
