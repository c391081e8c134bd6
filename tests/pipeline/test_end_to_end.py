"""From nothing to an answer through the command line, on a small synthetic set; paid for once."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dermalyze.cli import app
from dermalyze.cli.program import spread
from dermalyze.core.run import Run, read_json
from dermalyze.workflows.pipeline import STEPS

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


@dataclass(frozen=True)
class Done:
    """What a command left on its standard streams, and its exit code."""

    code: int
    out: bytes
    err: str

    def good(self) -> Done:
        assert self.code == 0, self.err
        return self


def process(*words: str | Path, folder: Path, stdin: bytes | None = None) -> Done:
    """The command line in a process of its own, as a person starts it."""
    code = "import sys; from dermalyze.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, *map(str, words)]
    ended = subprocess.run(command, cwd=folder, input=stdin, capture_output=True, check=False)
    return Done(ended.returncode, ended.stdout, ended.stderr.decode())


def inside(*words: str | Path, folder: Path) -> Done:
    """The command line in this process, which has PyTorch loaded already."""
    with contextlib.chdir(folder):
        result = CliRunner().invoke(app, spread([str(word) for word in words]))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout_bytes, result.stderr)


@dataclass(frozen=True)
class World:
    """A folder with a synthetic set `data`, another one `other`, and a finished run."""

    folder: Path
    first: Done

    @property
    def run(self) -> Run:
        return Run(self.folder / "run")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("end_to_end")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("DERMALYZE_CACHE", str(tmp_path_factory.mktemp("cache")))
        (folder / "small.yaml").write_text(CONFIG, encoding="utf-8")
        drawn = ("--size", "40", "--balance", "even", "--difficulty", "0")
        inside("synth", "data", "--lesions", "84", "--seed", "1", *drawn, folder=folder).good()
        inside("synth", "other", "--lesions", "28", "--seed", "2", *drawn, folder=folder).good()
        yield World(folder, process("run", "small.yaml", "run", folder=folder).good())
    shutil.rmtree(folder, ignore_errors=True)


def test_summary_names_what_matters(world: World) -> None:
    summary = world.first.out.decode()
    for word in (
        "accuracy",
        "balanced accuracy",
        "macro AUROC",
        "sensitivity: Melanoma",
        "report.html",
        "not a medical device",
    ):
        assert word in summary


def test_every_step_left_its_result(world: World) -> None:
    assert all(world.run.describe().values())
    told = world.first.err
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
    again = inside("run", "small.yaml", "run", folder=world.folder).good()
    assert again.err.count("finished before") == len(STEPS)
    assert again.out == world.first.out
    assert {path: path.stat().st_mtime_ns for path in world.run.root.rglob("*") if path.is_file()} == before


def test_step_by_step_gives_the_same_model(world: World) -> None:
    """The eight commands, the later ones from another folder: the same weights and the same numbers."""
    elsewhere = world.folder / "elsewhere"
    elsewhere.mkdir()
    root = world.folder / "steps"
    inside("init", root, "--config", "small.yaml", folder=world.folder).good()
    for step in STEPS:
        json.loads(inside(step, root, "--json", folder=elsewhere).good().out)
    assert Run(root).best_weights_path.read_bytes() == world.run.best_weights_path.read_bytes()
    steps, whole = read_json(Run(root).evaluation_path), read_json(world.run.evaluation_path)
    assert steps["metrics"] == whole["metrics"]
    assert steps["per_class"] == whole["per_class"]


def test_steps_out_of_order_say_what_to_do(world: World) -> None:
    root = world.folder / "early"
    inside("init", root, "--config", "small.yaml", folder=world.folder).good()
    for step in ("audit", "split", "train", "export", "score", "evaluate", "plot", "fit-check"):
        done = inside(step, root, folder=world.folder)
        assert (done.code, done.out) == (2, b""), step
        assert done.err.count("\n") == 1
        assert "dermalyze " in done.err


def test_answers_for_files_and_standard_input(world: World) -> None:
    image = next(world.folder.glob("data/*/ISIC_*.jpg"))
    (world.folder / "broken.jpg").write_bytes(b"<html>")
    done = inside("predict", "run", image, "broken.jpg", "--format", "jsonl", folder=world.folder).good()
    good, bad = [json.loads(line) for line in done.out.splitlines()]
    assert list(good["probabilities"]) == CLASSES
    assert sum(good["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    assert good["predicted_class"] == max(good["probabilities"], key=good["probabilities"].get)
    assert "error" in bad
    assert [good["file"], bad["file"]] == [str(image), "broken.jpg"]
    assert "1 of 2 images" in done.err
    piped = process("predict", "run/export", "-", "--json", folder=world.folder, stdin=image.read_bytes()).good()
    assert json.loads(piped.out)["probabilities"] == pytest.approx(good["probabilities"], abs=1e-6)
    hidden = inside("predict", "run", image, "--no-names", "--format", "csv", folder=world.folder).good()
    assert image.name.encode() not in hidden.out


def test_no_answer_at_all_is_3(world: World) -> None:
    (world.folder / "broken.png").write_bytes(b"")
    done = inside("predict", "run", "broken.png", "nowhere.jpg", folder=world.folder)
    assert done.code == 3
    assert done.err.count("\n") == 1


def test_another_labelled_set(world: World) -> None:
    inside("evaluate", "run", "--on", "other", folder=world.folder).good()
    metrics = read_json(world.run.external_report_dir("other") / "evaluation_metrics.json")
    with (world.folder / "other" / "HAM10000_metadata.csv").open(encoding="utf-8", newline="") as stream:
        assert metrics["n_images"] == len(list(csv.DictReader(stream)))


def test_the_training_set_is_refused_as_another_set(world: World) -> None:
    done = inside("evaluate", "run", "--on", "data", folder=world.folder)
    assert (done.code, done.err.count("\n")) == (3, 1)


def test_curves_and_verdict(world: World) -> None:
    inside("plot", "run", folder=world.folder).good()
    assert (world.run.report_dir / "training_curves.png").read_bytes().startswith(b"\x89PNG")
    json.loads(inside("fit-check", "run", "--json", folder=world.folder).good().out)


def test_a_changed_graph_is_refused(world: World) -> None:
    copy = world.folder / "damaged"
    shutil.copytree(world.run.artifact_dir, copy)
    graph = copy / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\x00")
    done = inside("predict", copy, "broken.jpg", folder=world.folder)
    assert (done.code, done.err.count("\n")) == (4, 1)


def test_no_path_and_no_picture_name_in_what_is_shared(world: World) -> None:
    """Reports and the artifact can be handed on: they hold neither a path of this machine nor a file's name."""
    shared = [
        *world.run.report_dir.rglob("*.html"),
        *world.run.report_dir.rglob("*.json"),
        *world.run.artifact_dir.glob("*.json"),
    ]
    assert shared
    for path in [*shared, world.run.environment_path]:
        text = path.read_text(encoding="utf-8")
        assert str(world.folder) not in text, path.name
        assert ".jpg" not in text, path.name
