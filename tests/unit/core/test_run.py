"""The run folder: frozen configuration, lock, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dermalyze.config.experiment import ExperimentSpec, build_experiment
from dermalyze.core.atomic import write_json
from dermalyze.core.run import Run, differences, read_json
from dermalyze.errors import ConfigError, DataError, ModelError, ResourceError, UsageError


def test_configuration_reads_back_equal(tmp_path: Path) -> None:
    spec = build_experiment({"train": {"loss": {"kind": "focal", "alpha": [0.1, 0.9]}}, "preprocess": {"size": [96, 128]}})
    run = Run.create(tmp_path / "run", spec)
    assert Run.open(tmp_path / "run").config() == spec
    before = run.config_path.read_bytes()
    Run.create(tmp_path / "run", spec)
    assert run.config_path.read_bytes() == before


def test_another_configuration_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", ExperimentSpec())
    before = run.config_path.read_bytes()
    with pytest.raises(ConfigError, match=r"differs in seed, train\.epochs; use another run folder") as caught:
        Run.create(tmp_path / "run", build_experiment({"seed": 1, "train": {"epochs": 3}}))
    assert caught.value.exit_code == 2
    assert run.config_path.read_bytes() == before


def test_differences_names_settings() -> None:
    old, new = ExperimentSpec(), build_experiment({"train": {"loss": {"kind": "focal"}}, "data": {"path": ["a", "b"]}})
    assert differences(old, old) == []
    assert differences(old, new) == ["data.path", "train.loss.gamma", "train.loss.kind"]


def test_data_path_is_filled_once(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", ExperimentSpec())
    assert run.fill_data_path(["/data/a"]).data.path == ["/data/a"]
    assert run.fill_data_path(["/data/a"]) == run.config()
    with pytest.raises(ConfigError, match="frozen to other data"):
        run.fill_data_path(["/data/b"])


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        Run.open(tmp_path)


def test_a_missing_step_is_named(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", ExperimentSpec())
    assert not any(run.describe().values())
    with pytest.raises(UsageError, match=r"manifest\.parquet is missing; run first: dermalyze prepare"):
        run.manifest_hash()
    with pytest.raises(UsageError, match="run first: dermalyze split"):
        run.certificate()


PART = {"images": 1, "groups": 1, "classes": {"mel": 1}}
CERTIFICATE: dict[str, Any] = {
    "passed": True, "seed": 1, "counts": dict.fromkeys(("train", "val", "test"), PART), "used_for": {},
    "checks": [{"name": "a", "passed": True, "detail": ""}],
}  # fmt: skip


def test_a_certificate_of_another_manifest_is_refused(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", ExperimentSpec())
    run.manifest_path.write_bytes(b"one")
    write_json(run.certificate_path, {"manifest_sha256": run.manifest_hash(), **CERTIFICATE})
    assert run.certificate()
    run.manifest_path.write_bytes(b"two")
    with pytest.raises(DataError, match="not the one that was split"):
        run.certificate()


def test_the_lock_is_held_by_one_and_goes_with_the_process(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", ExperimentSpec())
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from dermalyze.core.run import Run\n"
            "with Run(Path(sys.argv[1])).lock(): print('held', flush=True); time.sleep(60)",
            str(run.root),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match="another process uses this run"), run.lock():
        pass
    holder.kill()
    holder.communicate()
    with run.lock():
        pass


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000])
def test_a_damaged_record(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ModelError, match=r"a\.json: "):
        read_json(tmp_path / "a.json")


def test_an_unreadable_record(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="cannot be read"):
        read_json(tmp_path)


def test_states_are_newest_first(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", ExperimentSpec())
    for step in (2, 30, 1000):
        write_json(run.state_paths(step)[1], {"step": step})
    assert [json.loads(path.read_text())["step"] for path in run.state_records()] == [1000, 30, 2]


@pytest.mark.parametrize(
    "change",
    [
        {"counts": None},
        {"counts": [1]},
        {"counts": {"train": PART, "test": PART}},
        {"counts": {part: {"images": 1} for part in ("train", "val", "test")}},
        {"counts": {part: {**PART, "classes": {"mel": "many"}} for part in ("train", "val", "test")}},
        {"checks": [{}]},
        {"used_for": []},
        {"passed": "yes"},
    ],
)
def test_an_edited_certificate_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    run = Run.create(tmp_path / "run", ExperimentSpec())
    run.manifest_path.write_bytes(b"one")
    write_json(run.certificate_path, {"manifest_sha256": run.manifest_hash(), **CERTIFICATE, **change})
    with pytest.raises(DataError, match="is not what split wrote; run again: dermalyze split"):
        run.certificate()


def test_a_file_in_the_place_of_the_run_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UsageError, match="is a file, must be a folder"):
        Run.create(tmp_path / "run", ExperimentSpec())
    assert (tmp_path / "run").read_text() == "mine"


def test_a_folder_in_the_run_is_checked_as_well(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", ExperimentSpec())
    run.require_writable(run.checkpoints_dir)
    assert list(run.checkpoints_dir.iterdir()) == []
    run.checkpoints_dir.rmdir()
    run.checkpoints_dir.write_text("a file")
    run.require_writable()
    with pytest.raises(ResourceError, match="check the disk and the path"):
        run.require_writable(run.checkpoints_dir)


def test_stored_recipes_of_a_set_are_not_those_of_a_set_whose_name_begins_alike(tmp_path):
    run = Run(tmp_path)
    assert run.stored_recipes("test") == []
    run.predictions_dir.mkdir()
    for name, recipe in (("test", "plain"), ("test", "mc_dropout"), ("test-b", "tta"), ("val", "flips")):
        run.predictions_path(name, recipe).touch()
    assert run.stored_recipes("test") == ["mc_dropout", "plain"]
    assert run.stored_recipes("test-b") == ["tta"]
