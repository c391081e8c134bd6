"""Listing, comparing, tagging and cleaning runs that are folders of small files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from dermalyze.cli import app
from dermalyze.config.experiment import build_experiment
from dermalyze.core.atomic import sha256_file, write_bytes, write_json
from dermalyze.core.run import Run
from dermalyze.data.manifest import write_manifest
from dermalyze.errors import UsageError
from dermalyze.imaging.decode import Preprocessing
from dermalyze.workflows.cleaning import caches_of
from dermalyze.workflows.runs import runs

ESTIMATE = {"value": 0.75, "low": 0.7, "high": 0.8, "n": 9, "note": ""}
PREPROCESSING = Preprocessing("squash", 8, 8, 0.875, (0.5,) * 3, (0.5,) * 3)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DERMALYZE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make_run(root: Path, *, finished: bool = True, **train: Any) -> Run:
    """What the steps leave, in small."""
    run = Run.create(root, build_experiment({"name": root.name, "model": {"backbone": "tiny_cnn"}, "train": train}))
    write_json(run.summary_path, {"images": 3, "classes": ["a", "b"], "task": "multiclass"})
    write_manifest(run, pd.DataFrame({"image_id": ["1", "2"], "sha256": ["x" * 64, "y" * 64], "label": ["a", "b"]}))
    for step in (4, 8):
        tensors, record = run.state_paths(step)
        write_bytes(tensors, bytes(1000 + step))
        write_json(record, {"step": step, "tensors_sha256": sha256_file(tensors)})
    write_bytes(run.tensorboard_dir / "events", bytes(500))
    best = {"metric": "val_loss", "value": 0.5, "epoch": 2, "accepted_leak": None, "preprocessing": PREPROCESSING.as_dict()}
    write_json(run.best_record_path, best)
    write_bytes(run.best_weights_path, b"weights")
    write_bytes(run.artifact_dir / "model.onnx", b"graph")
    if finished:
        write_json(run.history_path, {})
        figures = dict.fromkeys(("balanced_accuracy", "macro_auroc"), ESTIMATE)
        write_json(
            run.evaluation_path, {"metrics": {**figures, "log_loss": {**ESTIMATE, "value": None}}, "accepted_leak": None}
        )
    return run


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} - {".lock"}


def test_list_tells_each_run_once_and_no_run_within_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "out" / "a")
    make_run(tmp_path / "out" / "deep" / "b", finished=False)
    Run.create(run.leak_bill_run("random"), build_experiment({}))
    (tmp_path / "out" / "c").mkdir()
    (tmp_path / "out" / "c" / "config.yaml").write_text("not: ours\n")
    result = runs("list", [tmp_path / "out"])
    a, c, b = json.loads(json.dumps(result.as_dict()))["runs"]
    assert [Path(values["run"]).name for values in (a, c, b)] == ["a", "c", "b"]
    assert (a["state"], a["images"], a["network"], a["best"]["value"]) == ("evaluate", 3, "tiny_cnn", 0.5)
    assert a["test"]["macro_auroc"]["value"] == 0.75
    assert a["bytes"] == sum(path.stat().st_size for path in run.root.rglob("*") if path.is_file())
    assert (b["state"], b["test"]) == ("prepare", None)
    assert "not" in c["error"]
    told = result.lines()
    assert len(told) == 4
    assert "loss 0.5000" in told[1]
    assert "0.750" in told[1]


def test_an_empty_folder_and_one_that_is_not_there(tmp_path: Path) -> None:
    assert runs("list", [tmp_path]).lines() == [f"no run under {tmp_path}"]
    with pytest.raises(UsageError, match="no such folder"):
        runs("list", [tmp_path / "none"])


def test_show_gives_the_intervals(tmp_path: Path) -> None:
    told = "\n".join(runs("show", [make_run(tmp_path / "a").root]).lines())
    assert "macro_auroc 0.750 (0.700 to 0.800)" in told
    assert "log_loss -" in told


def test_diff_names_settings_and_results(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a", epochs=3), make_run(tmp_path / "b", finished=False, epochs=4)
    result = runs("diff", [a.root, b.root])
    assert result.values["settings"] == {"name": ["a", "b"], "train.epochs": [3, 4]}
    assert result.values["results"]["macro_auroc"] == [ESTIMATE, None]
    assert any(line.startswith("train.epochs") and line.endswith("3  |  4") for line in result.lines())


def test_tags_are_kept_beside_the_frozen_configuration(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    before = sha256_file(run.config_path)
    assert runs("tag", [run.root, "good", "paper", "good"]).values["tags"] == ["good", "paper"]
    assert runs("tag", [run.root, "new"], remove=["good"]).values["tags"] == ["paper", "new"]
    assert runs("show", [run.root]).values["tags"] == ["paper", "new"]
    assert sha256_file(run.config_path) == before
    with pytest.raises(UsageError, match="must be 1 to 40 letters"):
        runs("tag", [run.root, "a b"])


def test_clean_says_first_and_removes_only_what_can_be_made_again(tmp_path: Path) -> None:
    run = make_run(tmp_path / "out" / "a")
    write_bytes(run.root / ".export-x.tmp" / "model.onnx", bytes(70))
    before = files(run.root)
    plan = runs("clean", [tmp_path / "out"])
    assert files(run.root) == before
    assert plan.lines()[-1].endswith("can be removed")
    size = plan.values["bytes"]
    done = runs("clean", [tmp_path / "out"], yes=True)
    assert done.values["bytes"] == size
    gone = {"checkpoints/last-00000004.safetensors", "checkpoints/last-00000004.json", "tensorboard/events",
            ".export-x.tmp/model.onnx"}  # fmt: skip
    assert before - files(run.root) == gone
    assert runs("clean", [tmp_path / "out"], yes=True).lines() == ["nothing to remove"]


def test_an_unfinished_training_keeps_its_states(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", finished=False)
    runs("clean", [run.root], yes=True)
    assert len(run.state_records()) == 2


def test_the_older_state_stays_where_the_newest_is_damaged(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    write_bytes(run.state_paths(8)[0], b"damaged")
    runs("clean", [run.root], yes=True)
    assert len(run.state_records()) == 2


def test_a_run_in_work_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "a")
    before = files(run.root)
    with run.lock():
        runs("clean", [run.root], yes=True)
    assert files(run.root) == before
    assert "in work; left alone" in capsys.readouterr().err


def test_caches_of_no_run_here_go_and_the_others_stay(tmp_path: Path, cache: Path) -> None:
    run = make_run(tmp_path / "out" / "a")
    (used,) = caches_of(run)
    for name, age in ((used, 9e9), ("f" * 32, 9e9), ("e" * 32, 0)):
        write_bytes(cache / f"{name}.bin", bytes(10))
        write_json(cache / f"{name}.json", {})
        if age:
            os.utime(cache / f"{name}.bin", (1, 1))
    runs("clean", [run.root], yes=True)
    assert len(list(cache.glob("*.bin"))) == 3, "one run alone does not tell which caches are used"
    runs("clean", [tmp_path / "out"], yes=True)
    assert files(cache) == {f"{name}{end}" for name in (used, "e" * 32) for end in (".bin", ".json")}


def test_caches_stay_where_one_run_is_unreadable(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "out" / "a")
    run.best_record_path.write_text("{")
    write_bytes(cache / "f.bin", b"1")
    os.utime(cache / "f.bin", (1, 1))
    runs("clean", [tmp_path / "out"], yes=True)
    assert (cache / "f.bin").exists()
    assert "left alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("action", "words", "text"),
    [
        ("lst", [], "must be one of list, show, diff, compare, tag, clean; did you mean 'list'"),
        ("show", [], "write: dermalyze runs show RUN"),
        ("diff", ["a"], "write: dermalyze runs diff RUN RUN"),
        ("show", ["nowhere"], "not a run folder"),
    ],
    ids=["typo", "show nothing", "diff one", "no run"],
)
def test_refusals(action: str, words: list[str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        runs(action, words)


def test_the_command_asks_only_a_person_and_deletes_only_with_yes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    before = files(run.root)
    asked = CliRunner().invoke(app, ["runs", "clean", str(run.root)])
    assert asked.exit_code == 0
    assert "add --yes" in asked.stderr
    assert files(run.root) == before
    done = CliRunner().invoke(app, ["runs", "clean", str(run.root), "--yes", "--json"])
    assert json.loads(done.stdout)["removed"] is True
    assert files(run.root) < before


def test_a_training_that_was_stopped_is_listed_with_its_epoch(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "stopped", finished=False, epochs=9)
    run.metrics_path.write_text('{"epoch": 1}\n{"epoch": 2}\n', encoding="utf-8")
    [row] = runs("list", [tmp_path / "runs"]).values["runs"]
    assert row["state"] == "train, epoch 2 of 9"
    write_json(run.history_path, {})
    [row] = runs("list", [tmp_path / "runs"]).values["runs"]
    assert row["state"] != "train, epoch 2 of 9"
