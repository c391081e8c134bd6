"""The leak bill on a set whose labels can only be known by the lesion: a random split must look good, a grouped one not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dermalyze.config.experiment import ExperimentSpec, build_experiment
from dermalyze.core.run import Run, read_json
from dermalyze.data.splitting import read_division
from dermalyze.errors import DataError, InterruptedRunError, UsageError
from dermalyze.scoring.predictions import read_predictions
from dermalyze.stages.prepare import prepare
from dermalyze.stages.split import split
from dermalyze.workflows import small_fits
from dermalyze.workflows.leakage import REASON, LeakageResult, leakage

LESIONS, PHOTOS = 120, 4
EPOCHS = 14


def paint(root: Path, photos: int = PHOTOS) -> Path:
    """Lesions of random colors, several noisy photographs each, with labels tossed by a coin: nothing to learn but lesions."""
    rng = np.random.default_rng(1)
    (root / "images").mkdir(parents=True)
    rows = ["image_id,path,label,lesion_id"]
    for lesion in range(LESIONS):
        colours = rng.uniform(30, 225, (3, 3, 3))
        look = np.asarray(Image.fromarray(colours.astype(np.uint8)).resize((24, 24), Image.Resampling.NEAREST), float)
        label = ("mel", "nv")[lesion % 2]
        for photo in range(photos):
            name = f"l{lesion:03}_{photo}"
            pixels = np.clip(look + rng.normal(0, 6, look.shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "images" / f"{name}.png")
            rows.append(f"{name},images/{name}.png,{label},L{lesion:03}")
    (root / "set.csv").write_text("\n".join(rows) + "\n")
    return root


def make_run(data: Path, root: Path) -> tuple[Run, ExperimentSpec]:
    spec = build_experiment(
        {
            "name": "coins",
            "data": {"path": str(data), "source": {"kind": "csv"}, "workers": 0},
            "preprocess": {"size": [24, 24]},
            "model": {"backbone": "tiny_cnn", "kwargs": {"channels": [16, 32]}, "head": {"kind": "linear", "dropout": 0.0}},
            "train": {
                "epochs": 60, "batch_size": 16, "threads": 1, "optimizer": {"lr": 0.01}, "schedule": {"kind": "one_cycle"},
                "augment": {"policy": "none"},
            },
            "evaluate": {"resamples": 200},
        }
    )  # fmt: skip
    run = Run.create(root, spec)
    prepare(run, spec)
    split(run, spec)
    return run, spec


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERMALYZE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def billed(tmp_path_factory: pytest.TempPathFactory, cache: None) -> tuple[Run, ExperimentSpec, LeakageResult]:
    root = tmp_path_factory.mktemp("bill")
    run, spec = make_run(paint(root / "data"), root / "run")
    return run, spec, leakage(run, spec, epochs=EPOCHS)


def comparison(result: LeakageResult, key: str) -> dict[str, Any]:
    return next(c for c in result.bill["comparisons"] if c["key"] == key)


def test_a_random_split_flatters(billed: tuple[Run, ExperimentSpec, LeakageResult]) -> None:
    bill = comparison(billed[2], "test_parts")["metrics"]
    assert bill["accuracy"]["a"]["value"] > 0.75
    assert bill["accuracy"]["b"]["value"] < 0.65
    for name in ("accuracy", "balanced_accuracy", "macro_auroc"):
        assert bill[name]["difference"]["value"] == pytest.approx(bill[name]["a"]["value"] - bill[name]["b"]["value"])
        assert bill[name]["difference"]["low"] > 0
    assert bill["log_loss"]["difference"]["high"] < 0


def test_the_same_images_are_flattered_only_where_their_lesion_is_known(
    billed: tuple[Run, ExperimentSpec, LeakageResult],
) -> None:
    known = comparison(billed[2], "same_known")
    assert known["metrics"]["accuracy"]["difference"]["low"] > 0
    assert known["a"]["images"] == known["b"]["images"] > 0


def test_both_splits_have_as_many_images_of_each_class_in_each_part(
    billed: tuple[Run, ExperimentSpec, LeakageResult],
) -> None:
    run = billed[0]
    counts = [
        {part: (c["images"], c["classes"]) for part, c in Run(run.leak_bill_run(kind)).certificate()["counts"].items()}
        for kind in ("random", "grouped")
    ]
    assert counts[0] == counts[1]
    own, theirs = read_division(run)[1], read_division(Run(run.leak_bill_run("grouped")))[1]
    assert own.tolist() == theirs.tolist()


def test_the_random_run_is_stamped_and_the_grouped_is_not(billed: tuple[Run, ExperimentSpec, LeakageResult]) -> None:
    run = billed[0]
    reasons = {}
    for kind in ("random", "grouped"):
        sub = Run(run.leak_bill_run(kind))
        reasons[kind] = {
            read_json(sub.best_record_path)["accepted_leak"],
            read_json(sub.artifact_record_path)["accepted_leak"],
            read_json(sub.evaluation_path)["accepted_leak"],
            read_predictions(sub.predictions_path("test", "plain")).meta["accepted_leak"],
        }
    assert reasons == {"random": {REASON}, "grouped": {None}}


def test_the_files_hold_what_is_told_and_no_path(billed: tuple[Run, ExperimentSpec, LeakageResult]) -> None:
    run, _, result = billed
    stored = run.leak_bill_path.read_text()
    assert json.loads(stored) == result.bill
    assert str(run.root.parent) not in stored
    assert run.leak_bill_figure_path.read_bytes().startswith(b"\x89PNG")
    told = "\n".join(result.lines())
    assert "log loss" in told
    assert f"{result.bill['leak']['groups_crossing']} of {LESIONS} groups are in several parts" in told


def test_again_is_no_work_and_the_same_bill(
    billed: tuple[Run, ExperimentSpec, LeakageResult], monkeypatch: pytest.MonkeyPatch, cache: None
) -> None:
    run, spec, result = billed
    monkeypatch.setattr("dermalyze.stages.train.train", lambda *a, **k: pytest.fail("trained again"))
    assert leakage(run, spec, epochs=EPOCHS).bill == result.bill


def test_other_settings_are_refused_and_named(billed: tuple[Run, ExperimentSpec, LeakageResult]) -> None:
    run, spec, _ = billed
    with pytest.raises(UsageError, match=r"other settings \(train\.epochs\); give the same as before, or delete leak_bill"):
        leakage(run, spec, epochs=EPOCHS + 1)


def test_settings_of_the_data_cannot_differ(billed: tuple[Run, ExperimentSpec, LeakageResult]) -> None:
    run, spec, _ = billed
    with pytest.raises(UsageError, match=r"--set split\.seed: cannot differ"):
        leakage(run, spec, sets=["split.seed=3"])
    with pytest.raises(UsageError, match="must be 1 or more"):
        leakage(run, spec, epochs=0)


def test_an_interruption_names_the_command_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: None) -> None:
    run, spec = make_run(paint(tmp_path / "data"), tmp_path / "run")
    seen: list[tuple[str, str | None]] = []

    def stopped(config: ExperimentSpec, root: Path, *, accept_leak: str | None, steps: list[str]) -> None:
        seen.append((root.name, accept_leak))
        assert steps[0] == "split"
        raise InterruptedRunError("SIGTERM: state saved at step 4; continue with: dermalyze train X")

    monkeypatch.setattr(small_fits, "run_experiment", stopped)
    with pytest.raises(InterruptedRunError, match=rf"^SIGTERM: state saved at step 4; .*dermalyze leakage {run.root}$"):
        leakage(run, spec, epochs=2)
    assert seen == [("random", REASON)]


def test_without_siblings_there_is_no_bill(tmp_path: Path, cache: None) -> None:
    run, spec = make_run(paint(tmp_path / "data", photos=1), tmp_path / "run")
    with pytest.raises(DataError, match="no group has two images"):
        leakage(run, spec)
    assert not run.leak_bill_dir.exists()
