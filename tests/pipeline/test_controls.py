"""Controls on tiny sets whose truth is known: what must fail fails, a planted shortcut is found, a clean set is not accused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from squares import EPOCHS, LESIONS, experiment, paint

from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.run import Run, read_json
from dermalyze.data.manifest import read_manifest
from dermalyze.data.splitting import read_division
from dermalyze.errors import DataError, LeakError, UsageError
from dermalyze.workflows.controls import ControlsResult, controls, shuffle
from dermalyze.workflows.pipeline import run_experiment


def make_run(root: Path, spec: ExperimentSpec, *, trained: bool = True) -> Run:
    steps = ("prepare", "split", "train", "export") if trained else ("prepare", "split")
    run_experiment(spec, root, steps=steps)
    return Run(root)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERMALYZE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, cache: None) -> tuple[Run, ControlsResult]:
    root = tmp_path_factory.mktemp("clean")
    run = make_run(root / "run", experiment(paint(root / "data", marked=False)))
    only = ["shuffled", "foreground", "background", "shortcut", "planted"]
    return run, controls(run, run.config(), only=only, epochs=EPOCHS)


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory, cache: None) -> tuple[Run, ControlsResult]:
    root = tmp_path_factory.mktemp("marked")
    run = make_run(root / "run", experiment(paint(root / "data", marked=True)))
    return run, controls(run, run.config(), only=["border", "shortcut"], epochs=EPOCHS)


def test_shuffled_labels_cover_chance(clean: tuple[Run, ControlsResult]) -> None:
    found = clean[1].found["controls"]["shuffled"]
    assert found["verdict"] == "holds"
    assert found["macro_auroc"]["low"] <= 0.5 <= found["macro_auroc"]["high"]


def test_the_lesion_alone_tells_and_the_background_does_not(clean: tuple[Run, ControlsResult]) -> None:
    found = clean[1].found["controls"]
    assert found["foreground"]["verdict"] == "holds"
    assert found["foreground"]["macro_auroc"]["value"] > 0.65
    assert found["background"]["verdict"] == "holds"
    assert found["background"]["difference"]["low"] > 0


def test_a_clean_set_is_not_accused(clean: tuple[Run, ControlsResult]) -> None:
    found = clean[1].found["controls"]
    assert found["shortcut"]["verdict"] == "holds"
    assert found["shortcut"]["telling"] == []


def test_the_shortcut_of_a_set_is_found_by_its_border_and_by_exchange(marked: tuple[Run, ControlsResult]) -> None:
    found = marked[1].found["controls"]
    assert found["border"]["verdict"] == "suspicious"
    assert found["shortcut"]["verdict"] == "suspicious"
    assert "mel" in found["shortcut"]["telling"]
    assert found["shortcut"]["macro_auroc"]["difference"]["value"] > 0.2


def test_a_planted_mark_is_found_and_what_it_costs_is_measured(clean: tuple[Run, ControlsResult]) -> None:
    found = clean[1].found["controls"]["planted"]
    assert found["verdict"] == "holds"
    assert found["target"] == "mel"
    lying = found["lost"]["lying"]["accuracy"]
    assert lying["difference"]["value"] == pytest.approx(lying["truth"]["value"] - lying["lying"]["value"])
    assert lying["difference"]["low"] > 0


def test_the_file_holds_what_is_told_and_no_path(clean: tuple[Run, ControlsResult]) -> None:
    run, result = clean
    stored = run.controls_path.read_text()
    assert json.loads(stored) == result.found
    assert str(run.root.parent) not in stored
    told = "\n".join(result.lines())
    assert all(f"{title}: " in told for title in ("shuffled labels", "foreground only", "planted shortcut"))


def test_again_is_no_training_and_keeps_the_other_controls(
    clean: tuple[Run, ControlsResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, result = clean
    monkeypatch.setattr("dermalyze.stages.train.train", lambda *a, **k: pytest.fail("trained again"))
    again = controls(run, run.config(), only=["shuffled"], epochs=EPOCHS)
    assert again.found == result.found


def test_inner_runs_share_the_split_and_shuffled_labels_keep_the_counts(clean: tuple[Run, ControlsResult]) -> None:
    run = clean[0]
    frame, parts = read_division(run)
    for kind in ("whole", "foreground", "background", "shuffled", "planted"):
        inner, same = read_division(Run(run.control_run(kind)))
        assert same.tolist() == parts.tolist()
        assert inner["group"].tolist() == frame["group"].tolist(), "images painted alike must not join groups"
    labels = read_manifest(Run(run.control_run("shuffled")))["label"]
    assert labels.tolist() != frame["label"].tolist()
    for part in set(parts):
        rows = (parts == part).to_numpy()
        assert sorted(labels[rows]) == sorted(frame["label"][rows])


def test_other_settings_are_refused(clean: tuple[Run, ControlsResult]) -> None:
    run = clean[0]
    with pytest.raises(UsageError, match=r"other settings \(train\.epochs\); give the same as before, or delete controls"):
        controls(run, run.config(), only=["shuffled"], epochs=EPOCHS + 1)
    with pytest.raises(UsageError, match=r"--only border1: allowed are .*; did you mean 'border'"):
        controls(run, run.config(), only=["border1"])
    with pytest.raises(UsageError, match="cannot differ"):
        controls(run, run.config(), sets=["data.workers=2"])


def test_without_masks_lesion_and_background_are_refused_and_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", experiment(paint(tmp_path / "data", marked=False, masks=False)), trained=False)
    for name in ("foreground", "background"):
        with pytest.raises(DataError, match="no masks"):
            controls(run, run.config(), only=[name])
    with pytest.raises(UsageError, match="no exported model; run first: dermalyze export"):
        controls(run, run.config(), only=["shortcut"])
    assert not run.controls_dir.exists()


def test_a_leaking_split_is_refused(tmp_path: Path) -> None:
    data = paint(tmp_path / "data", marked=False)
    rows = (data / "set.csv").read_text().splitlines()
    parts = ["split", *(["train", "train", "val", "val", "test", "test"] * LESIONS)]
    leaking = [f"{row},{part}" for row, part in zip(rows, parts, strict=False)]
    leaking[5] = leaking[5].replace("L004", "L000")
    (data / "set.csv").write_text("\n".join(leaking) + "\n")
    run = Run(tmp_path / "run")
    run_experiment(experiment(data), run.root, steps=("prepare", "split"))
    with pytest.raises(LeakError):
        controls(run, run.config(), only=["metadata"])


def test_metadata_needs_no_training(clean: tuple[Run, ControlsResult]) -> None:
    run = clean[0]
    found = controls(run, run.config(), only=["metadata"], epochs=EPOCHS).found["controls"]["metadata"]
    assert found == {"verdict": "not estimable", "why": "no column of age, sex, site or source varies", "noun": "class"}


@pytest.mark.slow
def test_the_ink_of_synth_is_found_and_a_clean_set_is_not_accused(tmp_path: Path) -> None:
    from dermalyze.config.experiment import load_experiment
    from dermalyze.data.synthetic.synth import synthesize
    from dermalyze.workflows.pipeline import run_experiment

    demo = Path(__file__).resolve().parents[2] / "experiments" / "demo.yaml"
    found = {}
    for plant in ("shortcut", None):
        data, root = tmp_path / f"synth-{plant}", tmp_path / f"run-{plant}"
        synthesize(data, lesions=600, seed=11, size_px=(96, 96), balance="even", difficulty=1.0, plant=plant)
        run_experiment(load_experiment(demo, [f"data.path={data}"]), root)
        found[plant] = controls(Run(root), Run(root).config(), only=["shortcut"]).found["controls"]["shortcut"]
    assert found["shortcut"]["verdict"] == "suspicious"
    assert found["shortcut"]["telling"] == ["mel"]
    assert found[None]["verdict"] == "holds"


def test_shuffling_is_the_same_for_the_same_seed(clean: tuple[Run, ControlsResult]) -> None:
    frame, parts = read_division(clean[0])
    assert shuffle(frame, parts, 1) == shuffle(frame, parts, 1) != shuffle(frame, parts, 2)
    assert read_json(clean[0].controls_path)["settings"]["epochs"] == EPOCHS
