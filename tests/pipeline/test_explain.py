"""Maps, grades and gallery of whole runs: what is written, what is kept, what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dermalyze.artifact.artifact import open_export
from dermalyze.artifact.cam_grade import UNGRADED
from dermalyze.config.experiment import build_experiment
from dermalyze.core.result import DISCLAIMER
from dermalyze.core.run import Run
from dermalyze.errors import DataError, InterruptedRunError, ModelError, UsageError
from dermalyze.explain import runner
from dermalyze.explain.attribution import explain_batch
from dermalyze.imaging.decode import decode, to_size
from dermalyze.serve.predictor.predictor import Predictor
from dermalyze.serve.predictor.verify import verify
from dermalyze.stages.explain import explain
from dermalyze.stages.export import export
from dermalyze.stages.score import score


@pytest.fixture(scope="module")
def scored(plain_world: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Any]:
    """A run with stored predictions, and its experiment."""
    root = tmp_path_factory.mktemp("explained") / "run"
    shutil.copytree(plain_world.run.root, root)
    run = Run(root)
    score(run, plain_world.spec)
    return run, plain_world.spec


@pytest.fixture
def run_of(scored: tuple[Run, Any], tmp_path: Path) -> tuple[Run, Any]:
    root = tmp_path / "run"
    shutil.copytree(scored[0].root, root, dirs_exist_ok=True)
    return Run(root), scored[1]


def test_a_gallery_and_its_numbers(run_of: tuple[Run, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run, spec = run_of
    found = explain(run, spec, count=50, cases=1)
    record = json.loads(run.explanations_path.read_text())
    assert record == json.loads(json.dumps(found.values))
    (network,) = record["networks"]
    assert set(network["methods"]) == {"gradcam", "gradcam++", "layercam", "centre", "random"}
    assert all(one["verdict"] == "not graded" for one in network["grades"].values()), "too few lesions to say anything"
    page = run.gallery_path.read_text()
    assert page.count(DISCLAIMER) == 2
    assert "not graded" in page
    for case in record["cases"]:
        assert case["image_id"] in page
        assert sum(case["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert not re.search(r"(src|href)=\"(?!data:|#)", page), "the page must stand alone"
    shown = [image_id for section in record["sections"] for image_id in section["image_ids"]]
    assert len(shown) == len(set(shown)) == len(record["cases"])
    table = [line for line in found.lines() if line.startswith("| ")]
    assert len(table) == 2 + 5
    value = network["methods"]["gradcam"]["faithfulness"]["value"]
    assert f"| run | Grad-CAM | {value:.3f}" in table[2]

    def never(*_: Any) -> None:
        raise AssertionError("measured twice")

    monkeypatch.setattr(runner, "measure_one", never)
    again = explain(run, spec, count=50, cases=1)
    assert again.values == found.values


def test_a_stopped_measurement_goes_on(run_of: tuple[Run, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run, spec = run_of
    whole = runner.measure_one
    done: list[str] = []

    def stopping(network: Any, sample: Any, image_id: str, methods: Any, scores: Any) -> None:
        whole(network, sample, image_id, methods, scores)
        done.append(image_id)
        if len(done) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(runner, "measure_one", stopping)
    with pytest.raises(InterruptedRunError, match=r"stopped by SIGTERM after 2 of \d+ images .* continues"):
        explain(run, spec, count=50, cases=1, methods=["gradcam"])
    assert not run.gallery_path.exists()
    explain(run, spec, count=50, cases=1, methods=["gradcam"])
    assert len(done) == len(set(done)) > 2


def test_named_pictures_and_foreign_ones(run_of: tuple[Run, Any], tmp_path: Path) -> None:
    run, spec = run_of
    folder = tmp_path / "DOE_JOHN"
    folder.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(folder / "DOE_JOHN.png")
    (folder / "notes.txt").write_text("no image")
    from dermalyze.data.splitting import read_division

    frame, parts = read_division(run)
    train = str(frame["image_id"][parts == "train"].iloc[0])
    values = explain(run, spec, images=[train, str(folder)], count=0, methods=["gradcam", "closed_form"]).values
    assert [case["image_id"] for case in values["cases"]] == [train, "image 1"]
    assert values["cases"][1]["label"] is None
    page = run.gallery_path.read_text()
    assert "DOE_JOHN" not in page + run.explanations_path.read_text()
    assert "from the train split, which was used to build the network" in page
    assert "The maps were not graded" in page
    assert {panel["grade"] for case in values["cases"] for panel in case["panels"]} == {"not graded"}


def test_what_is_served_is_the_map_and_the_grade_of_explain(new_world: Callable[..., Any]) -> None:
    """`explain`, and without a further step the predictor gives its closed-form map with its verdict."""
    world = new_world(split={"fractions": {"train": 0.3, "val": 0.1, "cal": 0.1, "test": 0.5}})
    run, spec = world.run, world.spec
    export(run, spec)
    score(run, spec)
    ungraded = Predictor(run.root, threads=1)
    assert ungraded.predict(world.images[0], explain=True).cam_grade == UNGRADED
    found = explain(run, spec, count=50, cases=1)  # without closed_form: gradcam has its maps
    closed = explain(run, spec, count=50, cases=1, methods=["closed_form"])
    (network,) = closed.values["networks"]
    for one in (found, closed):
        said = one.values["networks"][0]["grades"]
        verdict = said.get("closed_form", said.get("gradcam"))
        assert verdict["verdict"] in ("better", "no better"), "enough lesions to say something"
        assert one.values["served_grade"]["verdict"] == verdict["verdict"]
        assert f"served heat maps: {verdict['sentence']}" in one.lines()[-4]
    served = Predictor(run.root, threads=1)
    answer = served.predict(world.images[0], explain="nv")
    assert answer.cam_grade is not None
    assert answer.cam_grade.model_dump() == closed.values["served_grade"]
    assert answer.cam_grade.groups == network["groups"] >= 10
    for ours, theirs in (
        (answer.cam_grade.faithfulness, network["methods"]["closed_form"]["faithfulness"]),
        *((answer.cam_grade.over[floor], network["grades"]["closed_form"]["over"][floor]) for floor in ("centre", "random")),
    ):
        assert ours is not None
        assert ours.model_dump() == {name: theirs[name] for name in ("value", "low", "high")}
    own = runner.Network.open(run)
    pixels = to_size(decode(world.images[0].read_bytes()).image, own.preprocessing)[None]
    asked = explain_batch(own.model, own.tensors(pixels, {}), "closed_form", own.classes.index("nv"), signed=True)
    by_explain = asked.grid.numpy()[0]
    np.testing.assert_allclose(answer.cam, by_explain, atol=1e-4 * max(1.0, float(np.abs(by_explain).max())))
    assert verify(run.root).passed
    assert any(str(answer.cam_grade.words) in check.found for check in verify(run.root).checks)
    sha256 = served.artifact.sha256
    export(run, spec)
    assert Predictor(run.root, threads=1).artifact.sha256 == sha256, "a new export of the same weights keeps its grade"
    explain(run, spec, count=3, cases=1, methods=["closed_form"])
    assert Predictor(run.root, threads=1).artifact.sha256 == sha256, "and fewer lesions take nothing away"


def test_the_exported_graph_gives_the_same_map(scored: tuple[Run, Any]) -> None:
    run, spec = scored
    network, artifact = runner.Network.open(run), open_export(run, spec.inference.recipe)
    p = network.preprocessing
    pixels = np.random.default_rng(0).integers(0, 256, (2, p.height, p.width, 3), dtype=np.uint8)
    found = explain_batch(network.model, network.tensors(pixels, {}), "closed_form", 1, signed=True).grid.numpy()
    cam_BChw = artifact.cam(pixels)[2]
    assert np.abs(found - cam_BChw[:, 1]).max() <= 1e-4 * max(1.0, np.abs(found).max())
    assert np.abs(found).max() > 0


def test_runs_side_by_side(run_of: tuple[Run, Any], tmp_path: Path, save_checkpoint: Callable[..., None]) -> None:
    run, spec = run_of
    other = Run(tmp_path / "other")
    shutil.copytree(run.root, other.root)
    save_checkpoint(other, spec, seed=5)
    export(other, spec)
    score(other, spec)
    values = explain(run, spec, compare=[other.root], count=50, cases=1, methods=["gradcam"]).values
    assert [network["run"] for network in values["networks"]] == ["run", "other"]
    for case in values["cases"]:
        assert [panel["run"] for panel in case["panels"]] == ["run", "other"]
    assert len(list(run.explain_dir.glob("scores-*.json"))) == 2
    assert not other.explain_dir.exists(), "the other run is only read"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"methods": ["gradcan"]}, UsageError, "--methods gradcan: must be one of .*; did you mean 'gradcam'"),
        ({"methods": ["rollout"]}, UsageError, "none fits run: rollout: TinyCnn has no attention .*; use gradcam"),
        ({"count": -1}, UsageError, "count must be 0 or more"),
        ({"cases": 0}, UsageError, "cases 1 or more"),
        ({"images": ["mel_00"]}, UsageError, "--images mel_00: neither an image of the run"),
        ({"images": ["EMPTY"]}, DataError, "the folder holds no image"),
        ({"images": ["TEXT"]}, DataError, "the file is no image"),
        ({"compare": ["RUN"]}, UsageError, "each run must be named once"),
        ({"compare": ["EMPTY"]}, UsageError, "not a run folder"),
        ({"compare": ["NONE"]}, UsageError, "not a run folder"),
    ],
)
def test_refusals(
    scored: tuple[Run, Any], tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    run, spec = scored
    empty, text = tmp_path / "empty", tmp_path / "a.jpg"
    empty.mkdir()
    text.write_text("no image")
    places = {"EMPTY": empty, "TEXT": text, "RUN": run.root, "NONE": tmp_path / "none"}
    given = {
        key: [str(places.get(word, word)) for word in value] if isinstance(value, list) else value
        for key, value in options.items()
    }
    with pytest.raises(error, match=message) as caught:
        explain(run, spec, **{"count": 0, **given})
    assert "\n" not in str(caught.value)
    assert not run.gallery_path.exists()


def test_a_run_that_is_not_far_enough_is_refused(run_of: tuple[Run, Any]) -> None:
    run, spec = run_of
    shutil.rmtree(run.predictions_dir)
    with pytest.raises(UsageError, match="run first: dermalyze score"):
        explain(run, spec, count=0)
    run.best_record_path.unlink()
    with pytest.raises(ModelError, match="no checkpoint of its own"):
        explain(run, spec, count=0)
    shutil.rmtree(run.artifact_dir)
    with pytest.raises(UsageError, match="run first: dermalyze train"):
        explain(run, spec, count=0)


@pytest.mark.slow
def test_a_clean_set_is_not_accused_of_a_shortcut(tmp_path: Path) -> None:
    """A small network trained on a set without a mark; tests/unit/explain/test_border_reliance.py shows that one is named."""
    from dermalyze.data.synthetic.synth import synthesize
    from dermalyze.stages.prepare import prepare
    from dermalyze.stages.split import split
    from dermalyze.stages.train import train

    data = tmp_path / "data"
    synthesize(data, lesions=280, seed=3, size_px=(72, 96), balance="even", images_per_lesion=1.0)
    spec = build_experiment({
        "data": {"path": str(data), "workers": 0},
        "preprocess": {"size": [36, 48]},
        "split": {"fractions": {"train": 0.5, "val": 0.1, "cal": 0.1, "test": 0.3}},
        "model": {"backbone": "tiny_cnn", "kwargs": {"channels": [16, 32, 32]}, "head": {"kind": "linear", "dropout": 0.0}},
        "train": {
                "epochs": 30, "batch_size": 16, "threads": 1, "amp": False, "augment": {"policy": "none"},
                "optimizer": {"kind": "adamw", "lr": 5e-3},
            },
        "inference": {"recipe": "plain"},
    })  # fmt: skip
    run = Run.create(tmp_path / "run", spec)
    for step in (prepare, split, train, export, score):
        step(run, spec)
    found = explain(run, spec, count=200, cases=1)
    alarms = [line for line in found.lines() if line.startswith("Shortcut suspected")]
    page = run.gallery_path.read_text()
    assert alarms == [], found.lines()
    assert "none was found" in page
