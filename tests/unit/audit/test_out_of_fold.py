from __future__ import annotations

import numpy as np
import pandas as pd

from dermalyze.audit.out_of_fold import FOLDS, enough_groups, folds, out_of_fold
from dermalyze.metrics.classification import measure


def made(n: int = 200, seed: int = 0, classes: tuple[str, ...] = ("bcc", "mel", "nv")) -> tuple[pd.DataFrame, np.ndarray]:
    """Two images a group, features about a center a class."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n // 2), 2)
    index = rng.integers(0, len(classes), n // 2)[group]
    features = rng.normal(size=(n, 6)).astype(np.float32)
    features[:, : len(classes)] += 2 * np.eye(len(classes), dtype=np.float32)[index]
    return pd.DataFrame({"label": np.array(classes)[index], "group": [f"g{g:03}" for g in group]}), features


def test_groups_are_whole_and_every_fold_has_every_class() -> None:
    frame, _ = made()
    fold = folds(frame)
    assert set(fold) == set(range(FOLDS))
    assert (frame.assign(fold=fold).groupby("group")["fold"].nunique() == 1).all()
    counts = pd.crosstab(fold, frame["label"])
    assert (counts.max() - counts.min() <= 4).all()


def test_no_order_of_rows_changes_a_fold() -> None:
    frame, _ = made()
    order = np.random.default_rng(1).permutation(len(frame))
    assert folds(frame.iloc[order].reset_index(drop=True)).tolist() == folds(frame)[order].tolist()


def test_probabilities_are_good_where_features_tell_and_chance_where_they_do_not() -> None:
    frame, features = made()
    told = measure(*_pair(out_of_fold(frame, features)))
    assert told["accuracy"] > 0.75
    noise = np.random.default_rng(5).normal(size=features.shape).astype(np.float32)
    assert abs(measure(*_pair(out_of_fold(frame, noise)))["macro_auroc"] - 0.5) < 0.1


def test_nothing_is_learnt_from_an_images_own_group() -> None:
    """A feature that names the group is worth nothing when the group is held out; it is worth all when it is not."""
    frame, _ = made(120)
    named = np.eye(60, dtype=np.float32)[np.repeat(np.arange(60), 2)]
    assert measure(*_pair(out_of_fold(frame, named)))["macro_auroc"] < 0.6


def test_the_same_again() -> None:
    frame, features = made()
    one, two = out_of_fold(frame, features), out_of_fold(frame, features)
    assert one.scores.probs.tobytes() == two.scores.probs.tobytes()
    assert one.strength == two.strength


def test_fits_are_told_and_the_best_strength_is_kept() -> None:
    frame, features = made()
    fits: list[int] = []
    found = out_of_fold(frame, features, advance=fits.append)
    assert len(fits) % FOLDS == 0
    losses = {s: measure(*_pair(out_of_fold(frame, features, strengths=(s,))))["log_loss"] for s in (1e-4, found.strength)}
    assert losses[found.strength] < losses[1e-4]


def test_classes_with_few_groups_and_lone_classes_are_not_judged() -> None:
    frame, _ = made()
    rare = pd.concat([frame, pd.DataFrame({"label": ["df"] * 8, "group": ["x", "x", "y", "y", "z", "z", "w", "w"]})])
    assert enough_groups(rare).sum() == len(frame)
    assert not enough_groups(frame[frame["label"] == "nv"]).any()


def test_a_class_that_one_fold_holds_alone_gets_no_probability_there() -> None:
    """Five groups of two classes each: a fold may hold all that is left of one."""
    frame, features = made()
    frame.loc[:9, "group"] = "giant"
    frame.loc[:9, "label"] = ["df", "nv"] * 5
    extra = pd.DataFrame({"label": ["df"] * 4, "group": ["a", "b", "c", "d"]})
    rows = pd.concat([frame, extra], ignore_index=True)
    both = np.concatenate([features, features[:4]])
    assert enough_groups(rows).all()
    probs = out_of_fold(rows, both).scores.probs
    np.testing.assert_allclose(probs.sum(axis=1), 1)


def _pair(found: object) -> tuple[np.ndarray, np.ndarray]:
    return found.scores.labels, found.scores.probs  # type: ignore[attr-defined]
