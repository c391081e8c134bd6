"""From nothing to an answer through the command line, on a small synthetic set; paid for once."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dermalyze.core.run import Run
from dermalyze.fleet.pipeline import STEPS

CONFIG = """
name: small
seed: 3
data: {source: {kind: ham10000}, path: data, workers: 1}
preprocess: {size: 32}
model: {backbone: tiny_cnn, head: {kind: linear}}
train:
  epochs: 2
  batch_size: 16
  threads: 1
  optimizer: {lr: 3e-3}
  schedule: {kind: constant}
  augment: {policy: none}
evaluate: {resamples: 200}
"""
CLASSES = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]


def dermalyze(*words: str | Path, folder: Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """The command line in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    code = "import sys; from dermalyze.cli import main; main(sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=folder,
        env=environment,
        input=stdin,
        capture_output=True,
        check=False,
    )


@dataclass(frozen=True)
class World:
    """A folder with a synthetic set `data`, another one `other`, and a finished run."""

    folder: Path
    first: subprocess.CompletedProcess[bytes]

    @property
    def run(self) -> Run:
        return Run(self.folder / "run")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("end_to_end")
    (folder / "small.yaml").write_text(CONFIG, encoding="utf-8")
    for name, lesions, seed in (("data", "84", "1"), ("other", "28", "2")):
        done = dermalyze(
            "synth",
            name,
            "--lesions",
            lesions,
            "--seed",
            seed,
            "--size",
            "40",
            "--balance",
            "even",
            "--difficulty",
            "0",
            folder=folder,
        )
        assert done.returncode == 0, done.stderr.decode()
    first = dermalyze("run", "small.yaml", "run", folder=folder)
    assert first.returncode == 0, first.stderr.decode()
    yield World(folder, first)
    shutil.rmtree(folder, ignore_errors=True)


def test_summary_names_what_matters(world: World) -> None:
    summary = world.first.stdout.decode()
    for word in ("accuracy", "balanced accuracy", "macro AUROC", "melanoma sensitivity", "report.html", "not a medical device"):
        assert word in summary


def test_every_step_left_its_result(world: World) -> None:
    assert all(world.run.describe().values())
    told = world.first.stderr.decode()
    assert [step for step in STEPS if f"] {step}:" in told] == list(STEPS)
    names = {path.name for path in world.run.report_dir.iterdir()}
    assert {"report.html", "evaluation_metrics.json", "confusion_matrix.png", "roc_curves.png"} <= names
    assert {"per_class_metrics.png", "calibration_curve.png"} <= names


def test_no_lesion_is_in_two_parts(world: World) -> None:
    groups: dict[str, set[str]] = {}
    for part in ("train", "val", "cal", "test"):
        with world.run.split_path(part).open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert {row["label"] for row in rows} == set(CLASSES)
        groups[part] = {row["group"] for row in rows}
    assert sum(map(len, groups.values())) == len(set().union(*groups.values()))


def test_again_does_no_work(world: World) -> None:
    before = {path: path.stat().st_mtime_ns for path in world.run.root.rglob("*") if path.is_file()}
    again = dermalyze("run", "small.yaml", "run", folder=world.folder)
    assert again.returncode == 0, again.stderr.decode()
    assert again.stderr.decode().count("finished before") == len(STEPS)
    assert again.stdout == world.first.stdout
    assert {path: path.stat().st_mtime_ns for path in world.run.root.rglob("*") if path.is_file()} == before


def test_step_by_step_gives_the_same_model(world: World) -> None:
    """The eight commands, one process each, from another folder: the same weights and the same numbers."""
    elsewhere = world.folder / "elsewhere"
    elsewhere.mkdir()
    root = world.folder / "steps"
    done = dermalyze("init", root, "--config", "small.yaml", folder=world.folder)
    assert done.returncode == 0, done.stderr.decode()
    for step in STEPS:
        done = dermalyze(step, root, "--json", folder=elsewhere)
        assert done.returncode == 0, f"{step}: {done.stderr.decode()}"
        json.loads(done.stdout)
    assert Run(root).best_weights_path.read_bytes() == world.run.best_weights_path.read_bytes()
    metrics = [
        json.loads((run.report_dir / "evaluation_metrics.json").read_text(encoding="utf-8")) for run in (Run(root), world.run)
    ]
    assert metrics[0]["overall"] == metrics[1]["overall"]


def test_steps_out_of_order_say_what_to_do(world: World) -> None:
    root = world.folder / "early"
    assert dermalyze("init", root, "--config", "small.yaml", folder=world.folder).returncode == 0
    for step in ("split", "train", "export", "probe", "evaluate", "plot", "fit-check"):
        done = dermalyze(step, root, folder=world.folder)
        assert (done.returncode, done.stdout) == (2, b""), step
        assert done.stderr.count(b"\n") == 1
        assert b"dermalyze " in done.stderr


def test_answers_for_files_folders_and_standard_input(world: World) -> None:
    image = next(world.folder.glob("data/*/ISIC_*.jpg"))
    (world.folder / "broken.jpg").write_bytes(b"<html>")
    done = dermalyze("predict", "run", image, "broken.jpg", "--format", "jsonl", folder=world.folder)
    assert done.returncode == 0, done.stderr.decode()
    good, bad = [json.loads(line) for line in done.stdout.splitlines()]
    assert list(good["probabilities"]) == CLASSES
    assert sum(good["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    assert good["predicted_class"] == max(good["probabilities"], key=good["probabilities"].get)
    assert "error" in bad
    assert image.name.encode() not in done.stdout
    piped = dermalyze("predict", "run/export", "-", "--json", folder=world.folder, stdin=image.read_bytes())
    assert json.loads(piped.stdout)["probabilities"] == pytest.approx(good["probabilities"], abs=1e-6)
    refused = dermalyze("predict", "run", "broken.jpg", folder=world.folder)
    assert refused.returncode == 3


def test_another_labelled_set(world: World) -> None:
    done = dermalyze("evaluate", "run", "--on", "other", folder=world.folder)
    assert done.returncode == 0, done.stderr.decode()
    assert (world.run.external_report_dir("other") / "evaluation_metrics.json").exists()


def test_the_training_set_is_refused_as_another_set(world: World) -> None:
    done = dermalyze("evaluate", "run", "--on", "data", folder=world.folder)
    assert done.returncode == 3
    assert done.stderr.startswith(b"error: ")


def test_curves_and_verdict(world: World) -> None:
    assert dermalyze("plot", "run", folder=world.folder).returncode == 0
    assert (world.run.report_dir / "training_curves.png").stat().st_size > 1000
    done = dermalyze("fit-check", "run", "--json", folder=world.folder)
    assert done.returncode == 0
    json.loads(done.stdout)


def test_a_stopped_training_is_saved_and_goes_on(world: World) -> None:
    """SIGTERM ends with 75; the same command ends with the weights of a run that was never stopped."""
    root = world.folder / "stopped"
    assert dermalyze("init", root, "--config", "small.yaml", folder=world.folder).returncode == 0
    for step in ("prepare", "audit", "split"):
        assert dermalyze(step, root, folder=world.folder).returncode == 0
    code = "import sys; from dermalyze.cli import main; main(sys.argv[1:])"
    with subprocess.Popen(
        [sys.executable, "-c", code, "train", str(root)], env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 60
        while not Run(root).metrics_path.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.terminate()
        _, told = process.communicate(timeout=60)
    assert process.returncode in (75, 0), told.decode()
    assert dermalyze("train", root, folder=world.folder).returncode == 0
    assert Run(root).best_weights_path.read_bytes() == world.run.best_weights_path.read_bytes()


def test_weights_that_were_changed_are_refused(world: World) -> None:
    copy = world.folder / "damaged"
    shutil.copytree(world.run.artefact_dir, copy)
    graph = copy / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\x00")
    done = dermalyze("predict", copy, "broken.jpg", folder=world.folder)
    assert done.returncode == 4
    assert done.stderr.count(b"\n") == 1
