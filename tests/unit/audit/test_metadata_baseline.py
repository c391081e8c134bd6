from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dermalyze.audit.metadata_baseline import column_table, metadata_model, one_hot


def made(n: int = 600, seed: int = 0) -> pd.DataFrame:
    """Metadata drawn without a look at the label, two images a group."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n // 2), 2)

    def drawn(*values: str) -> np.ndarray:
        return rng.choice(values, n // 2)[group]

    return pd.DataFrame(
        {
            "image_id": [f"i{k:04}" for k in range(n)],
            "group": [f"g{k:03}" for k in group],
            "label": drawn("bcc", "mel", "nv", "nv"),
            "age": np.where(rng.random(n) < 0.1, np.nan, rng.normal(50, 15, n // 2)[group]),
            "sex": drawn("male", "female"),
            "site": drawn("back", "face", "leg"),
            "source": None,
            "camera": drawn("a", "b"),
            "dx_type": "histo",
        }
    )


def test_random_metadata_tell_nothing() -> None:
    found = metadata_model(made())
    assert found is not None
    assert found.inputs == ("age", "sex", "site")
    assert found.macro_auroc.value == pytest.approx(0.5, abs=0.06)
    assert found.macro_auroc.low is not None
    assert found.macro_auroc.low < 0.5
    assert found.findings() == []
    assert found.line().startswith("age, sex, site alone, without an image: macro AUROC 0.")


def test_ages_that_lean_show_in_the_classes_they_lean_in() -> None:
    frame = made()
    frame["age"] += 30 * (frame["label"] == "bcc")
    found = metadata_model(frame)
    assert found is not None
    assert found.per_class["bcc"].value > 0.85
    assert found.macro_auroc.low > 0.55
    assert found.macro_auroc.low < found.macro_auroc.value < found.macro_auroc.high


def test_sex_and_site_that_tell_only_together_are_found() -> None:
    """Neither column passes the limit alone."""
    frame = made()
    site = np.where(frame["label"] == "mel", "face", np.where(np.arange(600) // 2 % 4 == 0, "face", "back"))
    source = np.where(frame["label"] == "mel", "vienna", np.where(np.arange(600) // 2 % 4 == 1, "vienna", "sydney"))
    frame = frame.assign(site=site, source=source)
    alone = {row["column"]: row["per_class_auroc"].get("mel", 0.5) for row in column_table(frame)}
    assert max(alone["site"], alone["source"]) < 0.95
    found = metadata_model(frame)
    assert found is not None
    (finding,) = found.findings()
    assert (finding.kind, finding.severity) == ("telling_metadata", "warn")
    assert "age, sex, site, source alone tell 'mel' from the rest (AUROC 0.9" in finding.detail or "AUROC 1.0" in finding.detail


def test_a_column_table_has_a_row_a_column() -> None:
    frame = made()
    frame["camera"] = np.where(frame["label"] == "mel", "a", "b")
    rows = {row["column"]: row for row in column_table(frame)}
    assert list(rows) == ["age", "sex", "site", "camera", "dx_type"], "no row for a column without values"
    assert (rows["camera"]["auroc"], rows["camera"]["class"], rows["camera"]["values"]) == (1.0, "mel", 2)
    assert rows["sex"]["auroc"] == pytest.approx(0.5, abs=0.08)
    assert rows["age"]["missing"] == frame["age"].isna().sum() > 0
    assert [name for name, row in rows.items() if row["giveaway"]] == ["dx_type"]
    assert rows["dx_type"]["auroc"] is None, "a constant tells nothing"
    assert set(rows["camera"]["per_class_auroc"]) == {"bcc", "mel", "nv"}


def test_nothing_to_learn_from_gives_no_model() -> None:
    assert metadata_model(made().assign(age=None, sex="male", site=None)) is None
    assert metadata_model(made().assign(label="nv")) is None
    rare = made().assign(age=None, sex=None, site=[f"s{k}" for k in range(600)])
    assert metadata_model(rare) is None, "values that name single images are no column"


def test_missing_is_a_value_and_rare_ones_are_none() -> None:
    frame = pd.DataFrame({"sex": ["male"] * 30 + [None] * 30 + ["other"] * 5})
    assert one_hot(frame, ("sex",)).sum(axis=0).tolist() == [30, 30]


def test_the_same_again() -> None:
    one, two = metadata_model(made()), metadata_model(made())
    assert one is not None
    assert two is not None
    assert one.as_dict() == two.as_dict()
