"""Stratified splits of labels: near the asked prevalence, groups whole, the same for any order of rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dermalyze.config.data import SplitSpec
from dermalyze.data.label_splitting import iterative
from dermalyze.data.multilabel_targets import counts_by
from dermalyze.data.splitting import assign, divide
from dermalyze.errors import DataError
from dermalyze.stages.split import certify
from dermalyze.tasks.base import TASKS
from dermalyze.tasks.multilabel import joined

LABELS, SHARES = list("abcdef"), (0.4, 0.2, 0.1, 0.08, 0.05, 0.03)
TASK = TASKS["multilabel"]


def drawn(images: int = 3000, seed: int = 0, an_image: float = 3.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    hot = rng.random((images, len(LABELS))) < SHARES
    hot[:, 4] = hot[:, 0] & (rng.random(images) < 0.15)  # one that goes with another
    groups = rng.integers(0, round(images / an_image), images)
    return pd.DataFrame(
        {
            "image_id": [f"i{n:05}" for n in range(images)],
            "label": [joined([name for name, there in zip(LABELS, row, strict=True) if there]) for row in hot],
            "group": [f"g{g}" for g in groups],
        }
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_each_label_is_as_common_in_every_part(seed: int) -> None:
    frame, spec = drawn(seed=seed), SplitSpec(seed=seed)
    parts = assign(frame, spec, classes=LABELS, task=TASK)
    assert frame.assign(part=parts).groupby("group")["part"].nunique().max() == 1
    counts = counts_by(parts, frame["label"], LABELS, TASK)
    for part, share in spec.fractions.items():
        assert (parts == part).mean() == pytest.approx(share, abs=0.01)
        images = (parts == part).sum()
        for name in LABELS:
            p = counts[name].sum() / len(frame)
            noise = np.sqrt(p * (1 - p) / images)  # of a random split
            assert counts.loc[part, name] / images == pytest.approx(p, abs=0.75 * noise), (part, name)


def test_evener_than_at_random() -> None:
    frame = drawn()
    counts = counts_by(frame["group"], frame["label"], LABELS, TASK)
    sizes = frame["group"].value_counts().reindex(counts.index).to_numpy()
    shares = np.array([0.65, 0.1, 0.1, 0.15])

    def off(chosen: np.ndarray) -> float:
        table = np.array([counts.to_numpy()[chosen == p].sum(axis=0) for p in range(4)])
        return float(np.abs(table / table.sum(axis=0) - shares[:, None]).mean())

    ours = off(iterative(counts.to_numpy(), sizes, list(counts.index), shares, "0"))
    random = np.mean([off(np.random.default_rng(seed).choice(4, len(counts), p=shares)) for seed in range(20)])
    assert ours < 0.3 * random


def test_no_order_of_rows_changes_it() -> None:
    frame = drawn(400)
    parts = assign(frame, SplitSpec(), classes=LABELS, task=TASK)
    mixed = frame.sample(frac=1, random_state=1)
    again = assign(mixed, SplitSpec(), classes=LABELS, task=TASK)
    assert (again.sort_index() == parts).all()
    other = assign(frame, SplitSpec(seed=7), classes=LABELS, task=TASK)
    assert (other != parts).any()


def test_a_rare_label_reaches_every_part() -> None:
    frame = drawn(300, an_image=1.0)
    frame["label"] = frame["label"].str.replace("f", "", regex=False).str.strip("|").replace("", "(none)")
    frame["label"] = frame["label"].str.replace("||", "|", regex=False)
    frame.loc[[5, 60, 150, 290], "label"] = "a|f"
    parts = assign(frame, SplitSpec(), classes=LABELS, task=TASK)
    assert counts_by(parts, frame["label"], LABELS, TASK)["f"].tolist() == [1, 1, 1, 1]
    frame.loc[290, "label"] = "a"
    with pytest.raises(DataError, match="'f' has 3, at least 4"):
        assign(frame, SplitSpec(), classes=LABELS, task=TASK)


def test_folds_and_own_splits_and_the_certificate() -> None:
    frame = drawn(600)
    folds = [assign(frame, SplitSpec(kind="kfold", folds=5, fold=k), classes=LABELS, task=TASK) for k in range(5)]
    assert sum((fold == "test").astype(int) for fold in folds).eq(1).all(), "each image is tested once"
    for column in ("sha256", "pixel_sha256", "patient_id", "lesion_id", "cluster_id"):
        frame[column] = None
    own = frame.assign(split=np.where(folds[0] == "test", "test", "train"))
    division = divide(own, SplitSpec(), classes=LABELS, task=TASK)
    assert set(division.parts) == {"train", "val", "cal", "test"}
    assert ((division.parts == "test") == (folds[0] == "test")).all()
    certificate = certify(own, division, LABELS, 42, TASK)
    assert certificate["passed"]
    counted = {name: sum(part["classes"][name] for part in certificate["counts"].values()) for name in LABELS}
    sets = [set(label.split("|")) for label in frame["label"]]
    assert counted == {name: sum(name in labels for labels in sets) for name in LABELS}
