from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from dermalyze.audit.association import association, binned
from dermalyze.audit.checks import Finding, audit_frame
from dermalyze.config.data import SplitSpec


def clean(n: int = 400, seed: int = 0) -> pd.DataFrame:
    """A set with nothing to find: two photographs a lesion, columns drawn without a look at the label."""
    rng = np.random.default_rng(seed)
    lesion = np.repeat(np.arange(n // 2), 2)
    label = rng.choice(["nv", "mel", "bcc"], n // 2, p=[0.6, 0.25, 0.15])[lesion]
    ids = rng.permutation(n)
    return pd.DataFrame(
        {
            "image_id": [f"ISIC_{k:05}" for k in ids],
            "path": [f"ISIC_{k:05}.jpg" for k in ids],
            "sha256": [f"s{k}" for k in range(n)],
            "pixel_sha256": [f"p{k}" for k in range(n)],
            "lesion_id": [f"HAM_{k}" for k in lesion],
            "label": label,
            "width": 600,
            "height": 450,
            "mode": "RGB",
            "age": rng.normal(50, 15, n),
            "sex": rng.choice(["male", "female"], n),
            "site": rng.choice(["back", "face", "leg"], n),
            "source": rng.choice(["vienna", "brisbane"], n),
            "camera": rng.choice(["a", "b", "c"], n),
        }
    )


def found(frame: pd.DataFrame) -> dict[str, Finding]:
    return {finding.kind: finding for finding in audit_frame(frame, SplitSpec())}


def test_a_clean_set_has_no_finding() -> None:
    assert audit_frame(clean(), SplitSpec()) == []


def test_one_image_under_two_labels_comes_first_and_is_named() -> None:
    frame = clean()
    a = frame.index[frame["label"] == "mel"][0]
    b = frame.index[frame["label"] == "nv"][0]
    frame.loc[b, "sha256"] = frame.loc[a, "sha256"]
    findings = audit_frame(frame, SplitSpec())
    assert (findings[0].kind, findings[0].severity, findings[0].count) == ("label_conflict", "refuse", 1)
    assert set(findings[0].examples) == {frame.loc[a, "image_id"], frame.loc[b, "image_id"]}
    assert "is 'mel'" in findings[0].detail
    assert "is 'nv'" in findings[0].detail


def test_duplicates_are_noted_by_file_and_by_pixels_once_each() -> None:
    frame = clean()
    frame.loc[1, ["sha256", "pixel_sha256"]] = frame.loc[0, ["sha256", "pixel_sha256"]].to_list()  # the same lesion
    frame.loc[3, "pixel_sha256"] = frame.loc[2, "pixel_sha256"]
    by_kind = found(frame)
    assert by_kind["duplicate_file"].count == by_kind["duplicate_pixels"].count == 1
    assert by_kind["duplicate_file"].severity == "info"
    assert by_kind["duplicate_pixels"].examples == tuple(sorted(frame.loc[[2, 3], "image_id"]))


def test_an_own_split_that_divides_lesions_is_refused_by_lesion() -> None:
    frame = clean().assign(split=["train", "test"] * 200)
    leak = found(frame)["split_leak"]
    assert (leak.severity, leak.count) == ("refuse", 200)
    assert leak.examples[0].startswith("HAM_")
    assert "--accept-leak" in leak.detail
    whole = clean().assign(split=np.where(np.arange(400) % 20 < 10, "train", "test"))
    assert "split_leak" not in found(whole)


def test_a_split_column_that_split_would_refuse_is_a_finding() -> None:
    assert "unknown value 'holdout'" in found(clean().assign(split=["train", "holdout"] * 200))["split_column"].detail


@pytest.mark.parametrize(
    "name", ["dx_type", "diagnosis_confirm_type", "biopsed", "concomitant_biopsy", "mel_thick_mm", "MEL_class"]
)
def test_giveaway_columns_are_known_by_name_even_when_empty(name: str) -> None:
    finding = found(clean().assign(**{name: None}))["giveaway_column"]
    assert finding.examples == (name,)
    assert "never a model input" in finding.detail


def test_a_giveaway_column_is_found_by_what_it_tells() -> None:
    frame = clean()
    frame["note"] = frame["label"].map({"mel": "urgent", "nv": "routine", "bcc": "routine"})
    frame["depth"] = np.where(frame["label"] == "bcc", "1.2", None)  # only its presence tells
    frame["score"] = frame["label"].map({"mel": 9.0, "nv": 1.0, "bcc": 1.0}) + np.random.default_rng(1).random(400)
    named = [f.examples[0] for f in audit_frame(frame, SplitSpec()) if f.kind == "giveaway_column"]
    assert named == ["note", "depth", "score"]


def test_an_id_that_stands_for_one_lesion_tells_nothing() -> None:
    frame = clean()
    frame["chart"] = frame["lesion_id"].str.replace("HAM_", "chart ")
    assert "giveaway_column" not in found(frame)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda f: f.assign(width=np.where(f["label"] == "mel", 1024, 600)), "image size"),
        (lambda f: f.assign(mode=np.where(f["label"] == "mel", "RGBA", "RGB")), "stored mode"),
        (lambda f: f.assign(path=f["image_id"] + np.where(f["label"] == "mel", ".png", ".jpg")), "file type"),
        (lambda f: f.assign(image_id=f["label"] + "_" + f["image_id"].str[-5:]), "prefix of image_id"),
        (lambda f: f.sort_values("label").assign(image_id=[f"img{k}" for k in range(400)]), "number in image_id"),
        (lambda f: f.assign(lesion_id=f["label"].str.upper() + f["lesion_id"].str[4:]), "prefix of lesion_id"),
    ],
)
def test_files_that_tell_the_class(change: object, what: str) -> None:
    finding = found(change(clean()))["telling_files"]  # type: ignore[operator]
    assert finding.detail.startswith(f"{what} predicts the class (AUROC ")
    assert finding.severity == "warn"


def test_a_source_of_one_class_is_found_and_a_small_or_likely_one_is_not() -> None:
    frame = clean()
    frame.loc[frame["label"] == "mel", "source"] = np.where(np.arange((frame["label"] == "mel").sum()) % 3, "graz", "vienna")
    finding = found(frame)["one_class_value"]
    assert finding.examples == ("graz",)
    assert "all 'mel'" in finding.detail
    few = clean()
    few.loc[few.index[few["label"] == "mel"][:8], "source"] = "graz"
    assert "one_class_value" not in found(few)
    likely = clean()
    likely["label"] = np.where(np.arange(400) % 40 == 0, "mel", "nv")  # 97 % nv: ten lesions of nv alone are no surprise
    likely["lesion_id"] = [f"L{k}" for k in range(400)]
    likely.loc[likely.index[likely["label"] == "nv"][:30], "source"] = "graz"
    assert "one_class_value" not in found(likely)


def test_a_lesion_with_two_labels_and_a_placeholder_id() -> None:
    frame = clean()
    frame.loc[0, "label"], frame.loc[1, "label"] = "mel", "nv"
    assert found(frame)["mixed_lesion"].examples == ("HAM_0",)
    giant = found(clean().assign(patient_id=["unknown"] * 100 + [f"P{k}" for k in range(300)]))["giant_group"]
    assert giant.count == 100
    assert "by one value of patient_id (a placeholder?" in giant.detail
    assert "unknown" not in giant.detail


def test_an_empty_set_is_refused() -> None:
    assert [f.kind for f in audit_frame(clean().iloc[:0], SplitSpec())] == ["empty"]


def test_association_agrees_with_a_plain_cross_validation() -> None:
    """Reference: GroupKFold, a table of shares a value, scikit-learn's AUROC; other folds, so equal within noise."""
    rng = np.random.default_rng(3)
    label = pd.Series(rng.choice(["mel", "nv"], 3000, p=[0.3, 0.7]))
    value = pd.Series(np.where(rng.random(3000) < 0.75, label, rng.choice(["x", "mel", "nv"], 3000)))
    group = pd.Series(np.arange(3000) // 3)
    areas, truth = [], label == "mel"
    for fit, held in GroupKFold(5).split(value, label, group):
        score = value.iloc[held].map(truth.iloc[fit].groupby(value.iloc[fit]).mean())
        areas.append(roc_auc_score(truth.iloc[held], score))
    assert association(value, label, group)[0] == pytest.approx(np.mean(areas), abs=0.005)


def test_a_weak_sign_is_not_lost_between_folds() -> None:
    """Shares of different folds differ by chance; compared across folds they would hide what each fold shows."""
    rng = np.random.default_rng(5)
    label = pd.Series(rng.choice(["mel", "nv"], 2000, p=[0.1, 0.9]))
    value = pd.Series(rng.random(2000) < np.where(label == "mel", 0.16, 0.06))
    area, _ = association(value, label, pd.Series(np.arange(2000)))
    assert area == pytest.approx(0.5 + (value[label == "mel"].mean() - value[label == "nv"].mean()) / 2, abs=0.005)


def test_association_does_not_depend_on_the_order_of_rows_and_is_chance_for_shuffled_labels() -> None:
    frame = clean(2000)
    order = np.random.default_rng(0).permutation(2000)
    arguments = frame["camera"], frame["label"], frame["lesion_id"]
    assert association(*arguments) == association(*(column.iloc[order] for column in arguments))
    assert association(*arguments)[0] == pytest.approx(0.5, abs=0.06)
    assert association(frame["label"], frame["label"], frame["lesion_id"])[0] == 1.0


def test_association_of_a_class_with_too_few_groups_is_not_estimated() -> None:
    label = pd.Series(["mel"] * 4 + ["nv"] * 3)
    assert association(label, label, pd.Series(range(7))) == (0.5, "")


def test_numbers_are_binned_as_text_too_and_words_are_left() -> None:
    assert binned(pd.Series([str(k) for k in range(100)])).nunique() == 20
    assert binned(pd.Series(["a", "b"])).tolist() == ["a", "b"]
    assert binned(pd.Series([0.0] * 90 + list(range(30)))).nunique() <= 20
