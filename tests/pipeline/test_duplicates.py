"""Near-duplicates to the refusal (fault 8): planted ones are found and kept together, clean sets have none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dermalyze.config.experiment import ExperimentSpec, build_experiment
from dermalyze.core.run import Run
from dermalyze.data import duplicates as duplicates_module
from dermalyze.data.manifest import read_manifest
from dermalyze.data.splitting import read_division, require_no_leak
from dermalyze.data.synthetic.copies import COPIES
from dermalyze.data.synthetic.synth import synthesize
from dermalyze.errors import DataError, LeakError, UsageError
from dermalyze.stages.audit import AuditResult, audit
from dermalyze.stages.prepare import prepare
from dermalyze.stages.split import split

Made = Callable[..., tuple[Path, dict[str, Any]]]


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """`synthetic(plant)`: a folder, and what was planted there."""
    made: dict[str | None, Path] = {}

    def make(plant: str | None = None) -> tuple[Path, dict[str, Any]]:
        if plant not in made:
            out = tmp_path_factory.mktemp("synthetic") / "set"
            synthesize(out, lesions=70, seed=5, size_px=(96, 128), balance="even", plant=plant, workers=1)
            made[plant] = out
        truth = made[plant] / "planted.json"
        return made[plant], json.loads(truth.read_text()) if truth.exists() else {}

    return make


def prepared(root: Path, data: Path) -> tuple[Run, ExperimentSpec]:
    spec = build_experiment({"data": {"path": str(data), "workers": 0}})
    run = Run.create(root, spec)
    prepare(run, spec)
    return run, spec


def kinds(result: AuditResult) -> set[str]:
    return {finding.kind for finding in result.findings}


@pytest.fixture
def copied(synthetic: Made, tmp_path: Path) -> tuple[Run, ExperimentSpec, dict[str, Any]]:
    data, truth = synthetic("duplicates")
    return *prepared(tmp_path / "run", data), truth


def test_a_clean_set_has_none_across_lesions(synthetic: Made, tmp_path: Path) -> None:
    run, spec = prepared(tmp_path / "run", synthetic()[0])
    result = audit(run, spec)
    assert not kinds(result) & {"duplicate_lesions", "duplicate_labels", "split_duplicates", "large_cluster"}
    assert not [gallery for gallery in result.galleries if gallery.kind.startswith("duplicate")]
    assert result.duplicates.compared == result.images


def test_every_planted_copy_is_found_and_stays_with_its_original(copied: tuple[Run, ExperimentSpec, dict[str, Any]]) -> None:
    run, spec, truth = copied
    assert {kind for _, kind in truth["made_from"].values()} == set(COPIES)
    result = audit(run, spec)
    planted = {frozenset((copy, original)) for copy, (original, _) in truth["made_from"].items()}
    found = {frozenset((pair.first, pair.second)) for pair in result.duplicates.pairs}
    assert planted <= found
    frame = read_manifest(run).set_index("image_id")
    for copy, (original, kind) in truth["made_from"].items():
        assert frame.loc[copy, "cluster_id"] == frame.loc[original, "cluster_id"], kind
    strange = {pair for pair in found - planted if frame.loc[sorted(pair), "lesion_id"].nunique() > 1}
    assert all(pair & set(truth["image_ids"]) for pair in strange)  # a copy and another photograph of its lesion at most
    across = next(finding for finding in result.findings if finding.kind == "duplicate_lesions")
    assert across.severity == "warn"
    assert {frozenset(ids.split()) for ids in across.examples} == planted | strange
    gallery = next(gallery for gallery in result.galleries if gallery.kind == "duplicate_lesions")
    assert {frozenset(picture.image_id for picture in row) for row in gallery.rows} == planted | strange

    split(run, spec)
    rows, parts = read_division(run)
    part = dict(zip(rows["image_id"], parts, strict=True))
    assert all(part[copy] == part[original] for copy, (original, _) in truth["made_from"].items())
    assert require_no_leak(run, None) is None


def test_again_the_same_bytes_and_nothing_is_decoded(
    copied: tuple[Run, ExperimentSpec, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, spec, _ = copied
    audit(run, spec)
    before = {path.name: path.read_bytes() for path in run.root.iterdir() if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(duplicates_module, "thumbnails", lambda *args, **options: pytest.fail("decoded again"))
        audit(run, spec)
        assert not prepare(run, spec).fresh
    assert {path.name: path.read_bytes() for path in run.root.iterdir() if path.is_file()} == before
    record = json.loads(run.audit_path.read_text())
    assert record["duplicates"]["pairs"] == len(record["duplicates"]["list"]) > 0
    assert record["duplicates"]["largest_cluster"] >= 2
    run.audit_path.write_text("{}")  # compared anew, to the same
    audit(run, spec)
    assert {path.name: path.read_bytes() for path in run.root.iterdir() if path.is_file()} == before


def test_08_a_copy_across_a_split_made_before_the_audit_is_refused(
    copied: tuple[Run, ExperimentSpec, dict[str, Any]],
) -> None:
    run, spec, truth = copied
    split(run, spec)
    assert require_no_leak(run, None) is None  # nobody knows yet
    certified = run.certificate_path.read_bytes()
    with pytest.raises(DataError, match=r"near-duplicates cross splits.*split again: dermalyze split") as caught:
        audit(run, spec)
    assert caught.value.exit_code == 3
    record = json.loads(run.audit_path.read_text())
    assert record["findings"][0]["kind"] == "split_duplicates"
    assert run.certificate_path.read_bytes() == certified
    with pytest.raises(LeakError, match=r"the split leaks") as refused:
        require_no_leak(run, None)
    assert refused.value.exit_code == 3
    assert require_no_leak(run, "to compare") == "to compare"

    split(run, spec)  # moves each cluster as a group
    assert "split_duplicates" not in kinds(audit(run, spec))
    assert require_no_leak(run, None) is None
    rows, parts = read_division(run)
    part = dict(zip(rows["image_id"], parts, strict=True))
    assert all(part[copy] == part[original] for copy, (original, _) in truth["made_from"].items())


@pytest.mark.parametrize("how", ["flip", "turn", "crop", "jpeg"])
def test_08_one_copy_across_a_users_own_split(synthetic: Made, tmp_path: Path, how: str) -> None:
    data = tmp_path / "data"
    shutil.copytree(synthetic()[0], data)
    table = pd.read_csv(data / "HAM10000_metadata.csv", dtype=str, keep_default_na=False)
    order = table.groupby("dx")["lesion_id"].transform(lambda lesions: pd.factorize(lesions)[0])
    table["split"] = np.where(order % 3 == 0, "test", "train")
    first = table[table["split"] == "train"].iloc[0]
    source = next(data.rglob(f"{first['image_id']}.jpg"))
    image = Image.open(source).convert("RGB")
    width, height = image.size
    copy = {
        "flip": lambda: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "turn": lambda: image.rotate(90, expand=True),
        "crop": lambda: image.crop((width // 10, height // 20, width, height - height // 20)),
        "jpeg": lambda: image,
    }[how]()
    copy.save(source.with_name("ISIC_0000001.jpg"), quality=30 if how == "jpeg" else 90)
    table.loc[len(table)] = {**first, "image_id": "ISIC_0000001", "lesion_id": "HAM_0000001", "split": "test"}
    table.to_csv(data / "HAM10000_metadata.csv", index=False)
    run, spec = prepared(tmp_path / "run", data)
    result = audit(run, spec)
    leak = next(finding for finding in result.findings if finding.kind == "split_leak")
    assert leak.severity == "refuse"
    assert any({"ISIC_0000001", first["image_id"]} == {pair.first, pair.second} for pair in result.duplicates.pairs)
    certificate = split(run, spec).certificate
    assert not certificate["passed"]
    assert [found["joined_by"] for found in certificate["leaks"]] == [["cluster_id"]]
    with pytest.raises(LeakError, match="the split leaks"):
        require_no_leak(run, None)


def test_planted_lesions_that_cross_are_refused(synthetic: Made, tmp_path: Path) -> None:
    data, truth = synthetic("crossing")
    run, spec = prepared(tmp_path / "run", data)
    leak = next(finding for finding in audit(run, spec).findings if finding.kind == "split_leak")
    certificate = split(run, spec).certificate
    crossing = {image_id for found in certificate["leaks"] for image_id in found["image_ids"]}
    assert set(truth["image_ids"]) == crossing
    assert leak.count == len(certificate["leaks"])
    with pytest.raises(LeakError, match="the split leaks"):
        require_no_leak(run, None)


def test_touched_files_after_the_split_are_the_same_set(
    copied: tuple[Run, ExperimentSpec, dict[str, Any]], tmp_path: Path
) -> None:
    run, spec, _ = copied
    audit(run, spec)
    split(run, spec)
    before = run.manifest_path.read_bytes()
    summary = json.loads(run.summary_path.read_text())
    run.summary_path.write_text(json.dumps({**summary, "fingerprint": "another"}))  # as if every file had another date
    assert prepare(run, spec).fresh
    assert run.manifest_path.read_bytes() == before
    run.certificate()


def test_a_missing_image_is_a_data_error_that_says_what_to_do(synthetic: Made, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(synthetic()[0], data)
    run, spec = prepared(tmp_path / "run", data)
    gone = next(data.rglob("ISIC_*.jpg"))
    gone.unlink()
    with pytest.raises(DataError, match=r"file is missing; it could be read before: restore it"):
        audit(run, spec)
    assert not run.audit_path.exists()


def test_an_unknown_defect_is_refused_before_anything_is_painted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"plant is 'duplicate'.*did you mean 'duplicates'"):
        synthesize(tmp_path / "set", lesions=7, size_px=32, plant="duplicate", workers=1)
    assert list(tmp_path.iterdir()) == []


def test_the_same_seed_plants_the_same_bytes(tmp_path: Path) -> None:
    for plant in ("duplicates", "crossing"):
        sets = [tmp_path / f"{plant}-{n}" for n in range(2)]
        for out in sets:
            synthesize(out, lesions=28, seed=3, size_px=32, balance="even", images_per_lesion=2, plant=plant, workers=1)
        one, two = ({p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()} for out in sets)
        assert one == two
