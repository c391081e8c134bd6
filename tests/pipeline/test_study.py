"""A study on a tiny set: its table holds the runs' own numbers, a kill loses nothing, a variant that fails stops nobody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from training import HEAD, tiny_set

from dermalyze.core.run import Run, read_json
from dermalyze.errors import ConfigError, InterruptedRunError, UsageError
from dermalyze.tasks.base import TASKS
from dermalyze.workflows import study as module
from dermalyze.workflows.study import StudyResult, compare

TESTED = TASKS["multiclass"].compared["study"]
SHOWN = ("balanced_accuracy", "accuracy", "macro_f1", "macro_auroc", "log_loss", "ece")


def write(root: Path, images: Path, **changes: Any) -> Path:
    """A study of two variants that work and one that cannot: its size is too small for its network."""
    study = {
        "name": "tiny",
        "experiment": {
            "data": {"path": str(images), "workers": 0},
            "preprocess": {"size": [16, 16]},
            "model": {"backbone": "tiny_cnn", "kwargs": {"channels": [4, 8]}, "head": HEAD},
            "train": {"epochs": 2, "batch_size": 8, "threads": 1, "early_stopping": None, "imbalance": {"kind": "none"}},
            "evaluate": {"resamples": 100},
        },
        "seeds": [3],
        "more_seeds": {"narrow": [4], "small": [4]},
        "variants": {
            "small": None,
            "narrow": {"model.kwargs": {"channels": [4, 4]}},
            "broken": {"model.backbone": "custom_cnn", "preprocess.size": [8, 8]},
        },
        **changes,
    }
    path = root / "study.yaml"
    path.write_text(json.dumps(study))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_set(tmp_path_factory.mktemp("study") / "set")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, images: Path) -> tuple[Path, Path, StudyResult]:
    """A study that was interrupted when its first variant had been trained, and then finished."""
    root = tmp_path_factory.mktemp("done")
    path = write(root, images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERMALYZE_CACHE", str(root / "cache"))
        whole = module.run_experiment

        def stopped(spec: Any, folder: Path, *, steps: Any) -> None:
            if folder.name == "narrow-seed3":
                raise InterruptedRunError("SIGTERM: state saved at step 4; continue with: dermalyze train X")
            whole(spec, folder, steps=steps)

        patch.setattr(module, "run_experiment", stopped)
        with pytest.raises(InterruptedRunError, match=rf"state saved at step 4; .*dermalyze compare {path} {root / 'out'}$"):
            compare(path, root / "out")
        patch.setattr(module, "run_experiment", whole)
        first = Run(root / "out" / "runs" / "small-seed3").best_record_path.stat().st_mtime_ns
        result = compare(path, root / "out")
    assert Run(root / "out" / "runs" / "small-seed3").best_record_path.stat().st_mtime_ns == first, "trained again"
    return path, root / "out", result


def test_the_table_holds_the_numbers_of_the_runs(done: tuple[Path, Path, StudyResult]) -> None:
    _, out, result = done
    assert json.loads((out / "study.json").read_text()) == result.study
    assert [row["run"] for row in result.study["runs"]] == ["small-seed3", "small-seed4", "narrow-seed3", "narrow-seed4"]
    for row in result.study["runs"]:
        own = read_json(Run(out / "runs" / row["run"]).evaluation_path)
        assert row["metrics"] == {name: own["metrics"][name] for name in SHOWN}
        assert row["focus_recall"]["mel"] == own["per_class"]["mel"]["recall"]
        text = (out / "study.md").read_text()
        assert f"{own['metrics']['macro_auroc']['value']:.3f}" in text


def test_all_share_manifest_and_split(done: tuple[Path, Path, StudyResult]) -> None:
    _, out, result = done
    runs = [Run(out / "data"), *(Run(out / "runs" / row["run"]) for row in result.study["runs"])]
    assert {run.manifest_hash() for run in runs} == {result.study["data"]["manifest_sha256"]}
    assert len({run.certificate_path.read_bytes() for run in runs}) == 1
    assert len({run.split_path("test").read_bytes() for run in runs}) == 1
    assert not Run(out / "data").describe()["train"]


def test_differences_are_of_the_figures(done: tuple[Path, Path, StudyResult]) -> None:
    study = done[2].study
    (comparison,) = study["comparisons"]
    assert (comparison["reference"], [row["variant"] for row in comparison["rows"]]) == ("small", ["narrow"])
    values = {row["run"]: row["metrics"] for row in study["runs"]}
    for metric in TESTED:
        one = comparison["rows"][0][metric]
        expected = values["narrow-seed3"][metric]["value"] - values["small-seed3"][metric]["value"]
        assert one["value"] == pytest.approx(expected, abs=1e-9)
    assert study["over_seeds"]["narrow"]["seeds"] == [3, 4]
    (averaged,) = comparison["over_seeds"]
    assert (averaged["variant"], averaged["seeds"]) == ("narrow", [3, 4])
    for metric in TESTED:
        each = [values[f"narrow-seed{seed}"][metric]["value"] - values[f"small-seed{seed}"][metric]["value"] for seed in (3, 4)]
        assert averaged[metric]["of_seeds"] == pytest.approx(each, abs=1e-9)
        assert averaged[metric]["value"] == pytest.approx(sum(each) / 2, abs=1e-9)
    text = "\n".join(done[2].lines())
    assert "Averaged over seeds, with intervals over groups for these trainings:" in text


def test_what_fails_is_named_with_its_reason(done: tuple[Path, Path, StudyResult]) -> None:
    _, out, result = done
    (failed,) = result.study["failures"]
    assert failed["variant"] == "broken"
    assert failed["reason"]
    for name in ("study.md", "study.html"):
        assert "What failed" in (out / name).read_text()
    assert str(out.parent) not in (out / "study.json").read_text()


def test_the_page_is_whole_and_says_what_it_is_not_for(done: tuple[Path, Path, StudyResult]) -> None:
    page = (done[1] / "study.html").read_text()
    assert done[2].study["disclaimer"] in page
    assert "http" not in page.replace("http-equiv", "")
    assert (done[1] / "study.png").read_bytes().startswith(b"\x89PNG")


def test_again_trains_nothing(done: tuple[Path, Path, StudyResult], monkeypatch: pytest.MonkeyPatch) -> None:
    path, out, result = done
    monkeypatch.setattr("dermalyze.stages.train.train", lambda *a, **k: pytest.fail("trained again"))
    assert compare(path, out).study["runs"] == result.study["runs"]


def test_other_settings_of_a_trained_variant_are_a_failure(
    done: tuple[Path, Path, StudyResult], images: Path, tmp_path: Path
) -> None:
    changed = write(tmp_path, images, variants={"small": {"train.epochs": 5}, "narrow": {"model.kwargs": {"channels": [4, 4]}}})
    failures = compare(changed, done[1], cost_only=True).study["failures"]
    assert [f["run"] for f in failures] == ["small-seed3", "small-seed4"]
    assert "frozen and differs in train.epochs" in failures[0]["reason"]


def test_a_study_without_a_variant_that_ends(images: Path, tmp_path: Path) -> None:
    broken = {"model.backbone": "custom_cnn", "preprocess.size": [8, 8]}
    path = write(tmp_path, images, variants={"a": broken, "b": dict(broken)}, more_seeds={})
    with pytest.raises(UsageError, match="no variant came to an end: a-seed3: "):
        compare(path, tmp_path / "out")


def test_no_data_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("{experiment: {}, variants: {a: , b: }}")
    with pytest.raises(ConfigError, match=r"data\.path is not set"):
        compare(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
