from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dermalyze.errors import DataError
from dermalyze.stages.audit import audit


def frame(n: int = 60) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": [f"i{(7 * k) % n:02}" for k in range(n)],
            "label": ["mel", "nv", "nv"] * (n // 3),
            "sha256": [f"s{k}" for k in range(n)],
            "dx_type": ["histo", "follow_up", "histo"] * (n // 3),
        }
    )


def test_findings_are_written_and_read_as_lines(prepared: Any) -> None:
    run, spec = prepared(frame())
    result = audit(run, spec)
    written = json.loads(run.audit_path.read_text())
    assert written["manifest_sha256"] == run.manifest_hash()
    assert written["findings"] == result.as_dict()["findings"]
    assert written["findings"][0] == {
        "kind": "giveaway_column",
        "severity": "warn",
        "count": 1,
        "detail": written["findings"][0]["detail"],
        "examples": ["dx_type"],
    }
    assert result.lines()[0].startswith("warn   column 'dx_type' follows from the diagnosis")
    assert result.lines()[-1] == "60 images checked, 0 quarantined; findings: 0 refuse, 1 warn, 0 info"


def test_a_conflict_is_refused_after_everything_is_written(prepared: Any) -> None:
    rows = frame()
    rows.loc[1, "sha256"] = "s0"
    run, spec = prepared(rows)
    with pytest.raises(
        DataError, match=r"run: 1 image\(s\) have two labels; first: i00 is 'mel', i07 is 'nv'.*audit.json"
    ) as caught:
        audit(run, spec)
    assert caught.value.exit_code == 3
    assert json.loads(run.audit_path.read_text())["summary"]["refuse"] == 1


def test_a_leaking_own_split_is_listed_but_left_to_train_to_refuse(prepared: Any) -> None:
    rows = frame().assign(lesion_id=[f"L{k // 2}" for k in range(60)], split=["train", "test"] * 30)
    rows["label"] = ["mel" if (k // 2) % 3 == 0 else "nv" for k in range(60)]
    run, spec = prepared(rows)
    assert audit(run, spec).findings[0].kind == "split_leak"


def test_no_usable_image_is_refused(prepared: Any) -> None:
    run, spec = prepared(frame().assign(quarantine_reason="zero bytes"))
    with pytest.raises(DataError, match="no usable image"):
        audit(run, spec)
    assert json.loads(run.audit_path.read_text())["quarantined"] == 60


def test_labels_that_cannot_be_judged_are_refused_before_a_picture_is_read(prepared: Any) -> None:
    run, spec = prepared(frame().assign(label="nv"))
    with pytest.raises(DataError, match="fewer than 2 classes are in 5 groups or more"):
        audit(run, spec, labels=True)


def test_metadata_are_judged_alone_and_together(prepared: Any) -> None:
    run, spec = prepared(frame().assign(sex=["male", "female"] * 30, site=["back", "face", "leg"] * 20))
    result = audit(run, spec)
    written = json.loads(run.audit_path.read_text())["metadata"]
    assert [row["column"] for row in written["columns"]] == ["sex", "site", "dx_type"]
    assert written["columns"][1]["auroc"] == 1.0, "every third image is of one class and one site"
    assert written["model"]["macro_auroc"]["value"] > 0.9
    assert [f.kind for f in result.findings].count("telling_metadata") == 1
    assert "sex, site alone, without an image: macro AUROC " in result.lines()[-2]


def test_pictures_are_looked_at_and_the_page_is_the_same_again(prepared: Any, tmp_path: Path) -> None:
    """A white patch on one class; what is found is in audit.json and, word for word, on the page."""
    rows, data = frame(120), tmp_path / "data"
    rows["image_id"] = [f"p{k:03}" for k in range(120)]
    rng = np.random.default_rng(0)
    data.mkdir()
    for image_id, label in zip(rows["image_id"], rows["label"], strict=True):
        pixels = rng.normal((220, 170, 160), 5, (60, 80, 3))
        pixels[3:12, 3:12] = 250 if label == "mel" else pixels[3:12, 3:12]
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(data / f"{image_id}.png")
    rows["path"] = [f"{image_id}.png" for image_id in rows["image_id"]]
    run, spec = prepared(rows, config={"data": {"path": str(data), "workers": 0}})
    result = audit(run, spec)
    written = run.audit_path.read_bytes(), run.audit_page_path.read_bytes()
    assert "telling_looks" in {finding.kind for finding in result.findings}
    assert {"artifacts", "looks"} <= json.loads(written[0])["looks"].keys()
    page = written[1].decode().replace("&#39;", "'").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert all(finding.detail in page for finding in result.findings)
    assert str(tmp_path) not in page
    audit(run, spec)
    assert (run.audit_path.read_bytes(), run.audit_page_path.read_bytes()) == written


def test_a_plain_audit_says_that_it_leaves_out_what_was_said_of_labels(
    prepared: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run, spec = prepared(frame())
    audit(run, spec)
    assert "--labels" not in capsys.readouterr().err
    run.audit_path.write_text(json.dumps({**json.loads(run.audit_path.read_text()), "labels": {}}))
    audit(run, spec)
    assert "findings of --labels are left out" in capsys.readouterr().err
    run.audit_path.write_text("{")
    audit(run, spec)
    assert "labels" not in json.loads(run.audit_path.read_text())
