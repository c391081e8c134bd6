from __future__ import annotations

import hashlib
import json
from typing import Any

import pandas as pd
import pytest

from dermalyze.core.run import Run
from dermalyze.errors import DataError, ResourceError, UsageError
from dermalyze.stages import split as stage
from dermalyze.stages.split import split


def frame(pairs: int = 40) -> pd.DataFrame:
    """Two photographs a lesion, a third of them melanoma."""
    n = 2 * pairs
    return pd.DataFrame(
        {
            "image_id": [f"ISIC_{k:04}" for k in range(n)],
            "lesion_id": [f"HAM_{k // 2}" for k in range(n)],
            "patient_id": [f"MRN{k // 4}" if k < 40 else None for k in range(n)],
            "label": ["mel" if (k // 4) % 3 == 0 else "nv" for k in range(n)],
            "sha256": [f"s{k}" for k in range(n)],
            "pixel_sha256": [f"p{k}" for k in range(n)],
        }
    )


def files(run: Run) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(run.splits_dir.iterdir())}


def test_the_certificate_states_every_property_with_its_count(prepared: Any) -> None:
    run, spec = prepared(frame())
    result = split(run, spec)
    certificate = json.loads(run.certificate_path.read_text())
    assert certificate == result.as_dict()
    assert certificate["manifest_sha256"] == run.manifest_hash()
    assert (certificate["passed"], certificate["leaks"], certificate["seed"], certificate["kind"]) == (True, [], 42, "holdout")
    assert {c["name"]: c["count"] for c in certificate["checks"]} == {
        "every image in exactly one part": 80,
        "no group in two splits": 30,  # 10 patients with 2 lesions each, and 20 lesions without a patient
        "no patients in two splits": 10,
        "no lesions in two splits": 40,
        "no near-duplicate clusters in two splits": 0,
        "no identical files in two splits": 80,
        "no identical pixels in two splits": 80,
        "no image under two labels": 80,
        "every class in every part": 2,
        "sizes as asked": 4,
    }
    assert all(c["passed"] for c in certificate["checks"])
    assert certificate["fractions"]["asked"] == {"train": 0.65, "val": 0.1, "cal": 0.1, "test": 0.15}
    assert sum(c["images"] for c in certificate["counts"].values()) == 80
    assert sum(c["classes"]["mel"] for c in certificate["counts"].values()) == int((frame()["label"] == "mel").sum())
    assert set(certificate["used_for"]) == {"train", "val", "cal", "test"}
    assert certificate["calibration"] == "on the calibration split"
    assert "MRN" not in run.certificate_path.read_text()
    text = "\n".join(result.lines())
    assert "10 properties hold; no group crosses splits" in text
    assert f"train {certificate['counts']['train']['images']:>8}" in text


def test_three_parts_say_what_cross_fitting_costs(prepared: Any) -> None:
    run, spec = prepared(frame(), config={"split": {"fractions": {"train": 0.7, "val": 0.15, "test": 0.15}}})
    certificate = split(run, spec).certificate
    assert not run.split_path("cal").exists()
    assert certificate["used_for"]["val"] == "early stopping and choices, calibration (cross-fitted)"
    assert "cross-fitted on val" in certificate["calibration"]
    assert any("cross-fitted on val" in line for line in split(run, spec).lines())


def test_the_same_inputs_give_the_same_bytes_in_any_order_of_rows(prepared: Any) -> None:
    run, spec = prepared(frame())
    split(run, spec)
    first = files(run)
    split(run, spec)
    assert files(run) == first
    other, _ = prepared(frame().sample(frac=1, random_state=3), name="other")
    split(other, spec)
    assert files(other) == first
    third, spec3 = prepared(frame(), config={"split": {"seed": 7}}, name="third")
    split(third, spec3)
    assert files(third)["test_split.csv"] != first["test_split.csv"]


def test_quarantined_images_are_in_no_part(prepared: Any) -> None:
    rows = frame()
    rows["quarantine_reason"] = [None] * 78 + ["truncated"] * 2
    run, spec = prepared(rows)
    certificate = split(run, spec).certificate
    assert sum(c["images"] for c in certificate["counts"].values()) == 78
    assert "ISIC_0079" not in "".join(run.split_path(part).read_text() for part in certificate["files"])


def test_a_leaking_own_split_is_written_not_passed_and_told_loudly(prepared: Any) -> None:
    rows = frame().assign(split=["train", "train", "val", "val", "test", "test", "cal", "cal"] * 10, patient_id=None)
    rows.loc[1, "split"] = "test"
    run, spec = prepared(rows)
    result = split(run, spec)
    assert not result.passed
    assert [leak["lesion_ids"] for leak in result.certificate["leaks"]] == [["HAM_0"]]
    assert result.certificate["leaks"][0]["parts"] == {"train": 1, "test": 1}
    failed = {c["name"] for c in result.certificate["checks"] if not c["passed"]}
    assert failed == {"no group in two splits", "no lesions in two splits"}
    assert result.lines()[-2].startswith("LEAK: 1 group(s) with 2 images")
    assert "--accept-leak" in result.lines()[-1]
    assert result.certificate["kind"] == "own"
    assert result.certificate["fractions"]["asked"] is None


def test_identical_pixels_in_two_parts_are_a_leak(prepared: Any) -> None:
    rows = frame().assign(split=["train", "train", "val", "val", "test", "test", "cal", "cal"] * 10, patient_id=None)
    rows.loc[24, "pixel_sha256"] = rows.loc[0, "pixel_sha256"]  # both melanoma and both in train: no leak
    run, spec = prepared(rows)
    assert split(run, spec).passed
    rows.loc[26, "pixel_sha256"] = rows.loc[0, "pixel_sha256"]  # and one in val
    other, _ = prepared(rows, name="other")
    assert {c["name"] for c in split(other, spec).certificate["checks"] if not c["passed"]} == {
        "no group in two splits",
        "no identical pixels in two splits",
    }


def test_one_image_under_two_labels_is_refused_and_nothing_written(prepared: Any) -> None:
    rows = frame()
    rows.loc[4, "sha256"] = rows.loc[0, "sha256"]
    assert rows.loc[0, "label"] != rows.loc[4, "label"]
    run, spec = prepared(rows)
    with pytest.raises(DataError, match="have two labels; first: ISIC_0000, ISIC_0004"):
        split(run, spec)
    assert not run.splits_dir.exists()


def test_too_few_lesions_leave_nothing_behind(prepared: Any) -> None:
    run, spec = prepared(frame(3))
    with pytest.raises(DataError, match="at least 4 of each class"):
        split(run, spec)
    assert not run.splits_dir.exists()


def test_not_prepared_yet(tmp_path: Any, prepared: Any) -> None:
    run, spec = prepared(frame())
    run.manifest_path.unlink()
    with pytest.raises(UsageError, match="run first: dermalyze prepare"):
        split(run, spec)


def test_a_crash_between_the_files_leaves_no_certificate(prepared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, spec = prepared(frame())
    split(run, spec)
    good, write = files(run), stage.write_bytes

    def full(path: Any, data: bytes) -> None:
        if path.name == "cal_split.csv":
            raise ResourceError("no space")
        write(path, data)

    monkeypatch.setattr(stage, "write_bytes", full)
    with pytest.raises(ResourceError):
        split(run, spec)
    assert not run.certificate_path.exists()
    monkeypatch.undo()
    split(run, spec)
    assert files(run) == good


def test_k_folds_say_which_one_they_test(prepared: Any) -> None:
    run, spec = prepared(frame(), config={"split": {"kind": "kfold", "folds": 4, "fold": 2}})
    certificate = split(run, spec).certificate
    assert (certificate["kind"], certificate["folds"], certificate["fold"], certificate["passed"]) == ("kfold", 4, 2, True)
    assert certificate["fractions"]["got"]["test"] == pytest.approx(0.25, abs=0.05)
