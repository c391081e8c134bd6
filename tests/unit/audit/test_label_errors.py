from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dermalyze.audit.label_errors import STRONG, LabelAudit, LikelyError, audit_labels, color_texture_features
from dermalyze.audit.label_gallery import label_galleries
from dermalyze.audit.out_of_fold import folds
from dermalyze.errors import DataError
from dermalyze.tasks.base import TASKS

CLASSES = np.array(["bcc", "mel", "nv"])


def made(lesions: int = 200, noise: float = 0.0, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray, set[str]]:
    """Two photographs a lesion, features about a center a class; the ids of the lesions' photographs with a wrong label."""
    rng = np.random.default_rng(seed)
    lesion = np.repeat(np.arange(lesions), 2)
    truth = rng.integers(0, 3, lesions)
    given = np.where(rng.random(lesions) < noise, (truth + rng.integers(1, 3, lesions)) % 3, truth)
    features = (rng.normal(size=(2 * lesions, 4)) + 4 * np.eye(4)[truth[lesion]]).astype(np.float32)
    frame = pd.DataFrame(
        {
            "image_id": [f"i{k:03}" for k in range(2 * lesions)],
            "lesion_id": [f"L{k:03}" for k in lesion],
            "group": [f"L{k:03}" for k in lesion],
            "label": CLASSES[given[lesion]],
            "dx_type": np.where(lesion % 2 == 0, "histo", "follow_up"),
        }
    )
    return frame, features, set(frame["image_id"][(given != truth)[lesion]])


def run(noise: float, seed: int = 0) -> tuple[LabelAudit, set[str]]:
    frame, features, wrong = made(noise=noise, seed=seed)
    return audit_labels(frame, features, "made up"), wrong


def test_planted_noise_is_found_far_above_chance() -> None:
    for seed in range(3):
        found, wrong = run(0.08, seed)
        ids = [error.image_id for error in found.errors]
        hits = len(wrong & set(ids))
        assert hits / len(ids) > 0.8, "precision; by chance it is 0.08"
        assert hits / len(wrong) > 0.6, "recall; by chance it is the share of images that are named, under 0.1"
        assert found.noise_share == pytest.approx(0.08, abs=0.05)


def test_a_clean_set_has_few_findings() -> None:
    found, _ = run(0.0)
    assert len(found.errors) < 0.02 * found.images
    assert found.overall["accuracy"].value > 0.97


def test_the_suggested_class_is_the_true_one_and_scores_rise() -> None:
    frame, features, wrong = made(noise=0.08)
    found = audit_labels(frame, features, "made up")
    truth = dict(zip(frame["image_id"], CLASSES[features[:, :3].argmax(axis=1)], strict=True))
    hits = [error for error in found.errors if error.image_id in wrong]
    assert np.mean([error.suggested == truth[error.image_id] for error in hits]) > 0.9
    scores = [error.score for error in found.errors]
    assert scores == sorted(scores)
    assert all(error.score < error.suggested_score <= 1 for error in found.errors)
    assert found.strong == sum(score < STRONG for score in scores) > 0


def test_the_finding_names_the_worst_and_is_a_note_where_none_is_strong() -> None:
    found, _ = run(0.08)
    (finding,) = found.findings()
    assert (finding.kind, finding.severity, finding.count) == ("label_error", "warn", len(found.errors))
    assert finding.examples == tuple(error.image_id for error in found.errors[:5])
    weak = LabelAudit(**{**vars(found), "errors": (LikelyError("a", None, "nv", "mel", 0.3, 0.6),)})
    assert weak.findings()[0].severity == "info"
    assert LabelAudit(**{**vars(found), "errors": ()}).findings() == []


def test_results_by_dx_type() -> None:
    """Noise in one half of the set shows there and not in the other."""
    frame, features, _ = made(noise=0.0)
    swapped = (frame["dx_type"] == "histo") & (frame["label"] == "mel")
    swapped &= frame["lesion_id"].map(dict(zip(frame["lesion_id"].unique(), range(200), strict=True))) % 4 == 0
    frame.loc[swapped, "label"] = "nv"
    found = audit_labels(frame, features, "made up")
    follow_up, histo = found.by_dx_type
    assert (follow_up["value"], histo["value"]) == ("follow_up", "histo")
    assert follow_up["images"] == histo["images"] == 200
    assert histo["groups"] == 100
    assert histo["classes"] == 3
    assert histo["likely_errors"] > 0.5 * swapped.sum() > 5
    assert follow_up["likely_errors"] <= 3
    assert histo["accuracy"]["value"] < follow_up["accuracy"]["value"] - 0.05
    assert histo["likely_error_share"]["low"] > follow_up["likely_error_share"]["high"]
    assert any(line.startswith("dx_type histo: 200 images, accuracy 0.") for line in found.lines())
    assert audit_labels(frame.drop(columns="dx_type"), features, "made up").by_dx_type == ()


def test_expected_accuracy_is_that_of_the_mix_of_classes() -> None:
    frame, features, _ = made(noise=0.15)
    frame["dx_type"] = np.where(frame["label"] == "nv", "follow_up", "histo")
    follow_up, histo = audit_labels(frame, features, "made up").by_dx_type
    assert follow_up["expected_accuracy"] == pytest.approx(follow_up["accuracy"]["value"])
    assert histo["expected_accuracy"] == pytest.approx(histo["accuracy"]["value"])


def test_lesions_are_counted() -> None:
    found, wrong = run(0.08)
    assert found.lesions["judged"] == found.lesions["several_images"] == 200
    assert found.lesions["several_images_all_likely_errors"] <= found.lesions["with_likely_error"]
    assert found.lesions["several_images_all_likely_errors"] > 0.4 * len(wrong) / 2
    assert found.errors[0].lesion_id == f"L{int(found.errors[0].image_id[1:]) // 2:03}"
    frame, features, _ = made()
    unnamed = audit_labels(frame.drop(columns="lesion_id"), features, "made up")
    assert unnamed.lesions == {}


def test_rare_classes_are_left_out_and_named() -> None:
    frame, features, _ = made()
    frame.loc[:3, "label"] = "df"
    found = audit_labels(frame, features, "made up")
    assert found.left_out == {"df": 4}
    assert found.images == len(frame) - 4
    assert "not evaluated, fewer than 5 groups: df (4 images)" in found.lines()


def test_one_class_is_refused() -> None:
    frame, features, _ = made()
    with pytest.raises(DataError, match="fewer than 2 classes are in 5 groups or more"):
        audit_labels(frame.assign(label="nv"), features, "made up")


def test_the_same_again_to_the_byte() -> None:
    texts = [json.dumps(run(0.08)[0].as_dict(), allow_nan=False) for _ in range(2)]
    assert texts[0] == texts[1]


def test_galleries_hold_the_worst_in_rows() -> None:
    errors = [LikelyError(f"i{k}", None, "nv", "mel", 0.01 * k, 0.9) for k in range(20)]
    (gallery,) = label_galleries(errors, limit=12, columns=5)
    assert gallery.kind == "label_error"
    assert gallery.title == "Likely label errors: the first 12 of 20"
    assert [len(row) for row in gallery.rows] == [5, 5, 2]
    assert [p.image_id for row in gallery.rows for p in row] == [f"i{k}" for k in range(12)]
    assert label_galleries([]) == []


def test_statistics_of_a_batch_are_those_of_each_picture() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 60, 80, 3)).astype(np.uint8)
    found = color_texture_features(images)
    assert found.shape == (3, 151)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[1], color_texture_features(images[1:2])[0])


def several(noise: float = 0.06) -> tuple[pd.DataFrame, np.ndarray, set[tuple[str, str]]]:
    """Two labels that two features tell, some entries turned round and some missing; a third that hardly any image has."""
    rng = np.random.default_rng(3)
    truth = rng.random((300, 2)) < 0.4
    turned = rng.random((300, 2)) < noise
    given = truth != turned
    missing = (rng.random((300, 2)) < 0.1) & ~turned
    ids = [f"i{k:03}" for k in range(300)]
    texts = []
    for k in range(300):
        marks = ["?" + name if missing[k, c] else name for c, name in enumerate("ab") if missing[k, c] or given[k, c]]
        texts.append("|".join([*marks, *(["c"] if k < 3 else [])]) or "(none)")
    features = np.concatenate([4.0 * truth + rng.normal(size=(300, 2)), rng.normal(size=(300, 3))], axis=1)
    frame = pd.DataFrame({"image_id": ids, "group": [f"g{k // 2}" for k in range(300)], "label": texts})
    return frame, features.astype(np.float32), {(ids[k], "ab"[c]) for k, c in zip(*np.nonzero(turned), strict=True)}


def test_entries_of_an_image_and_a_label_are_judged_one_label_at_a_time() -> None:
    """As scikit-learn's held-out probabilities and the definition of confident learning give them."""
    frame, features, turned = several()
    found = audit_labels(frame, features, "made up", task=TASKS["multilabel"])
    targets = TASKS["multilabel"].targets(frame["label"].tolist(), ["a", "b", "c"])
    expected, each = {}, []
    for c, row in zip(range(2), found.by_label, strict=True):
        known = np.flatnonzero(targets[:, c] >= 0)
        y = targets[known, c]
        fold = folds(frame.iloc[known].assign(label=np.array(["absent", "present"])[y]))
        model = make_pipeline(StandardScaler(), LogisticRegression(C=row["strength"], tol=1e-3, max_iter=300))
        p = cross_val_predict(model, features[known], y, cv=PredefinedSplit(fold), method="predict_proba")
        limit = [p[y == 0, 0].mean(), p[y == 1, 1].mean()]
        expected |= {
            (frame["image_id"][k], "abc"[c]): own[given]
            for k, given, own in zip(known, y, p, strict=True)
            if own[1 - given] >= limit[1 - given] and own[1 - given] > own[given]
        }
        each.append(roc_auc_score(y, p[:, 1]))
        assert (row["images"], row["present"]) == (len(known), int(y.sum()))
        assert row["auroc"]["value"] == pytest.approx(each[-1])
    assert {(e.image_id, e.about): e.score for e in found.errors} == pytest.approx(expected, abs=1e-6)
    assert [e.score for e in found.errors] == sorted(e.score for e in found.errors)
    assert found.overall["macro_auroc"].value == pytest.approx(np.mean(each))
    hits = {(e.image_id, e.about) for e in found.errors} & turned
    assert len(hits) > 0.7 * len(turned)
    assert len(hits) > 0.7 * len(found.errors)


def test_missing_entries_and_rare_labels_are_not_judged() -> None:
    frame, features, _ = several()
    found = audit_labels(frame, features, "made up", task=TASKS["multilabel"])
    text = dict(zip(frame["image_id"], frame["label"], strict=True))
    assert not [e for e in found.errors if f"?{e.about}" in text[e.image_id]]
    assert all((e.label == "present") == (e.about in text[e.image_id].split("|")) for e in found.errors)
    assert found.left_out == {"c": 300}
    assert found.entries == 600 - frame["label"].str.count(r"\?").sum()
    values = found.as_dict()
    assert values["entries"] == found.entries
    assert list(values["errors"][0])[:2] == ["about", "image_id"]
    (finding,) = found.findings()
    assert "class" not in " ".join([finding.detail, *found.lines()])
    caption = label_galleries(found.errors)[0].rows[0][0].caption
    assert caption.startswith(f"{found.errors[0].about} {found.errors[0].label}? looks {found.errors[0].suggested}")
    with pytest.raises(DataError, match="no label is both present and absent in 5 groups or more"):
        audit_labels(frame.iloc[:6].reset_index(drop=True), features[:6], "made up", task=TASKS["multilabel"])
